package zone_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	zaptestobserver "go.uber.org/zap/zaptest/observer"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/dataplane"
	"github.com/zoneforge/zoneforge/pki/token"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone"
)

// gatewayNode is the node of a gateway of service edge, with its token.
func (g *global) gatewayNode(name string) (*corev3.Node, string) {
	return g.node(name, gatewayAt("127.0.0.1"))
}

// node is that of a proxy, with its token.
func (g *global) node(name string, spec *meshv1.Dataplane) (*corev3.Node, string) {
	document := must(resource.EncodeJSON(&resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: "default", Name: name}, Spec: spec}))(g.t)
	fields := map[string]*structpb.Value{}
	for k, v := range map[string]string{dataplane.MetadataKind: "Dataplane", dataplane.MetadataMesh: "default", dataplane.MetadataName: name, dataplane.MetadataDocument: string(document)} {
		fields[k] = structpb.NewStringValue(v)
	}
	now := time.Now()
	claims := token.Claims{Purpose: token.Dataplane, ID: name, Mesh: "default", IssuedAt: now, ExpiresAt: now.Add(time.Hour)}
	return &corev3.Node{Id: "Dataplane/default/" + name, Metadata: &structpb.Struct{Fields: fields}}, must(token.Sign(g.signing, claims))(g.t).Reveal()
}

// hostile is a proxy that says what no Envoy would.
type hostile struct {
	client discoveryv3.AggregatedDiscoveryServiceClient
	node   *corev3.Node
	token  string
	// came counts the responses.
	came atomic.Int64
}

func (g *global) hostile(z running, name string) *hostile {
	g.t.Helper()
	creds := must(credentials.NewClientTLSFromFile(z.CAFile(), ""))(g.t)
	conn := must(grpc.NewClient("passthrough:///"+z.Addresses().XDS, grpc.WithTransportCredentials(creds)))(g.t)
	g.t.Cleanup(func() { _ = conn.Close() })
	h := &hostile{client: discoveryv3.NewAggregatedDiscoveryServiceClient(conn)}
	h.node, h.token = g.gatewayNode(name)
	return h
}

// converse asks for everything and gives each response to answer, until the stream or ctx ends.
func (h *hostile) converse(ctx context.Context, answer func(*discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest) error {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+h.token))
	defer cancel()
	s, err := h.client.DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	node := h.node
	for _, typeURL := range []string{xds.TypeCluster, xds.TypeListener} {
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL}); err != nil {
			break // Recv says why
		}
		node = nil
	}
	for {
		r, err := s.Recv()
		if err != nil {
			return err
		}
		h.came.Add(1)
		request := answer(r)
		if request == nil {
			return nil
		}
		if err := s.Send(request); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
}

