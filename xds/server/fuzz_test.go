package server

import (
	"fmt"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/xds"
)

// fuzzed is a session with something of each kind to give.
func fuzzed(t testing.TB) *session {
	endpoints := map[string]*xds.Resource{"a": load(t, "a", 0)}
	s := newSession(func(name string) *xds.Resource { return endpoints[name] })
	s.SetSnapshot(newSnapshot(1, &xds.Resources{Clusters: []*xds.Resource{edsCluster(t, "a", "")}, Listeners: []*xds.Resource{plainListener(t, "l", "1")},
		Routes: []*xds.Resource{routeTo(t, "r", "a")}}, nil, nil))
	return s
}

// answered acknowledges what is sent until nothing is, and demands that only what the proxy was given a right to is.
func answered(t *testing.T, s *session, handle func(typeURL, nonce string)) {
	t.Helper()
	for range 100 {
		out := s.Ready()
		if len(out) == 0 {
			return
		}
		for _, r := range out {
			for _, res := range r.delta().GetResources() {
				if name := res.GetName(); name != "a" && name != "l" && name != "r" {
					t.Fatalf("sent %q, which nobody made", name)
				}
			}
			handle(r.typeURL, r.nonce)
		}
	}
	t.Fatal("does not come to rest")
}

// A request may hold anything, of both variants, at any time.
func FuzzHandle(f *testing.F) {
	add := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, typeURL := range served {
		add(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{"a", "*", ""}, ResourceNamesUnsubscribe: []string{"a"},
			InitialResourceVersions: map[string]string{"a": "1", "gone": "2"}})
		add(&discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: []string{"a", "r"}, VersionInfo: "1", ResponseNonce: "1"})
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var delta discoveryv3.DeltaDiscoveryRequest
		if proto.Unmarshal(b, &delta) == nil {
			s := fuzzed(t)
			ack := func(typeURL, nonce string) {
				s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: nonce})
			}
			for range 2 {
				s.Handle(&delta)
				answered(t, s, ack)
			}
			s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeCluster, ResponseNonce: fmt.Sprint(len(b))})
			s.SetSnapshot(newSnapshot(2, &xds.Resources{Clusters: []*xds.Resource{edsCluster(t, "a", "2")}}, nil, s.want))
			answered(t, s, ack)
		}
		var full discoveryv3.DiscoveryRequest
		if proto.Unmarshal(b, &full) == nil {
			s := fuzzed(t)
			for range 2 {
				s.HandleState(&full)
				for range 20 {
					for _, r := range s.Ready() {
						s.HandleState(&discoveryv3.DiscoveryRequest{TypeUrl: r.typeURL, ResponseNonce: r.nonce, VersionInfo: "1", ResourceNames: full.GetResourceNames()})
					}
				}
			}
		}
	})
}
