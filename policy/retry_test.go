package policy

import (
	"math"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func TestHTTPRetry(t *testing.T) {
	base, longest := 25*time.Millisecond, 250*time.Millisecond
	defaults := []string{"connect-failure", "gateway-error", "refused-stream"}
	for _, c := range []struct {
		name string
		conf *meshv1.Retry_Http
		want *ir.Retry
	}{
		{"no section", nil, nil},
		{"defaults", &meshv1.Retry_Http{}, &ir.Retry{On: defaults, Attempts: 1, BaseInterval: base, MaxInterval: longest}},
		{"all", &meshv1.Retry_Http{
			NumRetries: proto.Uint32(3), PerTryTimeout: durationpb.New(time.Second),
			BackOff:              &meshv1.Retry_BackOff{BaseInterval: durationpb.New(time.Second), MaxInterval: durationpb.New(time.Minute)},
			RetriableStatusCodes: []uint32{503, 500, 503}, RetriableMethods: []string{"PUT", "get"},
			RetryOn: []string{"reset", "gateway_error", "gateway-error", "RETRIABLE_4XX"},
		}, &ir.Retry{
			On: []string{"gateway-error", "reset", "retriable-4xx", "retriable-status-codes"}, Attempts: 3, PerTryTimeout: time.Second,
			BaseInterval: time.Second, MaxInterval: time.Minute, StatusCodes: []uint32{500, 503}, Methods: []string{"GET", "PUT"},
		}},
		{"status codes beside the defaults", &meshv1.Retry_Http{RetriableStatusCodes: []uint32{500}}, &ir.Retry{
			On: append(defaults[:3:3], "retriable-status-codes"), Attempts: 1, BaseInterval: base, MaxInterval: longest, StatusCodes: []uint32{500},
		}},
		{"ten times the base", &meshv1.Retry_Http{BackOff: &meshv1.Retry_BackOff{BaseInterval: durationpb.New(time.Second)}},
			&ir.Retry{On: defaults, Attempts: 1, BaseInterval: time.Second, MaxInterval: 10 * time.Second}},
		{"never below the base", &meshv1.Retry_Http{BackOff: &meshv1.Retry_BackOff{MaxInterval: durationpb.New(1)}},
			&ir.Retry{On: defaults, Attempts: 1, BaseInterval: base, MaxInterval: base}},
		{"no overflow", &meshv1.Retry_Http{BackOff: &meshv1.Retry_BackOff{BaseInterval: durationpb.New(math.MaxInt64)}},
			&ir.Retry{On: defaults, Attempts: 1, BaseInterval: math.MaxInt64, MaxInterval: math.MaxInt64}},
		{"headers of the answer", &meshv1.Retry_Http{
			RetryOn: []string{"retriable_headers", "retriable-status-codes"}, AvoidPreviousHosts: true,
			RetriableHeaders: map[string]*meshv1.StringMatcher{
				"b": {Matcher: &meshv1.StringMatcher_Prefix{Prefix: "p"}}, "a": {Matcher: &meshv1.StringMatcher_Exact{Exact: "x"}}, "c": {Matcher: &meshv1.StringMatcher_Regex{Regex: "r"}}},
			RateLimitedBackOff: &meshv1.Retry_RateLimitedBackOff{MaxInterval: durationpb.New(time.Minute), ResetHeaders: []*meshv1.Retry_ResetHeader{
				{Name: "Retry-After"}, {Name: "X-Reset", Format: meshv1.Retry_FORMAT_UNIX_TIMESTAMP}}},
		}, &ir.Retry{On: []string{"retriable-headers", "retriable-status-codes"}, Attempts: 1, BaseInterval: base, MaxInterval: longest, OtherHosts: true,
			Headers: []ir.ValueMatch{{Name: "a", TextMatch: ir.TextMatch{Kind: ir.TextExact, Value: "x"}}, {Name: "b", TextMatch: ir.TextMatch{Kind: ir.TextPrefix, Value: "p"}},
				{Name: "c", TextMatch: ir.TextMatch{Kind: ir.TextRegex, Value: "r"}}},
			Reset: []ir.ResetHeader{{Name: "Retry-After"}, {Name: "X-Reset", Timestamp: true}}, ResetLimit: time.Minute}},
		{"no retries", &meshv1.Retry_Http{NumRetries: proto.Uint32(0)}, nil},
		{"no known condition", &meshv1.Retry_Http{RetryOn: []string{"full_moon"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := HTTPRetry(&meshv1.Retry{Conf: &meshv1.Retry_Conf{Http: c.conf}})
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	want := []string{"connect-failure", "gateway-error", "refused-stream"}
	if !reflect.DeepEqual(httpDefaultConditions, want) {
		t.Errorf("the defaults were changed to %v", httpDefaultConditions)
	}
}

func TestGRPCRetry(t *testing.T) {
	all := &ir.Retry{
		On:       []string{"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"},
		Attempts: 1, BaseInterval: 25 * time.Millisecond, MaxInterval: 250 * time.Millisecond,
	}
	two := *all
	two.On, two.Attempts, two.PerTryTimeout = []string{"deadline-exceeded", "unavailable"}, 2, time.Second
	for _, c := range []struct {
		name string
		conf *meshv1.Retry_Grpc
		want *ir.Retry
	}{
		{"no section", nil, nil},
		{"defaults", &meshv1.Retry_Grpc{}, all},
		{"some", &meshv1.Retry_Grpc{
			NumRetries: proto.Uint32(2), PerTryTimeout: durationpb.New(time.Second), RetryOn: []string{"unavailable", "deadline_exceeded", "5xx"},
		}, &two},
		{"no retries", &meshv1.Retry_Grpc{NumRetries: proto.Uint32(0)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := GRPCRetry(&meshv1.Retry{Conf: &meshv1.Retry_Conf{Grpc: c.conf}})
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestMostSpecificRetry(t *testing.T) {
	all := []tags{service("*")}
	retry := func(name string, to tags, n uint32) *resource.Resource {
		return &resource.Resource{
			Key: resource.Key{Kind: "Retry", Mesh: "default", Name: name},
			Spec: &meshv1.Retry{Sources: selectors(all...), Destinations: selectors(to),
				Conf: &meshv1.Retry_Conf{Tcp: &meshv1.Retry_Tcp{MaxConnectAttempts: n}}},
		}
	}
	in := []*resource.Resource{retry("a", service("*"), 3), retry("b", service("api"), 7), retry("c", service("db"), 0)}
	for to, want := range map[string]uint32{"api": 7, "web": 3, "db": 1} {
		got := MostSpecificForConnection(in, "default", service("web"), service(to)).Spec.(*meshv1.Retry)
		if n := ConnectAttempts(got); n != want {
			t.Errorf("%s: got %d attempts, want %d", to, n, want)
		}
		if HTTPRetry(got) != nil || GRPCRetry(got) != nil {
			t.Errorf("%s: requests are repeated without a section of theirs", to)
		}
	}
	if none := MostSpecificForConnection(in, "other", service("web"), service("api")); none != nil {
		t.Error("a policy of another mesh holds")
	}
	if HTTPRetry(nil) != nil || GRPCRetry(nil) != nil || ConnectAttempts(nil) != 1 {
		t.Error("requests are repeated without a policy")
	}
}
