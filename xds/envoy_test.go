package xds

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/ir"
)

// envoyPath finds the real Envoy. A machine without it must not pass silently.
func envoyPath(t *testing.T) string {
	t.Helper()
	own, err := filepath.Abs(filepath.Join("..", ".tools", "bin", "envoy"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(own); err == nil {
		return own
	}
	if found, err := exec.LookPath("envoy"); err == nil {
		return found
	}
	if named := os.Getenv("ZONEFORGE_ENVOY"); named != "" {
		return named
	}
	t.Fatal("no Envoy in .tools/bin/envoy, PATH or $ZONEFORGE_ENVOY: run `make tools`")
	return ""
}

// TestEnvoyAccepts gives each golden case to the real Envoy. What comes by xDS is put in place first, so that Envoy looks
// at it.
func TestEnvoyAccepts(t *testing.T) {
	envoy := envoyPath(t)
	for _, c := range goldenCases(t) {
		t.Run(c.name(), func(t *testing.T) {
			validate(t, envoy, bootstrap(t, c))
		})
	}
}

// TestEnvoyRefuses shows that the check above checks: a cluster without a source of its endpoints is refused.
func TestEnvoyRefuses(t *testing.T) {
	envoy := envoyPath(t)
	boot := &bootstrapv3.Bootstrap{StaticResources: &bootstrapv3.Bootstrap_StaticResources{
		Clusters: []*clusterv3.Cluster{{Name: "a", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}}},
	}}
	out, err := runEnvoy(t, envoy, boot)
	if refused := new(exec.ExitError); !errors.As(err, &refused) {
		t.Errorf("Envoy takes an EDS cluster without a source: %v\n%s", err, out)
	}
}

func validate(t *testing.T, envoy string, boot *bootstrapv3.Bootstrap) {
	t.Helper()
	if out, err := runEnvoy(t, envoy, boot); err != nil {
		t.Errorf("Envoy refuses it: %v\n%s", err, out)
	}
}

func runEnvoy(t *testing.T, envoy string, boot *bootstrapv3.Bootstrap) ([]byte, error) {
	t.Helper()
	config, err := protojson.Marshal(boot)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), envoy, "--mode", "validate", "--disable-hot-restart", "--concurrency", "1",
		"--log-level", "warning", "-c", path).CombinedOutput()
}

// bootstrap holds all resources of a case and everything they refer to.
func bootstrap(t *testing.T, c goldenCase) *bootstrapv3.Bootstrap {
	t.Helper()
	in := inliner{t: t, routes: map[string]*routev3.RouteConfiguration{}, endpoints: map[string]*endpointv3.ClusterLoadAssignment{},
		extensions: map[string]*anypb.Any{}, certificates: map[string]bool{}, bundles: map[string]bool{}}
	static := &bootstrapv3.Bootstrap_StaticResources{}
	for _, r := range c.resources(t) {
		switch m := message(t, r).(type) {
		case *listenerv3.Listener:
			static.Listeners = append(static.Listeners, m)
		case *routev3.RouteConfiguration:
			in.routes[r.Name] = m
		case *clusterv3.Cluster:
			static.Clusters = append(static.Clusters, m)
		case *corev3.TypedExtensionConfig:
			in.extensions[r.Name] = m.TypedConfig
		case *endpointv3.ClusterLoadAssignment:
			in.endpoints[r.Name] = m
		}
	}
	for _, l := range static.Listeners {
		in.listener(l)
	}
	for _, cluster := range static.Clusters {
		in.cluster(cluster)
	}
	static.Secrets = in.secrets()
	return &bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: "golden", Cluster: "golden"},
		StaticResources: static,
	}
}

// inliner puts what would come by xDS in the places that refer to it, and fails for what isn't there.
type inliner struct {
	t                     *testing.T
	routes                map[string]*routev3.RouteConfiguration
	endpoints             map[string]*endpointv3.ClusterLoadAssignment
	extensions            map[string]*anypb.Any
	certificates, bundles map[string]bool
}

