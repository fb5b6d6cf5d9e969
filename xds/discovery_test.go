package xds

import (
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/zoneforge/zoneforge/ir"
)

// TestEnvoyAcceptsDiscovery gives listeners and clusters to the real Envoy just as they are, so that it looks at how they
// refer to what comes by xDS.
func TestEnvoyAcceptsDiscovery(t *testing.T) {
	envoy := envoyPath(t)
	for _, c := range goldenCases(t) {
		t.Run(c.name(), func(t *testing.T) {
			chain, _ := selfSigned(t)
			roots, err := BuildSecret(&ir.Secret{Name: ir.SystemRoots, Bundle: chain})
			if err != nil {
				t.Fatal(err)
			}
			static := &bootstrapv3.Bootstrap_StaticResources{
				Clusters: []*clusterv3.Cluster{controlPlane(t)}, Secrets: []*tlsv3.Secret{message(t, roots).(*tlsv3.Secret)},
			}
			for _, r := range c.resources(t) {
				switch m := message(t, r).(type) {
				case *listenerv3.Listener:
					static.Listeners = append(static.Listeners, m)
				case *clusterv3.Cluster:
					static.Clusters = append(static.Clusters, m)
				}
			}
			validate(t, envoy, &bootstrapv3.Bootstrap{
				Node: &corev3.Node{Id: "golden", Cluster: "golden"},
				DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: &corev3.ApiConfigSource{
					ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
					TransportApiVersion: corev3.ApiVersion_V3,
					GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
						EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "control-plane"},
					}}},
				}},
				StaticResources: static,
			})
		})
	}
}

// controlPlane is never called, as Envoy only validates.
func controlPlane(t *testing.T) *clusterv3.Cluster {
	t.Helper()
	r, err := cluster(&ir.Cluster{Name: "control-plane", Protocol: ir.HTTP2, Static: &ir.Endpoint{Address: "127.0.0.1", Port: 5678}})
	if err != nil {
		t.Fatal(err)
	}
	return message(t, r).(*clusterv3.Cluster)
}
