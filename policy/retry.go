package policy

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Defaults of Retry.
const (
	DefaultRetries           = 1
	DefaultRetryBaseInterval = 25 * time.Millisecond
	// The longest interval is so many times the base.
	defaultRetryIntervalFactor = 10
)

// onStatusCodes is Envoy's condition without which it ignores the list of status codes.
const onStatusCodes = "retriable-status-codes"

// Conditions as Envoy spells them, sorted.
var (
	httpConditions = []string{
		"5xx", "connect-failure", "envoy-ratelimited", "gateway-error", "http3-post-connect-failure", "refused-stream",
		"reset", "reset-before-request", "retriable-4xx", onStatusCodes,
	}
	httpDefaultConditions = []string{"connect-failure", "gateway-error", "refused-stream"}
	grpcConditions        = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}
)

// RetryFor returns the most specific Retry of the mesh for a connection; nil when none matches. HTTPRetry, GRPCRetry and
// ConnectAttempts read it by the destination's protocol.
func RetryFor(policies []*resource.Resource, mesh string, source, destination map[string]string) *meshv1.Retry {
	r := MostSpecificForConnection(policies, mesh, source, destination)
	if r == nil {
		return nil
	}
	spec, _ := r.Spec.(*meshv1.Retry)
	return spec
}

// HTTPRetry returns how HTTP requests are repeated; nil when they aren't: without a policy, without its http section, or
// with no attempt or condition left. Attempts don't count the first. Conditions that Envoy doesn't know are left out.
func HTTPRetry(retry *meshv1.Retry) *ir.Retry {
	conf := retry.GetConf().GetHttp()
	if conf == nil {
		return nil
	}
	on := httpDefaultConditions
	if len(conf.GetRetryOn()) > 0 {
		on = conditions(conf.GetRetryOn(), httpConditions)
	}
	codes := sortedSet(conf.GetRetriableStatusCodes())
	on = slices.Clone(on)
	if len(codes) > 0 {
		on = append(on, onStatusCodes)
	}
	var methods []string
	for _, m := range conf.GetRetriableMethods() {
		methods = append(methods, strings.ToUpper(m))
	}
	out := &ir.Retry{
		On:            sortedSet(on),
		Attempts:      attempts(conf.NumRetries),
		PerTryTimeout: bound(conf.GetPerTryTimeout(), 0),
		StatusCodes:   codes,
		Methods:       sortedSet(methods),
	}
	out.BaseInterval, out.MaxInterval = intervals(conf.GetBackOff())
	return unlessIdle(out)
}

// GRPCRetry returns how gRPC requests are repeated; nil when they aren't, as with HTTPRetry and the grpc section.
func GRPCRetry(retry *meshv1.Retry) *ir.Retry {
	conf := retry.GetConf().GetGrpc()
	if conf == nil {
		return nil
	}
	on := slices.Clone(grpcConditions)
	if len(conf.GetRetryOn()) > 0 {
		on = conditions(conf.GetRetryOn(), grpcConditions)
	}
	out := &ir.Retry{
		On:            sortedSet(on),
		Attempts:      attempts(conf.NumRetries),
		PerTryTimeout: bound(conf.GetPerTryTimeout(), 0),
	}
	out.BaseInterval, out.MaxInterval = intervals(conf.GetBackOff())
	return unlessIdle(out)
}

// ConnectAttempts returns how often a plain TCP connection is tried in all; at least 1.
func ConnectAttempts(retry *meshv1.Retry) uint32 {
	return max(1, retry.GetConf().GetTcp().GetMaxConnectAttempts())
}

// unlessIdle drops a retry that would never repeat anything.
func unlessIdle(r *ir.Retry) *ir.Retry {
	if r.Attempts == 0 || len(r.On) == 0 {
		return nil
	}
	return r
}

func attempts(n *uint32) uint32 {
	if n == nil {
		return DefaultRetries
	}
	return *n
}

// intervals are those between attempts; Envoy refuses a longest interval below the base.
func intervals(b *meshv1.Retry_BackOff) (base, longest time.Duration) {
	if base = bound(b.GetBaseInterval(), 0); base == 0 {
		base = DefaultRetryBaseInterval
	}
	if longest = bound(b.GetMaxInterval(), 0); longest == 0 {
		longest = math.MaxInt64
		if base <= math.MaxInt64/defaultRetryIntervalFactor {
			longest = base * defaultRetryIntervalFactor
		}
	}
	return base, max(base, longest)
}

// conditions spells conditions as Envoy does and keeps those that are known.
func conditions(written, known []string) []string {
	var out []string
	for _, w := range written {
		w = strings.ReplaceAll(strings.ToLower(w), "_", "-")
		if slices.Contains(known, w) {
			out = append(out, w)
		}
	}
	return out
}

// sortedSet returns a sorted copy without repetitions; nil for none.
func sortedSet[T interface{ ~string | ~uint32 }](in []T) []T {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
