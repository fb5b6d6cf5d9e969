package policy

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func TestLimitsOf(t *testing.T) {
	breaker := &meshv1.CircuitBreaker{Conf: &meshv1.CircuitBreaker_Conf{Thresholds: &meshv1.CircuitBreaker_Thresholds{
		MaxConnections: proto.Uint32(1), MaxPendingRequests: proto.Uint32(0), MaxRequests: proto.Uint32(3), MaxRetries: proto.Uint32(4)}}}
	budget := func(b *meshv1.Retry_Budget) *meshv1.Retry { return &meshv1.Retry{Conf: &meshv1.Retry_Conf{Budget: b}} }
	for _, c := range []struct {
		name    string
		breaker *meshv1.CircuitBreaker
		retry   *meshv1.Retry
		want    ir.Limits
	}{
		{"none", nil, nil, ir.Limits{}},
		{"detectors alone limit nothing", &meshv1.CircuitBreaker{Conf: &meshv1.CircuitBreaker_Conf{Detectors: &meshv1.CircuitBreaker_Detectors{}}}, budget(nil), ir.Limits{}},
		{"thresholds, of which 0 is one", breaker, nil,
			ir.Limits{Connections: proto.Uint32(1), PendingRequests: proto.Uint32(0), Requests: proto.Uint32(3), Retries: proto.Uint32(4)}},
		{"a budget takes the place of the limit of retries", breaker, budget(&meshv1.Retry_Budget{}),
			ir.Limits{Connections: proto.Uint32(1), PendingRequests: proto.Uint32(0), Requests: proto.Uint32(3), RetryBudget: &ir.RetryBudget{Percent: 20, MinConcurrency: 3}}},
		{"a budget alone", nil, budget(&meshv1.Retry_Budget{Percent: proto.Float64(0), MinConcurrency: proto.Uint32(0)}), ir.Limits{RetryBudget: &ir.RetryBudget{}}},
	} {
		if got := LimitsOf(c.breaker, c.retry); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestOutlierOf(t *testing.T) {
	of := func(c *meshv1.CircuitBreaker_Conf) *ir.Outlier { return OutlierOf(&meshv1.CircuitBreaker{Conf: c}) }
	if got := of(&meshv1.CircuitBreaker_Conf{Thresholds: &meshv1.CircuitBreaker_Thresholds{}}); got != nil || OutlierOf(nil) != nil {
		t.Errorf("without detectors: %+v", got)
	}
	got := of(&meshv1.CircuitBreaker_Conf{Detectors: &meshv1.CircuitBreaker_Detectors{
		TotalErrors: &meshv1.CircuitBreaker_Consecutive{}, StandardDeviation: &meshv1.CircuitBreaker_StandardDeviation{}, Failure: &meshv1.CircuitBreaker_Failure{}}})
	want := &ir.Outlier{Interval: 10 * time.Second, BaseEjection: 30 * time.Second, MaxEjectionShare: 10, EjectOne: true, TotalErrors: proto.Uint32(5),
		Deviation: &ir.OutlierDeviation{RequestVolume: 100, MinimumHosts: 5, Thousandths: 1900}, Failure: &ir.OutlierFailure{RequestVolume: 50, MinimumHosts: 5, Percent: 85}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("defaults are %+v, want %+v", got, want)
	}
	got = of(&meshv1.CircuitBreaker_Conf{Interval: durationpb.New(time.Second), BaseEjectionTime: durationpb.New(2 * time.Second), MaxEjectionPercent: proto.Uint32(0),
		SplitExternalAndLocalErrors: true, Detectors: &meshv1.CircuitBreaker_Detectors{
			GatewayErrors:     &meshv1.CircuitBreaker_Consecutive{Consecutive: proto.Uint32(2)},
			LocalErrors:       &meshv1.CircuitBreaker_Consecutive{Consecutive: proto.Uint32(3)},
			StandardDeviation: &meshv1.CircuitBreaker_StandardDeviation{RequestVolume: proto.Uint32(4), MinimumHosts: proto.Uint32(5), Factor: proto.Float64(0.0004)},
			Failure:           &meshv1.CircuitBreaker_Failure{RequestVolume: proto.Uint32(6), MinimumHosts: proto.Uint32(7), Threshold: proto.Uint32(8)}}})
	want = &ir.Outlier{Interval: time.Second, BaseEjection: 2 * time.Second, SplitLocal: true, GatewayErrors: proto.Uint32(2), LocalErrors: proto.Uint32(3),
		Deviation: &ir.OutlierDeviation{RequestVolume: 4, MinimumHosts: 5}, Failure: &ir.OutlierFailure{RequestVolume: 6, MinimumHosts: 7, Percent: 8}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it says %+v, want %+v", got, want)
	}
}
