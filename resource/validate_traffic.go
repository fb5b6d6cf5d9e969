package resource

import (
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func validateTrafficPermission(s scope, r *Resource) {
	p := Spec[*meshv1.TrafficPermission](r)
	checkSelectors(s, "sources", p.GetSources(), TagService, TagZone)
	checkSelectors(s, "destinations", p.GetDestinations())
}

func validateTrafficRoute(s scope, r *Resource) {
	t := Spec[*meshv1.TrafficRoute](r)
	checkSelectors(s, "sources", t.GetSources())
	checkSelectors(s, "destinations", t.GetDestinations())
	conf := s.at("conf")
	checkSplit(conf, t.GetConf().GetDestination(), t.GetConf().GetSplit())
	for i, h := range t.GetConf().GetHttp() {
		at := conf.at("http").index(i)
		match := at.at("match")
		m := h.GetMatch()
		if m.GetPath() == nil && m.GetMethod() == nil && len(m.GetHeaders()) == 0 {
			at.errorf("put what all requests do under destination or split", "needs match with path, method or headers")
		}
		if p := m.GetPath(); p != nil {
			checkStringMatcher(match.at("path"), p)
			switch v := p.GetMatcher().(type) {
			case *meshv1.StringMatcher_Exact:
				checkPath(match.at("path", "exact"), v.Exact)
			case *meshv1.StringMatcher_Prefix:
				checkPath(match.at("path", "prefix"), v.Prefix)
			}
		}
		if m.GetMethod() != nil {
			checkStringMatcher(match.at("method"), m.GetMethod())
		}
		for _, k := range slices.Sorted(maps.Keys(m.GetHeaders())) {
			checkHeaderName(match.at("headers").key(k), k)
			checkStringMatcher(match.at("headers").key(k), m.GetHeaders()[k])
		}
		checkHeaderChange(at.at("modify", "requestHeaders"), h.GetModify().GetRequestHeaders())
		checkHeaderChange(at.at("modify", "responseHeaders"), h.GetModify().GetResponseHeaders())
		checkSplit(at, h.GetDestination(), h.GetSplit())
	}
}

// checkSplit wants exactly one of destination and split.
func checkSplit(s scope, destination map[string]string, split []*meshv1.TrafficRoute_Split) {
	switch {
	case len(destination) > 0 && len(split) > 0:
		s.errorf("keep one of them", "destination excludes split")
	case len(destination) == 0 && len(split) == 0:
		s.errorf("", "needs destination or split")
	}
	if len(destination) > 0 {
		checkOwnTags(s.at("destination"), destination)
	}
	var sum uint64
	for i, p := range split {
		checkOwnTags(s.at("split").index(i).at("destination"), p.GetDestination())
		sum += uint64(p.GetWeight())
	}
	checkWeights(s.at("split"), sum, len(split))
}

func validateTimeout(s scope, r *Resource) {
	t := Spec[*meshv1.Timeout](r)
	checkSelectors(s, "sources", t.GetSources())
	checkSelectors(s, "destinations", t.GetDestinations())
	c, conf := t.GetConf(), s.at("conf")
	if c == nil {
		s.errorf("", "needs conf")
	}
	checkDuration(conf.at("connectTimeout"), c.GetConnectTimeout(), time.Nanosecond, 0)
	checkDuration(conf.at("tcp", "idleTimeout"), c.GetTcp().GetIdleTimeout(), 0, 0)
	http := conf.at("http")
	checkDuration(http.at("requestTimeout"), c.GetHttp().GetRequestTimeout(), 0, 0)
	checkDuration(http.at("idleTimeout"), c.GetHttp().GetIdleTimeout(), 0, 0)
	checkDuration(http.at("streamIdleTimeout"), c.GetHttp().GetStreamIdleTimeout(), 0, 0)
	checkDuration(http.at("maxStreamDuration"), c.GetHttp().GetMaxStreamDuration(), 0, 0)
}

// Conditions of retries. Envoy names them with a hyphen.
var (
	httpRetryOn = []string{"5xx", "connect_failure", "envoy_ratelimited", "gateway_error", "http3_post_connect_failure",
		"refused_stream", "reset", "reset_before_request", "retriable_4xx"}
	grpcRetryOn = []string{"cancelled", "deadline_exceeded", "internal", "resource_exhausted", "unavailable"}
)

func validateRetry(s scope, r *Resource) {
	t := Spec[*meshv1.Retry](r)
	checkSelectors(s, "sources", t.GetSources())
	checkSelectors(s, "destinations", t.GetDestinations())
	c, conf := t.GetConf(), s.at("conf")
	if c.GetHttp() == nil && c.GetTcp() == nil && c.GetGrpc() == nil {
		s.errorf("", "needs conf with http, tcp or grpc")
	}
	http := conf.at("http")
	checkDuration(http.at("perTryTimeout"), c.GetHttp().GetPerTryTimeout(), 0, 0)
	checkBackOff(http.at("backOff"), c.GetHttp().GetBackOff())
	checkRetryOn(http.at("retryOn"), c.GetHttp().GetRetryOn(), httpRetryOn)
	for i, code := range c.GetHttp().GetRetriableStatusCodes() {
		if code < 100 || code > 599 {
			http.at("retriableStatusCodes").index(i).errorf("", "a status code is a number from 100 to 599")
		}
	}
	for i, m := range c.GetHttp().GetRetriableMethods() {
		if !token.MatchString(m) {
			http.at("retriableMethods").index(i).errorf("", "%q is no method", m)
		}
	}
	grpc := conf.at("grpc")
	checkDuration(grpc.at("perTryTimeout"), c.GetGrpc().GetPerTryTimeout(), 0, 0)
	checkBackOff(grpc.at("backOff"), c.GetGrpc().GetBackOff())
	checkRetryOn(grpc.at("retryOn"), c.GetGrpc().GetRetryOn(), grpcRetryOn)
}

// normalizeRetry stores conditions in one of their two spellings.
func normalizeRetry(spec proto.Message) {
	c := spec.(*meshv1.Retry).GetConf()
	for _, names := range [][]string{c.GetHttp().GetRetryOn(), c.GetGrpc().GetRetryOn()} {
		for i, n := range names {
			names[i] = strings.ReplaceAll(n, "-", "_")
		}
	}
}

func checkRetryOn(s scope, names, known []string) {
	for i, n := range names {
		if !slices.Contains(known, n) {
			s.index(i).errorf(didYouMean(n, known), "unknown condition %q", n)
		}
	}
}

func checkBackOff(s scope, b *meshv1.Retry_BackOff) {
	checkDuration(s.at("baseInterval"), b.GetBaseInterval(), time.Nanosecond, 0)
	checkDuration(s.at("maxInterval"), b.GetMaxInterval(), time.Nanosecond, 0)
	if b.GetBaseInterval() != nil && b.GetMaxInterval() != nil && b.GetMaxInterval().AsDuration() < b.GetBaseInterval().AsDuration() {
		s.at("maxInterval").errorf("", "must be at least baseInterval")
	}
}
