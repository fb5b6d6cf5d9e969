package resource

import (
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Conditions of retries. Envoy names them with a hyphen.
var (
	httpRetryOn = []string{"5xx", "connect_failure", "envoy_ratelimited", "gateway_error", "http3_post_connect_failure",
		"refused_stream", "reset", "reset_before_request", "retriable_4xx", "retriable_headers", "retriable_status_codes"}
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
	for _, k := range slices.Sorted(maps.Keys(c.GetHttp().GetRetriableHeaders())) {
		checkHeaderName(http.at("retriableHeaders").key(k), k)
		checkStringMatcher(http.at("retriableHeaders").key(k), c.GetHttp().GetRetriableHeaders()[k])
	}
	checkConditionHas(http, c.GetHttp().GetRetryOn(), "retriable_headers", "retriableHeaders", len(c.GetHttp().GetRetriableHeaders()))
	checkConditionHas(http, c.GetHttp().GetRetryOn(), "retriable_status_codes", "retriableStatusCodes", len(c.GetHttp().GetRetriableStatusCodes()))
	checkRateLimited(http.at("rateLimitedBackOff"), c.GetHttp().GetRateLimitedBackOff())
	checkPercent(conf.at("budget", "percent"), c.GetBudget().GetPercent())
	grpc := conf.at("grpc")
	checkRateLimited(grpc.at("rateLimitedBackOff"), c.GetGrpc().GetRateLimitedBackOff())
	checkDuration(grpc.at("perTryTimeout"), c.GetGrpc().GetPerTryTimeout(), 0, 0)
	checkBackOff(grpc.at("backOff"), c.GetGrpc().GetBackOff())
	checkRetryOn(grpc.at("retryOn"), c.GetGrpc().GetRetryOn(), grpcRetryOn)
}

// normalizeRetry stores conditions in one of their spellings.
func normalizeRetry(spec proto.Message) {
	c := spec.(*meshv1.Retry).GetConf()
	for _, names := range [][]string{c.GetHttp().GetRetryOn(), c.GetGrpc().GetRetryOn()} {
		for i, n := range names {
			if names[i] = strings.ReplaceAll(n, "-", "_"); names[i] == "all_5xx" {
				names[i] = "5xx"
			}
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

// checkConditionHas wants what a condition looks for.
func checkConditionHas(s scope, on []string, condition, field string, n int) {
	if i := slices.Index(on, condition); i >= 0 && n == 0 {
		s.at("retryOn").index(i).errorf("add "+field, "%s says not which", condition)
	}
}

func checkRateLimited(s scope, b *meshv1.Retry_RateLimitedBackOff) {
	if b == nil {
		return
	}
	if len(b.GetResetHeaders()) == 0 {
		s.errorf("add resetHeaders: [{name: Retry-After}]", "needs resetHeaders")
	}
	for i, h := range b.GetResetHeaders() {
		checkHeaderName(s.at("resetHeaders").index(i).at("name"), h.GetName())
	}
	checkDuration(s.at("maxInterval"), b.GetMaxInterval(), time.Nanosecond, 0)
}
