package main

import (
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestEndpointsAreRead(t *testing.T) {
	endpoint := func(host string, weight uint32) *endpointv3.LbEndpoint {
		out := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{
			Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80}}},
		}}}}
		if weight > 0 {
			out.LoadBalancingWeight = wrapperspb.UInt32(weight)
		}
		return out
	}
	e := &endpointv3.ClusterLoadAssignment{Endpoints: []*endpointv3.LocalityLbEndpoints{
		{LbEndpoints: []*endpointv3.LbEndpoint{endpoint("127.0.0.2", 0)}}, {LbEndpoints: []*endpointv3.LbEndpoint{endpoint("127.0.0.1", 3)}},
	}}
	if got := addresses(e); !slices.Equal(got, []string{"127.0.0.1:80", "127.0.0.2:80"}) {
		t.Errorf("addresses %q", got)
	}
	if got := weight(e); got != 4 {
		t.Errorf("weight %d, want 4", got)
	}
	if addresses(nil) != nil || weight(nil) != 0 {
		t.Error("what is gone has endpoints")
	}
}

func TestNodeSaysWhatAZoneReads(t *testing.T) {
	n, err := node(sidecar("one", "bench", "127.0.0.9"))
	if err != nil {
		t.Fatal(err)
	}
	if n.GetId() != "Dataplane/default/one" {
		t.Errorf("id %q", n.GetId())
	}
	for _, key := range []string{"zoneforge.kind", "zoneforge.mesh", "zoneforge.name", "zoneforge.document"} {
		if n.GetMetadata().GetFields()[key].GetStringValue() == "" {
			t.Errorf("metadata %s is missing", key)
		}
	}
}