// TestHostileProxiesCostThemselvesAlone has one proxy reject everything, and one begin streams in a loop. A third one beside them gets
// each change at once, and what the hostile ones are sent, and what is said of them, is bounded.
func TestHostileProxiesCostThemselvesAlone(t *testing.T) {
	core, logs := zaptestobserver.New(zap.InfoLevel)
	g := newGlobal(t)
	everybody := &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("*"))}
	g.put(2, rec(t, "Mesh", "default", strict()), rec(t, "TrafficPermission", "all", everybody),
		rec(t, "MeshGateway", "edge", &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{
			Listeners: []*meshv1.MeshGateway_Listener{{Port: 8080, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}}),
		rec(t, "MeshGatewayRoute", "echo", route("first")))
	const streamRate = 20
	z := startZone(t, zone.Config{
		Name: "east", DataDir: filepath.Join(t.TempDir(), "zone"), GlobalAddresses: []string{g.address}, GlobalCAFile: g.caFile, TokenFile: write(t, "zone-token", []byte(zoneToken+"\n")),
		XDSAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0", Replica: "a", Logger: zap.New(core), Limits: zone.Limits{StreamRate: streamRate, Connections: 100},
	})
	g.await("the zone to take revision 2", func(s *kdsv1.Status, _ *kds.Set) bool { return s.GetRevision() == 2 })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(z.CAFile()))(t))
	good := simproxy.New(simproxy.Config{Address: z.Addresses().XDS, TLS: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"h2"}}, Pause: time.Second})
	node, text := g.gatewayNode("good")
	ctx, stop := context.WithCancel(t.Context())
	var hostiles sync.WaitGroup
	t.Cleanup(func() { stop(); hostiles.Wait(); good.Wait() })
	proxy := good.Add(ctx, node, text)
	defer proxy.Stop()
	if err := good.Await(ctx, "the good proxy", patience, func(c simproxy.Counts) bool { return c.Complete == 1 }); err != nil {
		t.Fatal(err)
	}

	rejecting, looping := g.hostile(z, "rejecting"), g.hostile(z, "looping")
	hostiles.Go(func() {
		_ = rejecting.converse(ctx, func(r *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest {
			return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &statuspb.Status{Code: int32(codes.InvalidArgument), Message: "no"}}
		})
	})
	var begun, heldOff atomic.Int64
	hostiles.Go(func() {
		for ctx.Err() == nil && heldOff.Load() < 1000 {
			switch err := looping.converse(ctx, func(*discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest { return nil }); {
			case err == nil:
				begun.Add(1)
			case status.Code(err) == codes.Unauthenticated && strings.Contains(err.Error(), "begins streams too often"):
				heldOff.Add(1)
			}
		}
	})

	// Each change is another version of the route.
	routes := make(chan string, 100)
	good.Watch(func(_ *simproxy.Proxy, typeURL, _ string, item *simproxy.Item, _ time.Time) {
		if typeURL == xds.TypeRoute && item != nil {
			routes <- item.Version
		}
	})
	const changes = 20
	began := time.Now()
	seen := map[string]bool{}
	for n := range changes {
		g.put(uint64(3+n), rec(t, "MeshGatewayRoute", "echo", route(fmt.Sprint("value-", n))))
		select {
		case version := <-routes:
			if seen[version] {
				t.Fatalf("change %d brought an old version", n)
			}
			seen[version] = true
		case <-time.After(patience):
			t.Fatalf("change %d did not come to the good proxy", n)
		}
	}
	if took := time.Since(began); took > patience {
		t.Errorf("%d changes took %s", changes, took)
	}
	if c := good.Counts(); c.Reconnects != 0 || c.Emptied != 0 {
		t.Errorf("the good proxy had %+v", c)
	}
	g.await("the refusals in the status", func(s *kdsv1.Status, _ *kds.Set) bool {
		for _, n := range s.GetNacks() {
			if n.GetProxy() == "rejecting" {
				return true
			}
		}
		return false
	})
	// Clusters and listeners at first, and the listener again after pauses that double.
	if n := rejecting.came.Load(); n < 1 || n > 20 {
		t.Errorf("the proxy that rejects everything was sent %d responses during %d changes", n, changes)
	}
	deadline := time.After(patience)
	for heldOff.Load() == 0 {
		select {
		case <-deadline:
			t.Fatalf("%d streams of the looping proxy began, and none was held off", begun.Load())
		case <-time.After(10 * time.Millisecond):
		}
	}
	if n, most := begun.Load(), int64(streamRate/2+streamRate*(time.Since(began)+time.Minute-1)/time.Minute); n > most {
		t.Errorf("%d streams of the looping proxy began, at most %d are allowed", n, most)
	}
	if n := logs.FilterMessage("proxy rejected configuration").Len(); n > 20 {
		t.Errorf("%d lines about the proxy that rejects everything", n)
	}
	if n := logs.FilterMessage("proxy refused").Len(); n == 0 || n > 10 {
		t.Errorf("%d lines about streams that were refused", n)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	fetch(t, client, "https://"+z.Addresses().REST+"/metrics", func(_ int, _ http.Header, body string) bool {
		return strings.Contains(body, "zoneforge_zone_streams_held_off_total ") && !strings.Contains(body, "zoneforge_zone_streams_held_off_total 0\n") &&
			strings.Contains(body, `zoneforge_zone_connections{port="xds"} 3`) && strings.Contains(body, "zoneforge_zone_global_connected 1") &&
			strings.Contains(body, "zoneforge_zone_identities_end_timestamp_seconds 1.")
	})
}
