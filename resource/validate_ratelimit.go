package resource

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func validateRateLimit(s scope, r *Resource) {
	l := Spec[*meshv1.RateLimit](r)
	conf := s.at("conf")
	atGateway := len(l.GetSelectors()) > 0
	switch {
	case atGateway && len(l.GetSources())+len(l.GetDestinations()) > 0:
		s.errorf("write selectors to limit gateways, or sources and destinations to limit a service", "selectors exclude sources and destinations")
	case atGateway:
		checkSelectors(s, "selectors", l.GetSelectors())
	case len(l.GetSources())+len(l.GetDestinations()) == 0:
		s.errorf("write selectors to limit gateways, or sources and destinations to limit a service", "needs selectors, or sources and destinations")
	default:
		checkSelectors(s, "sources", l.GetSources())
		checkSelectors(s, "destinations", l.GetDestinations())
	}
	if len(l.GetConf().GetHttp()) == 0 {
		conf.errorf("", "needs http")
	}
	for i, rule := range l.GetConf().GetHttp() {
		at := conf.at("http").index(i)
		for j, m := range rule.GetMatches() {
			checkMatch(at.at("matches").index(j), m)
		}
		checkLimit(at, rule)
	}
}

// limit is what a rule of a RateLimit and a filter have in common.
type limit interface {
	GetRequests() uint32
	GetInterval() *durationpb.Duration
	GetOnRateLimit() *meshv1.OnRateLimit
	GetKeys() []*meshv1.LimitKey
	GetMaxKeys() uint32
	GetShared() *meshv1.SharedLimit
}

// Bounds of a limit.
const (
	// minLimitInterval is how often proxies can fill a bucket up.
	minLimitInterval = 50 * time.Millisecond
	// maxLimitInterval keeps a day's limit possible, while a mistyped unit is noticed.
	maxLimitInterval = 31 * 24 * time.Hour
	// maxLimitKeys bounds the memory of proxies.
	maxLimitKeys = 1_000_000
	// maxLimitTimeout bounds how long a request waits to be counted.
	maxLimitTimeout = 10 * time.Second
)

var sharedIntervals = []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}

func checkLimit(s scope, l limit) {
	if l.GetRequests() == 0 {
		s.at("requests").errorf("to let none pass, answer with a directResponse", "needs a number above 0")
	}
	switch {
	case l.GetInterval() == nil:
		s.at("interval").errorf("", "needs a duration, such as 10s")
	case l.GetShared() != nil:
		if !slices.Contains(sharedIntervals, l.GetInterval().AsDuration()) {
			s.at("interval").errorf("", "a shared limit counts in 1s, 1m, 1h or 24h")
		}
	default:
		checkDuration(s.at("interval"), l.GetInterval(), minLimitInterval, maxLimitInterval)
	}
	on, at := l.GetOnRateLimit(), s.at("onRateLimit")
	if on.GetStatus() != 0 && (on.GetStatus() < 400 || on.GetStatus() > 599) {
		at.at("status").errorf("use 429, or another from 400 to 599", "%d tells of no refusal", on.GetStatus())
	}
	if on.GetRetryAfter() && on.GetStatus() != 0 && on.GetStatus() != 429 {
		at.at("retryAfter").errorf("leave the status out, or give the header under headers", "goes with status 429")
	}
	for i, h := range on.GetHeaders() {
		checkChangedHeader(at.at("headers").index(i).at("name"), h.GetName())
		checkHeaderValue(at.at("headers").index(i).at("value"), h.GetValue())
	}
	if l.GetMaxKeys() > maxLimitKeys {
		s.at("maxKeys").errorf("", "at most %d", maxLimitKeys)
	}
	seen := map[string]bool{}
	for i, k := range l.GetKeys() {
		checkLimitKey(s.at("keys").index(i), k, seen)
	}
	if shared := l.GetShared(); shared != nil {
		at := s.at("shared")
		checkTarget(at.at("service"), shared.GetService())
		if d := shared.GetDomain(); d != "" && !isDNSSubdomain(d) {
			at.at("domain").errorf("use lower-case letters, digits and hyphens", "%q is no name of a domain", d)
		}
		checkDuration(at.at("timeout"), shared.GetTimeout(), time.Millisecond, maxLimitTimeout)
		if l.GetMaxKeys() != 0 {
			s.at("maxKeys").errorf("remove it", "the service of a shared limit holds the keys")
		}
	} else if l.GetMaxKeys() != 0 && len(l.GetKeys()) == 0 {
		s.at("maxKeys").errorf("", "is for a limit with keys")
	}
}

func checkLimitKey(s scope, k *meshv1.LimitKey, seen map[string]bool) {
	name := ""
	switch v := k.GetKey().(type) {
	case *meshv1.LimitKey_Address_:
		name = "address"
		prefix := func(field string, bits *uint32, most uint32) {
			if bits != nil && *bits > most {
				s.at("address", field).errorf("", "a network of this kind has at most %d bits", most)
			}
		}
		prefix("ipv4Prefix", v.Address.Ipv4Prefix, 32)
		prefix("ipv6Prefix", v.Address.Ipv6Prefix, 128)
	case *meshv1.LimitKey_Header:
		name = "header " + strings.ToLower(v.Header)
		checkHeaderName(s.at("header"), v.Header)
	case *meshv1.LimitKey_Claim:
		name = "claim " + v.Claim
		if v.Claim == "" {
			s.at("claim").errorf("", "needs the name of a claim")
		}
	case *meshv1.LimitKey_Query:
		name = "query " + v.Query
		if v.Query == "" {
			s.at("query").errorf("", "needs the name of a query parameter")
		}
	case *meshv1.LimitKey_Path_:
		name = "path"
	default:
		s.errorf("", "needs one of address, header, claim, query and path")
		return
	}
	if seen[name] {
		s.errorf("keep one of them", "tells apart by what another key tells by")
	}
	seen[name] = true
}
