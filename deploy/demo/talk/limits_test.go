package talk

import (
	"testing"

	ratelimitextv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// TestLimits counts each key by itself, and lets pass what has no limit. Only a run over midnight, UTC, could find a new count.
func TestLimits(t *testing.T) {
	l := NewLimits()
	descriptor := func(client string, limit *ratelimitextv3.RateLimitDescriptor_RateLimitOverride) *ratelimitextv3.RateLimitDescriptor {
		return &ratelimitextv3.RateLimitDescriptor{Entries: []*ratelimitextv3.RateLimitDescriptor_Entry{{Key: "client", Value: client}}, Limit: limit}
	}
	two := &ratelimitextv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 2, Unit: typev3.RateLimitUnit_DAY}
	for i, c := range []struct {
		client    string
		limit     *ratelimitextv3.RateLimitDescriptor_RateLimitOverride
		over      bool
		remaining uint32
	}{{"a", two, false, 1}, {"a", two, false, 0}, {"b", two, false, 1}, {"a", two, true, 0}, {"a", nil, false, 0}} {
		r, err := l.ShouldRateLimit(t.Context(), &ratelimitv3.RateLimitRequest{Domain: "d", Descriptors: []*ratelimitextv3.RateLimitDescriptor{descriptor(c.client, c.limit)}})
		if err != nil || len(r.GetStatuses()) != 1 || (r.GetOverallCode() == ratelimitv3.RateLimitResponse_OVER_LIMIT) != c.over || r.GetStatuses()[0].GetLimitRemaining() != c.remaining {
			t.Errorf("request %d: %v %v, want over the limit %t with %d remaining", i, r, err, c.over, c.remaining)
		}
	}
}
