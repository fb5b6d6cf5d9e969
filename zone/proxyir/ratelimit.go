package proxyir

import (
	"cmp"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Defaults of limits.
const (
	defaultLimitKeys    = 10_000
	defaultLimitTimeout = 100 * time.Millisecond
	defaultLimitDomain  = "zoneforge"
	// defaultIPv6Prefix is what one client mostly has.
	defaultIPv6Prefix = 64
)

// limit is what a rule of a RateLimit and a filter have in common.
type limit interface {
	GetRequests() uint32
	GetInterval() *durationpb.Duration
	GetOnRateLimit() *meshv1.OnRateLimit
	GetKeys() []*meshv1.LimitKey
	GetMaxKeys() uint32
	GetRateLimitHeaders() bool
	GetShared() *meshv1.SharedLimit
}

// rateLimit names a limit for where it stands, which is the same in all zones and in each version.
func (b *builder) rateLimit(from string, l limit) (*ir.RateLimit, error) {
	on := l.GetOnRateLimit()
	out := &ir.RateLimit{
		Name: b.MeshName + "/" + from, Requests: l.GetRequests(), Interval: l.GetInterval().AsDuration(), Status: on.GetStatus(),
		RetryAfter: on.GetRetryAfter(), MaxKeys: cmp.Or(l.GetMaxKeys(), defaultLimitKeys), Announce: l.GetRateLimitHeaders(),
	}
	for _, h := range on.GetHeaders() {
		out.Headers = append(out.Headers, ir.LimitHeader{Header: ir.Header{Name: h.GetName(), Value: h.GetValue()}, Append: h.GetAppend()})
	}
	for _, k := range l.GetKeys() {
		out.Keys = append(out.Keys, limitKey(k))
	}
	shared := l.GetShared()
	if shared == nil {
		return out, nil
	}
	cluster, err := b.target(shared.GetService(), ir.HTTP2)
	if err != nil {
		return nil, fmt.Errorf("rate limit: service: %w", err)
	}
	out.Shared = &ir.SharedLimit{
		Cluster: cluster, Domain: cmp.Or(shared.GetDomain(), defaultLimitDomain), Timeout: defaultLimitTimeout,
		Deny: shared.GetOnFailure() == meshv1.SharedLimit_ON_FAILURE_DENY,
	}
	if shared.GetTimeout() != nil {
		out.Shared.Timeout = shared.GetTimeout().AsDuration()
	}
	return out, nil
}

func limitKey(k *meshv1.LimitKey) ir.LimitKey {
	switch v := k.GetKey().(type) {
	case *meshv1.LimitKey_Address_:
		out := ir.LimitKey{Kind: ir.KeyAddress, IPv4Prefix: 32, IPv6Prefix: defaultIPv6Prefix}
		if v.Address.Ipv4Prefix != nil {
			out.IPv4Prefix = v.Address.GetIpv4Prefix()
		}
		if v.Address.Ipv6Prefix != nil {
			out.IPv6Prefix = v.Address.GetIpv6Prefix()
		}
		return out
	case *meshv1.LimitKey_Header:
		return ir.LimitKey{Kind: ir.KeyHeader, Name: v.Header}
	case *meshv1.LimitKey_Claim:
		return ir.LimitKey{Kind: ir.KeyClaim, Name: v.Claim}
	case *meshv1.LimitKey_Query:
		return ir.LimitKey{Kind: ir.KeyQuery, Name: v.Query}
	}
	return ir.LimitKey{Kind: ir.KeyPath}
}

// fromRateLimits are the rules of RateLimits in their order, of which the first that matches a request counts. A RateLimit that
// can't be built is reported and left out: who asked for a limit did not ask for an outage.
func (b *builder) fromRateLimits(list []*resource.Resource, use string) []attachment {
	var out []attachment
	for _, r := range list {
		made, ok := b.limits[r.Key]
		if !ok {
			mark := len(b.order)
			spec, _ := r.Spec.(*meshv1.RateLimit)
			for i, rule := range spec.GetConf().GetHttp() {
				l, err := b.rateLimit(fmt.Sprintf("RateLimit/%s/%d", r.Name, i), rule)
				if err != nil {
					b.reject(r.Key, mark, fmt.Errorf("http rule %d: %w", i, err))
					made = nil
					break
				}
				made = append(made, attachment{key: r.Key, matches: rule.GetMatches(), does: ir.Route{Filters: ir.Filters{PolicyLimit: l}}})
			}
			b.tell(r.Key)
			b.limits[r.Key] = made
		}
		if len(made) > 0 {
			b.use(r, "%s", use)
		}
		out = append(out, made...)
	}
	return out
}

// gatewayLimits are the RateLimits for a listener with these tags, the most specific first.
func (b *builder) gatewayLimits(tags map[string]string, use string) []attachment {
	return b.fromRateLimits(policy.AllMatching(b.Policies["RateLimit"].Of(tags), b.MeshName, tags), use)
}
