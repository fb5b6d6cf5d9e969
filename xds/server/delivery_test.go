package server

import (
	"fmt"
	"maps"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// BenchmarkDelivery gives a proxy of thirty services what changed of their endpoints, and takes its acknowledgement: all that a delivery
// takes of this package, without any transport.
func BenchmarkDelivery(b *testing.B) {
	for _, changes := range []int{1, 18} {
		b.Run(fmt.Sprint("changes=", changes), func(b *testing.B) {
			f := newFleet(b, 0, 30)
			s := newSession(f.s.lookup)
			codec := newCodec()
			acknowledge := func() {
				for out := s.Ready(); len(out) > 0; out = s.Ready() {
					for _, resp := range out {
						data, err := codec.Marshal(f.s.message(resp))
						if err != nil {
							b.Fatal(err)
						}
						data.Free()
						read(b, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.typeURL, ResponseNonce: resp.nonce}).handle(s)
					}
				}
			}
			s.SetSnapshot(newSnapshot(1, f.resources, nil, nil))
			for _, t := range []string{xds.TypeCluster, xds.TypeEndpoint, xds.TypeListener, xds.TypeRoute} {
				req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t}
				switch t {
				case xds.TypeEndpoint:
					req.ResourceNamesSubscribe = f.clusters
				case xds.TypeRoute:
					for _, r := range f.resources.Routes {
						req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, r.Name)
					}
				}
				s.Handle(req)
				acknowledge()
			}
			if !s.calm {
				b.Fatal("the proxy lacks something")
			}
			names := f.clusters[5 : 5+changes]
			var states [2]map[string]endpoints
			for i := range states {
				states[i] = maps.Clone(f.s.endpoints)
				for _, name := range names {
					states[i][name] = newEndpoints(1, load(b, name, uint32(8+i)))
				}
			}
			revision := uint64(1)
			b.ReportAllocs()
			for b.Loop() {
				revision++
				f.s.endpoints = states[revision%2]
				s.EndpointsChanged(revision, names)
				acknowledge()
			}
			if got := s.Progress().EndpointsAcked; got != revision {
				b.Fatalf("acknowledged %d of %d", got, revision)
			}
		})
	}
}
