package xds

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// setBreakers limits what is under way, and finds endpoints that fail.
func setBreakers(out *clusterv3.Cluster, c *ir.Cluster) error {
	limits := clusterv3.CircuitBreakers_Thresholds{
		MaxConnections: number(c.Limits.Connections), MaxPendingRequests: number(c.Limits.PendingRequests),
		MaxRequests: number(c.Limits.Requests), MaxRetries: number(c.Limits.Retries),
	}
	var errs []error
	if b := c.Limits.RetryBudget; b != nil {
		if c.Limits.Retries != nil {
			errs = append(errs, errors.New("limits: has both a limit of retries and a budget of them: set one"))
		}
		limits.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent: &typev3.Percent{Value: b.Percent}, MinRetryConcurrency: wrapperspb.UInt32(b.MinConcurrency),
		}
	}
	if c.Limits != (ir.Limits{}) {
		out.CircuitBreakers = &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{&limits}}
	}
	if c.Outlier != nil {
		errs = append(errs, notNegative(namedDuration{"outliers: interval", c.Outlier.Interval},
			namedDuration{"outliers: base ejection time", c.Outlier.BaseEjection}))
		if c.Outlier.MaxEjectionShare > 100 {
			errs = append(errs, fmt.Errorf("outliers: %d percent of the endpoints can't be out: at most 100", c.Outlier.MaxEjectionShare))
		}
		out.OutlierDetection = outliers(c.Outlier)
	}
	return errors.Join(errs...)
}

// outliers spells out which detectors act: left out, Envoy has some act and others not.
func outliers(o *ir.Outlier) *clusterv3.OutlierDetection {
	acts := func(on bool) *wrapperspb.UInt32Value {
		if on {
			return wrapperspb.UInt32(100)
		}
		return wrapperspb.UInt32(0)
	}
	out := &clusterv3.OutlierDetection{
		Interval: unlessZero(o.Interval), BaseEjectionTime: unlessZero(o.BaseEjection),
		MaxEjectionPercent: wrapperspb.UInt32(o.MaxEjectionShare), AlwaysEjectOneHost: wrapperspb.Bool(o.EjectOne),
		SplitExternalLocalOriginErrors: o.SplitLocal,

		Consecutive_5Xx: number(o.TotalErrors), EnforcingConsecutive_5Xx: acts(o.TotalErrors != nil),
		ConsecutiveGatewayFailure: number(o.GatewayErrors), EnforcingConsecutiveGatewayFailure: acts(o.GatewayErrors != nil),
		EnforcingSuccessRate: acts(o.Deviation != nil), EnforcingFailurePercentage: acts(o.Failure != nil),
	}
	if o.SplitLocal {
		out.ConsecutiveLocalOriginFailure = number(o.LocalErrors)
		out.EnforcingConsecutiveLocalOriginFailure = acts(o.LocalErrors != nil)
		out.EnforcingLocalOriginSuccessRate = acts(o.Deviation != nil)
		out.EnforcingFailurePercentageLocalOrigin = acts(o.Failure != nil)
	}
	if d := o.Deviation; d != nil {
		out.SuccessRateRequestVolume, out.SuccessRateMinimumHosts = wrapperspb.UInt32(d.RequestVolume), wrapperspb.UInt32(d.MinimumHosts)
		out.SuccessRateStdevFactor = wrapperspb.UInt32(d.Thousandths)
	}
	if f := o.Failure; f != nil {
		out.FailurePercentageRequestVolume, out.FailurePercentageMinimumHosts = wrapperspb.UInt32(f.RequestVolume), wrapperspb.UInt32(f.MinimumHosts)
		out.FailurePercentageThreshold = wrapperspb.UInt32(f.Percent)
	}
	return out
}

func number(n *uint32) *wrapperspb.UInt32Value {
	if n == nil {
		return nil
	}
	return wrapperspb.UInt32(*n)
}
