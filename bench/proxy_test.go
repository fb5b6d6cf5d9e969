package main

import (
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/xds"
)

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A simulated proxy that misses a name never has all that it was given, and would not be taken for an endpoint.
func TestReferencesAreFound(t *testing.T) {
	sds := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "leaf", SdsConfig: &corev3.ConfigSource{}}},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: "roots", SdsConfig: &corev3.ConfigSource{}},
		}},
	}}
	hcm := &hcmv3.HttpConnectionManager{
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "routes"}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "discovered", ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{}}},
			{Name: "inline"},
		},
	}
	found := references{}
	for _, m := range []proto.Message{
		&clusterv3.Cluster{
			Name: "named", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
			EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{ServiceName: "shared"},
			TransportSocketMatches: []*clusterv3.Cluster_TransportSocketMatch{{TransportSocket: &corev3.TransportSocket{
				ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(t, sds)},
			}}},
		},
		&clusterv3.Cluster{Name: "unnamed", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}},
		&clusterv3.Cluster{Name: "static", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}},
		&listenerv3.Listener{FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, hcm)},
		}}}}},
	} {
		if err := found.find(m.ProtoReflect()); err != nil {
			t.Fatal(err)
		}
	}
	for typeURL, want := range map[string][]string{
		xds.TypeEndpoint: {"shared", "unnamed"}, xds.TypeSecret: {"leaf", "roots"}, xds.TypeRoute: {"routes"}, xds.TypeExtension: {"discovered"},
	} {
		slices.Sort(found[typeURL])
		if !slices.Equal(found[typeURL], want) {
			t.Errorf("%s: found %q, want %q", typeURL, found[typeURL], want)
		}
	}
	if err := found.find((&anypb.Any{TypeUrl: "type.googleapis.com/nobody.knows"}).ProtoReflect()); err == nil {
		t.Error("a type that can't be looked into was passed over")
	}
}

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
