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

func TestHealthCheckOf(t *testing.T) {
	if HealthCheckOf(nil, ir.HTTP1, false) != nil {
		t.Error("checks without a policy")
	}
	plain := HealthCheckOf(&meshv1.HealthCheck{Conf: &meshv1.HealthCheck_Conf{}}, ir.HTTP1, false)
	if want := (&ir.HealthCheck{Interval: time.Minute, Timeout: 15 * time.Second, UnhealthyThreshold: 3, HealthyThreshold: 1}); !reflect.DeepEqual(plain, want) {
		t.Errorf("defaults are %+v, want %+v", plain, want)
	}
	all := &meshv1.HealthCheck{Conf: &meshv1.HealthCheck_Conf{
		Interval: durationpb.New(time.Second), Timeout: durationpb.New(2 * time.Second), UnhealthyThreshold: proto.Uint32(4), HealthyThreshold: proto.Uint32(5),
		InitialJitter: durationpb.New(3 * time.Second), IntervalJitter: durationpb.New(4 * time.Second), IntervalJitterPercent: 5,
		HealthyPanicThreshold: proto.Float64(0), FailTrafficOnPanic: true, EventLogPath: "/log", AlwaysLogHealthCheckFailures: true,
		NoTrafficInterval: durationpb.New(5 * time.Second), ReuseConnection: proto.Bool(false),
		Tcp: &meshv1.HealthCheck_Tcp{Send: []byte("a"), Receive: [][]byte{[]byte("b")}},
		Http: &meshv1.HealthCheck_Http{ExpectedStatuses: []uint32{204, 200, 204}, RequestHeadersToAdd: []*meshv1.HealthCheck_HeaderToAdd{
			{Header: &meshv1.HealthCheck_HeaderValue{Key: "a", Value: "b"}},
			{Header: &meshv1.HealthCheck_HeaderValue{Key: "c", Value: "d"}, Append: proto.Bool(false)}}},
		Grpc: &meshv1.HealthCheck_Grpc{ServiceName: "s", Authority: "a"},
	}}
	want := ir.HealthCheck{Interval: time.Second, Timeout: 2 * time.Second, UnhealthyThreshold: 4, HealthyThreshold: 5, InitialJitter: 3 * time.Second,
		IntervalJitter: 4 * time.Second, IntervalJitterShare: 5, NoTrafficInterval: 5 * time.Second, OneConnectionEach: true, PanicShare: proto.Float64(0),
		FailOnPanic: true, EventLog: "/log", LogAllFailures: true}
	http := &ir.HTTPCheck{Path: "/", Statuses: []uint32{200, 204},
		Headers: ir.HeaderChange{Add: []ir.Header{{Name: "a", Value: "b"}}, Set: []ir.Header{{Name: "c", Value: "d"}}}}
	for _, c := range []struct {
		name     string
		protocol ir.Protocol
		grpc     bool
		set      func(*ir.HealthCheck)
	}{
		{"http", ir.HTTP1, false, func(h *ir.HealthCheck) { h.HTTP = http }},
		{"http2 that is no gRPC", ir.HTTP2, false, func(h *ir.HealthCheck) { h.HTTP = http }},
		{"grpc", ir.HTTP2, true, func(h *ir.HealthCheck) { h.GRPC = &ir.GRPCCheck{Service: "s", Authority: "a"} }},
		{"tcp", ir.TCP, false, func(h *ir.HealthCheck) { h.TCP = &ir.TCPCheck{Send: []byte("a"), Receive: [][]byte{[]byte("b")}} }},
	} {
		expected := want
		c.set(&expected)
		if got := HealthCheckOf(all, c.protocol, c.grpc); !reflect.DeepEqual(got, &expected) {
			t.Errorf("%s: %+v, want %+v", c.name, got, &expected)
		}
	}
	all.Conf.Tcp = nil
	if got := HealthCheckOf(all, ir.TCP, false); !reflect.DeepEqual(got, &want) {
		t.Errorf("tcp without its section: %+v, want a check by connection alone", got)
	}
}
