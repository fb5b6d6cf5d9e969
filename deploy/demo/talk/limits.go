package talk

import (
	"context"
	"strings"
	"sync"
	"time"

	ratelimitextv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Limits counts requests in memory for whoever asks by Envoy's rate limit protocol, by the limits that are sent along. It shows how
// gateways count together, on one machine: it forgets with its process, and keeps every key of the interval that it is in.
type Limits struct {
	ratelimitv3.UnimplementedRateLimitServiceServer

	mu     sync.Mutex
	counts map[string]count
}

// count is how often a key was seen in the interval that began then.
type count struct {
	begin time.Time
	hits  uint32
}

// NewLimits has counted nothing yet.
func NewLimits() *Limits { return &Limits{counts: map[string]count{}} }

var units = map[typev3.RateLimitUnit]time.Duration{
	typev3.RateLimitUnit_SECOND: time.Second, typev3.RateLimitUnit_MINUTE: time.Minute, typev3.RateLimitUnit_HOUR: time.Hour, typev3.RateLimitUnit_DAY: 24 * time.Hour,
}

// ShouldRateLimit counts a request for each of its descriptors, and is over the limit when any of them is.
func (l *Limits) ShouldRateLimit(_ context.Context, r *ratelimitv3.RateLimitRequest) (*ratelimitv3.RateLimitResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	out := &ratelimitv3.RateLimitResponse{OverallCode: ratelimitv3.RateLimitResponse_OK}
	for _, d := range r.GetDescriptors() {
		status := l.countLocked(r.GetDomain(), d, max(r.GetHitsAddend(), 1), now)
		if status.GetCode() == ratelimitv3.RateLimitResponse_OVER_LIMIT {
			out.OverallCode = status.GetCode()
		}
		out.Statuses = append(out.Statuses, status)
	}
	return out, nil
}

func (l *Limits) countLocked(domain string, d *ratelimitextv3.RateLimitDescriptor, hits uint32, now time.Time) *ratelimitv3.RateLimitResponse_DescriptorStatus {
	limit, unit := d.GetLimit().GetRequestsPerUnit(), units[d.GetLimit().GetUnit()]
	if d.GetLimit() == nil || unit == 0 {
		return &ratelimitv3.RateLimitResponse_DescriptorStatus{Code: ratelimitv3.RateLimitResponse_OK}
	}
	key := []string{domain, unit.String()}
	for _, e := range d.GetEntries() {
		key = append(key, e.GetKey(), e.GetValue())
	}
	name, begin := strings.Join(key, "\x00"), now.Truncate(unit)
	c := l.counts[name]
	if !c.begin.Equal(begin) {
		c = count{begin: begin}
	}
	c.hits += hits
	l.counts[name] = c
	status := &ratelimitv3.RateLimitResponse_DescriptorStatus{
		Code:               ratelimitv3.RateLimitResponse_OK,
		CurrentLimit:       &ratelimitv3.RateLimitResponse_RateLimit{RequestsPerUnit: limit, Unit: ratelimitv3.RateLimitResponse_RateLimit_Unit(d.GetLimit().GetUnit())},
		LimitRemaining:     limit - min(c.hits, limit),
		DurationUntilReset: durationpb.New(begin.Add(unit).Sub(now)),
	}
	if c.hits > limit {
		status.Code = ratelimitv3.RateLimitResponse_OVER_LIMIT
	}
	return status
}