func (in inliner) unpack(packed *anypb.Any, m proto.Message) {
	in.t.Helper()
	if err := packed.UnmarshalTo(m); err != nil {
		in.t.Fatal(err)
	}
}

func (in inliner) pack(m proto.Message) *anypb.Any {
	in.t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		in.t.Fatal(err)
	}
	return packed
}

func (in inliner) listener(l *listenerv3.Listener) {
	for _, chain := range l.FilterChains {
		if socket := chain.TransportSocket; socket != nil {
			if socket.Name == quicSocketName {
				var m quicv3.QuicDownstreamTransport
				in.unpack(socket.GetTypedConfig(), &m)
				in.tls(m.DownstreamTlsContext.CommonTlsContext)
				socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: in.pack(&m)}
			} else {
				var m tlsv3.DownstreamTlsContext
				in.unpack(socket.GetTypedConfig(), &m)
				in.tls(m.CommonTlsContext)
				socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: in.pack(&m)}
			}
		}
		for _, filter := range chain.Filters {
			switch {
			case filter.GetConfigDiscovery() != nil:
				config := in.extensions[filter.Name]
				if config == nil {
					in.t.Fatalf("listener %s refers to no extension %q", l.Name, filter.Name)
				}
				// By ECDS any name will do; in place Envoy finds the filter by the type of its configuration.
				filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: config}
			case filter.Name == hcmName:
				var m hcmv3.HttpConnectionManager
				in.unpack(filter.GetTypedConfig(), &m)
				routes := in.routes[m.GetRds().GetRouteConfigName()]
				if routes == nil {
					in.t.Fatalf("listener %s refers to no routes %q", l.Name, m.GetRds().GetRouteConfigName())
				}
				for _, f := range m.HttpFilters {
					if f.GetConfigDiscovery() == nil {
						continue
					}
					config := in.extensions[f.Name]
					if config == nil {
						in.t.Fatalf("listener %s refers to no extension %q", l.Name, f.Name)
					}
					f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}
				}
				m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes}
				filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: in.pack(&m)}
			}
		}
	}
}

func (in inliner) cluster(c *clusterv3.Cluster) {
	if socket := c.TransportSocket; socket != nil {
		var m tlsv3.UpstreamTlsContext
		in.unpack(socket.GetTypedConfig(), &m)
		in.tls(m.CommonTlsContext)
		socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: in.pack(&m)}
	}
	if eds := c.EdsClusterConfig; eds != nil {
		endpoints := in.endpoints[eds.ServiceName]
		if endpoints == nil {
			in.t.Fatalf("cluster %s refers to no endpoints %q", c.Name, eds.ServiceName)
		}
		c.EdsClusterConfig = nil
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		c.LoadAssignment = endpoints
	}
}

// tls makes secrets static, which Envoy takes those to be that have no source.
func (in inliner) tls(c *tlsv3.CommonTlsContext) {
	for _, s := range c.TlsCertificateSdsSecretConfigs {
		in.certificates[s.Name] = true
		s.SdsConfig = nil
	}
	for _, s := range []*tlsv3.SdsSecretConfig{
		c.GetValidationContextSdsSecretConfig(), c.GetCombinedValidationContext().GetValidationContextSdsSecretConfig(),
	} {
		if s != nil {
			in.bundles[s.Name] = true
			s.SdsConfig = nil
		}
	}
}

func (in inliner) secrets() []*tlsv3.Secret {
	chain, key := selfSigned(in.t)
	var out []*tlsv3.Secret
	add := func(s *ir.Secret) {
		r, err := BuildSecret(s)
		if err != nil {
			in.t.Fatal(err)
		}
		out = append(out, message(in.t, r).(*tlsv3.Secret))
	}
	for name := range in.certificates {
		add(&ir.Secret{Name: name, Certificate: &ir.Certificate{Chain: chain, Key: key}})
	}
	for name := range in.bundles {
		add(&ir.Secret{Name: name, Bundle: chain})
	}
	return out
}

func selfSigned(t *testing.T) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "golden"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}
