package simproxy

import (
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

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
	tcp := &listenerv3.Filter{Name: "tcp", ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{}}}
	found := References{}
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
		}, tcp}}}},
	} {
		if err := found.Find(m.ProtoReflect()); err != nil {
			t.Fatal(err)
		}
	}
	for typeURL, want := range map[string][]string{
		xds.TypeEndpoint: {"shared", "unnamed"}, xds.TypeSecret: {"leaf", "roots"}, xds.TypeRoute: {"routes"}, xds.TypeExtension: {"discovered", "tcp"},
	} {
		slices.Sort(found[typeURL])
		if !slices.Equal(found[typeURL], want) {
			t.Errorf("%s: found %q, want %q", typeURL, found[typeURL], want)
		}
	}
	if err := found.Find((&anypb.Any{TypeUrl: "type.googleapis.com/nobody.knows"}).ProtoReflect()); err == nil {
		t.Error("a type that can't be looked into was passed over")
	}
}
