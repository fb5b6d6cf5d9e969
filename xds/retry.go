package xds

import (
	"errors"
	"fmt"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"github.com/zoneforge/zoneforge/ir"
)

const (
	headersCond       = "retriable-headers"
	previousHostsName = "envoy.retry_host_predicates.previous_hosts"
	// hostAttempts is how often an endpoint is picked anew that was tried already, before it is tried again.
	hostAttempts = 16
)

// retryConditions are those that a retry needs for its lists, which Envoy ignores without them.
func retryConditions(r *ir.Retry) []string {
	on := slices.Clone(r.On)
	for _, need := range []struct {
		condition string
		n         int
	}{{statusCodesCond, len(r.StatusCodes)}, {headersCond, len(r.Headers)}} {
		if need.n > 0 && !slices.Contains(on, need.condition) {
			on = append(on, need.condition)
		}
	}
	slices.Sort(on)
	return on
}

// setRetryDetails adds what decides on an answer's headers, and where a retry goes.
func setRetryDetails(out *routev3.RetryPolicy, r *ir.Retry) error {
	errs := []error{notNegative(namedDuration{"retry: longest wait", r.ResetLimit})}
	for _, h := range r.Headers {
		m, err := headerMatch(h.Name, h.TextMatch)
		if err != nil {
			errs = append(errs, fmt.Errorf("retry: %w", err))
			continue
		}
		out.RetriableHeaders = append(out.RetriableHeaders, m)
	}
	if len(r.Reset) > 0 {
		out.RateLimitedRetryBackOff = &routev3.RetryPolicy_RateLimitedRetryBackOff{MaxInterval: unlessZero(r.ResetLimit)}
		for _, h := range r.Reset {
			reset := &routev3.RetryPolicy_ResetHeader{Name: h.Name}
			if h.Timestamp {
				reset.Format = routev3.RetryPolicy_UNIX_TIMESTAMP
			}
			out.RateLimitedRetryBackOff.ResetHeaders = append(out.RateLimitedRetryBackOff.ResetHeaders, reset)
		}
	}
	if r.OtherHosts {
		config, err := pack(&previousv3.PreviousHostsPredicate{})
		errs = append(errs, err)
		out.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{Name: previousHostsName,
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: config}}}
		out.HostSelectionRetryMaxAttempts = hostAttempts
	}
	return errors.Join(errs...)
}
