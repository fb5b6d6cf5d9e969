package policy

import (
	"cmp"
	"math"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Defaults of CircuitBreaker, beside those of Envoy.
const (
	DefaultOutlierInterval  = 10 * time.Second
	DefaultBaseEjection     = 30 * time.Second
	DefaultMaxEjectionShare = 10
	DefaultConsecutive      = 5
)

// Defaults of the detectors that compare endpoints, and of Retry's budget.
const (
	defaultDeviationVolume = 100
	defaultFailureVolume   = 50
	defaultMinimumHosts    = 5
	defaultThousandths     = 1900
	defaultFailureShare    = 85
	defaultBudgetPercent   = 20
	defaultBudgetMinimum   = 3
)

// LimitsOf returns what a CircuitBreaker and the budget of a Retry allow to be under way; each may be nil. A budget takes the
// place of a limit of retries.
func LimitsOf(breaker *meshv1.CircuitBreaker, retry *meshv1.Retry) ir.Limits {
	var out ir.Limits
	if t := breaker.GetConf().GetThresholds(); t != nil {
		out = ir.Limits{Connections: t.MaxConnections, PendingRequests: t.MaxPendingRequests, Requests: t.MaxRequests, Retries: t.MaxRetries}
	}
	if b := retry.GetConf().GetBudget(); b != nil {
		out.Retries = nil
		out.RetryBudget = &ir.RetryBudget{Percent: or(b.Percent, defaultBudgetPercent), MinConcurrency: or(b.MinConcurrency, defaultBudgetMinimum)}
	}
	return out
}

// OutlierOf returns how endpoints that fail are found; nil for a CircuitBreaker without detectors, and for nil.
func OutlierOf(breaker *meshv1.CircuitBreaker) *ir.Outlier {
	conf := breaker.GetConf()
	d := conf.GetDetectors()
	if d == nil {
		return nil
	}
	out := &ir.Outlier{
		Interval:         cmp.Or(bound(conf.GetInterval(), 0), DefaultOutlierInterval),
		BaseEjection:     cmp.Or(bound(conf.GetBaseEjectionTime(), 0), DefaultBaseEjection),
		MaxEjectionShare: or(conf.MaxEjectionPercent, DefaultMaxEjectionShare),
		SplitLocal:       conf.GetSplitExternalAndLocalErrors(),
		TotalErrors:      consecutive(d.GetTotalErrors()),
		GatewayErrors:    consecutive(d.GetGatewayErrors()),
		LocalErrors:      consecutive(d.GetLocalErrors()),
	}
	// The share of a service with few endpoints would never let one go.
	out.EjectOne = out.MaxEjectionShare > 0
	if s := d.GetStandardDeviation(); s != nil {
		out.Deviation = &ir.OutlierDeviation{RequestVolume: or(s.RequestVolume, defaultDeviationVolume),
			MinimumHosts: or(s.MinimumHosts, defaultMinimumHosts), Thousandths: defaultThousandths}
		if s.Factor != nil {
			out.Deviation.Thousandths = uint32(math.Round(s.GetFactor() * 1000))
		}
	}
	if f := d.GetFailure(); f != nil {
		out.Failure = &ir.OutlierFailure{RequestVolume: or(f.RequestVolume, defaultFailureVolume),
			MinimumHosts: or(f.MinimumHosts, defaultMinimumHosts), Percent: or(f.Threshold, defaultFailureShare)}
	}
	return out
}

func consecutive(c *meshv1.CircuitBreaker_Consecutive) *uint32 {
	if c == nil {
		return nil
	}
	n := or(c.Consecutive, DefaultConsecutive)
	return &n
}

// or is what a pointer leads to, or what holds without one.
func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
