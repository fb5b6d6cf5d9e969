package server

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zoneforge/zoneforge/xds"
)

// A server that stops tells each proxy so, also one that comes while it does.
func TestStopTellsProxies(t *testing.T) {
	gate := newGate()
	s, err := New(Config{Authenticator: gate})
	if err != nil {
		t.Fatal(err)
	}
	client := dial(t, s)
	s.SetProxy("p", 1, &xds.Resources{}, nil)
	stream := open(t, client, "good")
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p"}, TypeUrl: xds.TypeCluster}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	silent := open(t, client, "good")
	s.Stop()
	late := open(t, client, "good")
	_ = late.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "q"}, TypeUrl: xds.TypeCluster}) // its end comes by Recv
	for name, one := range map[string]discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient{"served": stream, "silent": silent, "late": late} {
		for err = nil; err == nil; {
			_, err = one.Recv()
		}
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "is stopping: connect again") {
			t.Errorf("%s: %v", name, err)
		}
	}
	<-gate.left
}
