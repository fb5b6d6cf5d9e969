package state_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

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
	s := state.New("east", "")
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

// workloads are a zone of workloads with two replicas each, which take requests of two services and send such to thirty.
func workloads(b *testing.B, n int) (*state.State, []state.Proxy) {
	b.Helper()
	s := state.New("east", "")
	s.Apply([]*kdsv1.Record{record(b, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT)),
		record(b, "TrafficPermission", "all", &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("*"))})}, nil, false)
	var all []state.Proxy
	for i := range n {
		for replica := range 2 {
			var outbounds []string
			for j := range 30 {
				outbounds = append(outbounds, fmt.Sprint("s", (i*7+j*13)%(2*n)))
			}
			p := sidecar(fmt.Sprint("s", 2*i), fmt.Sprintf("10.%d.%d.%d", i>>8, i&255, replica), outbounds...)
			for k, in := range []uint32{15006, 15007} {
				if k > 0 {
					p.Dataplane.Networking.Inbound = append(p.Dataplane.Networking.Inbound, &meshv1.Dataplane_Inbound{})
				}
				tags := service(fmt.Sprint("s", 2*i+k))
				tags[resource.TagProtocol] = "http"
				p.Dataplane.Networking.Inbound[k] = &meshv1.Dataplane_Inbound{Port: in, ServicePort: 8080 + in, Tags: tags}
			}
			for j, out := range p.Dataplane.Networking.Outbound {
				out.Port = uint32(20000 + (i*7+j*13)%(2*n))
			}
			all = append(all, p)
			s.Register(p, true)
		}
	}
	drain(b, s)
	return s, all
}

// BenchmarkPolicyForAll changes what each proxy has; the work is for a workload.
func BenchmarkPolicyForAll(b *testing.B) {
	const n = 100
	s, _ := workloads(b, n)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		s.Apply([]*kdsv1.Record{record(b, "Timeout", "all", &meshv1.Timeout{Sources: sel(service("*")), Destinations: sel(service("*")),
			Conf: &meshv1.Timeout_Conf{Http: &meshv1.Timeout_Http{RequestTimeout: durationpb.New(time.Duration(i+1) * time.Second)}}})}, nil, false)
		if built := drain(b, s); built != 2*n {
			b.Fatalf("built %d proxies", built)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "us/workload")
}

// BenchmarkReplicaJoins adds a replica to workloads that are there.
func BenchmarkReplicaJoins(b *testing.B) {
	const n = 100
	s, all := workloads(b, n)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		p := all[i%len(all)]
		p.ID += "-more"
		p.Dataplane = proto.CloneOf(p.Dataplane)
		p.Dataplane.Networking.Address = fmt.Sprintf("10.200.%d.%d", i>>8&255, i&255)
		s.Register(p, true)
		if built := drain(b, s); built != 1 {
			b.Fatalf("built %d proxies", built)
		}
	}
}

// BenchmarkLoad takes ten thousand policies as a zone does that starts from its disk.
func BenchmarkLoad(b *testing.B) {
	all := []*kdsv1.Record{record(b, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT))}
	for i := range many / 4 {
		name, from, to := fmt.Sprintf("cold-%05d", i), sel(service(fmt.Sprint("s", i/10))), sel(service(fmt.Sprint("s", i%1000)))
		all = append(all,
			record(b, "TrafficPermission", name, &meshv1.TrafficPermission{Sources: from, Destinations: to}),
			record(b, "Timeout", name, &meshv1.Timeout{Sources: from, Destinations: to, Conf: &meshv1.Timeout_Conf{Http: &meshv1.Timeout_Http{RequestTimeout: durationpb.New(7 * time.Second)}}}),
			record(b, "Retry", name, &meshv1.Retry{Sources: from, Destinations: to, Conf: &meshv1.Retry_Conf{Http: &meshv1.Retry_Http{NumRetries: proto.Uint32(3)}}}),
			record(b, "CircuitBreaker", name, &meshv1.CircuitBreaker{Sources: from, Destinations: to, Conf: &meshv1.CircuitBreaker_Conf{
				Thresholds: &meshv1.CircuitBreaker_Thresholds{MaxConnections: proto.Uint32(100)}}}))
	}
	b.ReportAllocs()
	for b.Loop() {
		s := state.New("east", "")
		if bad := s.Apply(all, nil, true); len(bad) > 0 {
			b.Fatal(bad)
		}
	}
}
