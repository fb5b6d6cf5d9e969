package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/e2e/loopback"
	"github.com/zoneforge/zoneforge/xds"
)

// envoyBinary finds Envoy where `make tools` leaves it, then where ZONEFORGE_ENVOY says, then in PATH. Without one the
// test fails: what no Envoy has accepted is not tested.
func envoyBinary(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "..", "..", ".tools", "bin", "envoy")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if path := os.Getenv("ZONEFORGE_ENVOY"); path != "" {
		return path
	}
	found, err := exec.LookPath("envoy")
	if err != nil {
		t.Fatal("no Envoy: run `make tools`, or set ZONEFORGE_ENVOY to the binary")
	}
	return found
}

func freePort(t *testing.T) uint32 {
	t.Helper()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// apiTypes are the variants of ADS by Envoy's names.
var apiTypes = []string{"DELTA_GRPC", "GRPC"}

// startEnvoy runs an Envoy whose only configuration is where its ADS server is.
func startEnvoy(t *testing.T, id, apiType string, adsPort uint32) {
	t.Helper()
	dir := t.TempDir()
	config := fmt.Sprintf(`
node: {id: %s, cluster: test}
dynamic_resources:
  ads_config:
    api_type: %s
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {cluster_name: ads}
      initial_metadata: [{key: authorization, value: Bearer good}]
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: ads
    type: STATIC
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: ads
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`, id, apiType, adsPort)
	path := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(envoyBinary(t), "-c", path, "--disable-hot-restart", "--concurrency", "2", "-l", "warning")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("envoy said:\n%s", log.String())
		}
	})
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func address(port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
}

func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

func adsCluster(t *testing.T, name string) *xds.Resource { return timedCluster(t, name, 5*time.Second) }

func timedCluster(t *testing.T, name string, connect time.Duration) *xds.Resource {
	return res(t, xds.TypeCluster, name, &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		ConnectTimeout: durationpb.New(connect), EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource()},
	})
}

func httpListener(t *testing.T, name, route string, port uint32) *xds.Resource {
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: route, ConfigSource: adsSource()}},
		HttpFilters: []*hcmv3.HttpFilter{{Name: "router",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})}}},
	}
	return res(t, xds.TypeListener, name, &listenerv3.Listener{Name: name, Address: address(port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{Name: "http",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, manager)}}}}}})
}

// endpointAt says that a cluster's only endpoint is the backend.
func endpointAt(t *testing.T, name string, backend *httptest.Server) *xds.Resource {
	port := uint32(backend.Listener.Addr().(*net.TCPAddr).Port)
	return res(t, xds.TypeEndpoint, name, &endpointv3.ClusterLoadAssignment{ClusterName: name,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(port)}}}}}}})
}

func backend(t *testing.T, answer string) *httptest.Server {
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
	t.Cleanup(b.Close)
	return b
}

func fetch(t *testing.T, client *http.Client, port uint32) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// serve runs a server on a port of its own.
func serve(t *testing.T) (*Server, *watcher, uint32) {
	t.Helper()
	watch := newWatcher()
	s, err := New(Config{Authenticator: newGate(), Observer: watch})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(Option())
	s.Register(g)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = g.Serve(lis)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-served
	})
	return s, watch, uint32(lis.Addr().(*net.TCPAddr).Port)
}

func TestRealEnvoy(t *testing.T) {
	for _, apiType := range apiTypes {
		t.Run(apiType, func(t *testing.T) { realEnvoy(t, apiType) })
	}
}

func realEnvoy(t *testing.T, apiType string) {
	one, two := backend(t, "one"), backend(t, "two")
	s, watch, adsPort := serve(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}

	port := freePort(t)
	listeners := []*xds.Resource{httpListener(t, "in", "r", port)}
	s.SetEndpoints(1, map[string]*xds.Resource{"one": endpointAt(t, "one", one), "two": endpointAt(t, "two", two)})
	s.SetProxy("p", 1, &xds.Resources{Listeners: listeners, Clusters: []*xds.Resource{adsCluster(t, "one")},
		Routes: []*xds.Resource{routeTo(t, "r", "one")}}, nil)
	startEnvoy(t, "p", apiType, adsPort)
	reach := func(revision uint64) {
		t.Helper()
		watch.await(t, s, "p", fmt.Sprintf("revision %d", revision), func(st Status) bool { return st.Acked == revision })
	}
	// Envoy acknowledges before its workers have taken a change over, so the answer may be the older one for a moment, but
	// no request may fail.
	wants := func(answer string) {
		t.Helper()
		got := ""
		for deadline := time.Now().Add(patience); got != answer && time.Now().Before(deadline); {
			if got = fetch(t, client, port); got != "one" && got != "two" {
				break
			}
		}
		if got != answer {
			t.Fatalf("answer %q, want %q", got, answer)
		}
	}
	reach(1)
	wants("one")

	// The route moves to another cluster, and the first goes.
	s.SetProxy("p", 2, &xds.Resources{Listeners: listeners, Clusters: []*xds.Resource{adsCluster(t, "two")},
		Routes: []*xds.Resource{routeTo(t, "r", "two")}}, nil)
	reach(2)
	wants("two")

	// A cluster that Envoy refuses, in a response with a good one and without naming it: it is found, Envoy's words are in
	// the status, and the last good configuration serves.
	refused := res(t, xds.TypeCluster, "refused", &clusterv3.Cluster{Name: "refused",
		ConnectTimeout: durationpb.New(-time.Second)})
	s.SetProxy("p", 3, &xds.Resources{Listeners: listeners, Clusters: []*xds.Resource{adsCluster(t, "one"), refused, adsCluster(t, "two")},
		Routes: []*xds.Resource{routeTo(t, "r", "refused")}}, nil)
	st := watch.await(t, s, "p", "the refusal", func(st Status) bool { return len(st.Nacks) == 1 })
	if n := st.Nacks[0]; n.TypeURL != xds.TypeCluster || fmt.Sprint(n.Names) != "[refused]" ||
		!strings.Contains(n.Message, "Expected positive duration") || st.Acked != 2 {
		t.Fatalf("status %+v", st)
	}
	wants("two")

	// Mended.
	s.SetProxy("p", 4, &xds.Resources{Listeners: listeners,
		Clusters: []*xds.Resource{adsCluster(t, "one"), adsCluster(t, "two")},
		Routes:   []*xds.Resource{routeTo(t, "r", "one")}}, nil)
	reach(4)
	wants("one")

	// A changed cluster is warmed anew, and its endpoints, which did not change, have to come again.
	changed := timedCluster(t, "one", 3*time.Second)
	s.SetProxy("p", 5, &xds.Resources{Listeners: listeners, Clusters: []*xds.Resource{changed},
		Routes: []*xds.Resource{routeTo(t, "r", "one")}}, nil)
	reach(5)
	wants("one")
}
