package state_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/zone/state"
)

const many = 10_000

// crowd is a zone of many sidecars of a hundred services, each with an outbound to one of them.
func crowd(b *testing.B) *state.State {
	b.Helper()
	s := state.New("east")
	s.Apply([]*kdsv1.Record{record(b, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT))}, nil, false)
	for i := range many {
		p := sidecar(fmt.Sprintf("s%d", i%100), fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), fmt.Sprintf("s%d", (i+1)%100))
		s.Register(p, true)
	}
	drain(b, s)
	return s
}

func drain(b *testing.B, s *state.State) (proxies int) {
	b.Helper()
	d := s.Take()
	for _, id := range d.Proxies {
		if _, err := s.BuildProxy(id); err != nil {
			b.Fatal(err)
		}
	}
	for _, name := range append(d.Endpoints, s.TakeEndpoints()...) {
		if _, err := s.BuildEndpoints(name); err != nil {
			b.Fatal(err)
		}
	}
	return len(d.Proxies)
}

func record(b *testing.B, kind, name string, spec proto.Message) *kdsv1.Record {
	b.Helper()
	k := key(kind, name)
	payload, err := resource.Marshal(&resource.Resource{Key: k, Spec: spec})
	if err != nil {
		b.Fatal(err)
	}
	return kds.NewRecord(k, payload)
}

// BenchmarkOneServicesRoute changes what a hundredth of the proxies have.
func BenchmarkOneServicesRoute(b *testing.B) {
	s := crowd(b)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		route := &meshv1.TrafficRoute{Sources: sel(service("s1")), Destinations: sel(service("s2")), Conf: &meshv1.TrafficRoute_Conf{
			Split: []*meshv1.TrafficRoute_Split{{Weight: uint32(i%100 + 1), Destination: service("s2")}}}}
		s.Apply([]*kdsv1.Record{record(b, "TrafficRoute", "r", route)}, nil, false)
		if n := drain(b, s); n != many/100 {
			b.Fatalf("built %d proxies", n)
		}
	}
}

// BenchmarkEndpointComesAndGoes changes no proxy, only shared endpoints.
func BenchmarkEndpointComesAndGoes(b *testing.B) {
	s := crowd(b)
	one := sidecar("s1", "192.168.0.1")
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		s.Register(one, true)
		if n := drain(b, s); n != 1 {
			b.Fatalf("built %d proxies", n)
		}
		s.Unregister(one.ID)
		if n := drain(b, s); n != 0 {
			b.Fatalf("built %d proxies", n)
		}
	}
}
