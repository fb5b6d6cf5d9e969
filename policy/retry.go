package policy

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Defaults of Retry.
const (
	DefaultRetries           = 1
	DefaultRetryBaseInterval = 25 * time.Millisecond
	// The longest interval is so many times the base.
	defaultRetryIntervalFactor = 10
)

// Envoy's conditions without which it ignores the list of status codes, and that of headers.
const (
	onStatusCodes = "retriable-status-codes"
	onHeaders     = "retriable-headers"
)

// Conditions as Envoy spells them, sorted.
var (
	httpConditions = []string{
		"5xx", "connect-failure", "envoy-ratelimited", "gateway-error", "http3-post-connect-failure", "refused-stream",
		"reset", "reset-before-request", "retriable-4xx", onStatusCodes, onHeaders,
	}
	httpDefaultConditions = []string{"connect-failure", "gateway-error", "refused-stream"}
	grpcConditions        = []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}
)

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
	if len(conf.GetRetriableHeaders()) > 0 {
		on = append(on, onHeaders)
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
		OtherHosts:    conf.GetAvoidPreviousHosts(),
	}
	for _, name := range slices.Sorted(maps.Keys(conf.GetRetriableHeaders())) {
		out.Headers = append(out.Headers, ir.ValueMatch{Name: name, TextMatch: textMatch(conf.GetRetriableHeaders()[name])})
	}
	out.Reset, out.ResetLimit = resetHeaders(conf.GetRateLimitedBackOff())
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
		OtherHosts:    conf.GetAvoidPreviousHosts(),
	}
	out.Reset, out.ResetLimit = resetHeaders(conf.GetRateLimitedBackOff())
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

// resetHeaders are those that say when to repeat, with the longest wait; 0 keeps Envoy's.
func resetHeaders(b *meshv1.Retry_RateLimitedBackOff) ([]ir.ResetHeader, time.Duration) {
	var out []ir.ResetHeader
	for _, h := range b.GetResetHeaders() {
		out = append(out, ir.ResetHeader{Name: h.GetName(), Timestamp: h.GetFormat() == meshv1.Retry_FORMAT_UNIX_TIMESTAMP})
	}
	return out, bound(b.GetMaxInterval(), 0)
}

func textMatch(m *meshv1.StringMatcher) ir.TextMatch {
	switch v := m.GetMatcher().(type) {
	case *meshv1.StringMatcher_Prefix:
		return ir.TextMatch{Kind: ir.TextPrefix, Value: v.Prefix}
	case *meshv1.StringMatcher_Regex:
		return ir.TextMatch{Kind: ir.TextRegex, Value: v.Regex}
	}
	return ir.TextMatch{Kind: ir.TextExact, Value: m.GetExact()}
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
