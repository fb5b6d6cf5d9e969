package simproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/e2e/loopback"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/xds/server"
)

const soon = 2 * time.Minute

// zone is a server that lets in who shows the token.
type zone struct {
	t       *testing.T
	address string
	tls     *httptest.Server
	xds     *server.Server
	grpc    *grpc.Server
}

func (z *zone) Connect(_ context.Context, node *corev3.Node, token string) (server.ProxyID, error) {
	if token != "good" {
		return "", errors.New("no good token")
	}
	return server.ProxyID(node.GetId()), nil
}

func (z *zone) Disconnect(server.ProxyID) {}

func newZone(t *testing.T) *zone {
	t.Helper()
	port, err := loopback.Port() // as it comes back to it
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{t: t, address: fmt.Sprintf("127.0.0.1:%d", port), tls: httptest.NewTLSServer(http.NotFoundHandler())}
	t.Cleanup(z.tls.Close)
	z.start()
	t.Cleanup(func() { z.grpc.Stop() })
	return z
}

// start begins without knowing anything of proxies, where the zone was before.
func (z *zone) start() {
	z.t.Helper()
	var err error
	if z.xds, err = server.New(server.Config{Authenticator: z}); err != nil {
		z.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", z.address)
	if err != nil {
		z.t.Fatal(err)
	}
	z.grpc = grpc.NewServer(server.Option(), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: z.tls.TLS.Certificates})))
	z.xds.Register(z.grpc)
	go func(g *grpc.Server) { _ = g.Serve(listener) }(z.grpc)
}

func (z *zone) resource(typeURL, name string, m proto.Message) *xds.Resource {
	z.t.Helper()
	r, err := xds.NewResource(typeURL, name, m)
	if err != nil {
		z.t.Fatal(err)
	}
	return r
}

// give lets proxies have a cluster whose endpoints are at the ports.
func (z *zone) give(ports ...uint32) {
	z.t.Helper()
	e := &endpointv3.ClusterLoadAssignment{ClusterName: "shared", Endpoints: []*endpointv3.LocalityLbEndpoints{{}}}
	for _, port := range ports {
		e.Endpoints[0].LbEndpoints = append(e.Endpoints[0].LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}}}})
	}
	z.xds.SetEndpoints(uint64(len(ports))+1, map[string]*xds.Resource{"shared": z.resource(xds.TypeEndpoint, "shared", e)})
	for _, id := range []server.ProxyID{"one", "two"} {
		z.xds.SetProxy(id, 1, &xds.Resources{
			Clusters: []*xds.Resource{z.resource(xds.TypeCluster, "c", &clusterv3.Cluster{Name: "c", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
				EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{ServiceName: "shared"}})},
			Listeners: []*xds.Resource{z.resource(xds.TypeListener, "l", &listenerv3.Listener{Name: "l"})},
		}, nil)
	}
}

func (z *zone) fleet() *Fleet {
	roots := x509.NewCertPool()
	roots.AddCert(z.tls.Certificate())
	return New(Config{Address: z.address, TLS: &tls.Config{RootCAs: roots}, Pause: 20 * time.Millisecond})
}

func TestProxiesGetAllAndSayWhatTheyHave(t *testing.T) {
	z := newZone(t)
	f := z.fleet()
	ctx, cancel := context.WithCancel(t.Context())
	defer f.Wait()
	defer cancel()
	z.give(80, 81)
	for _, id := range []string{"one", "two"} {
		f.Add(ctx, &corev3.Node{Id: id}, "good")
	}
	if err := f.Await(ctx, "all is there", soon, func(c Counts) bool { return c.Complete == 2 }); err != nil {
		t.Fatal(err)
	}
	given := f.Counts().Bytes
	if given == 0 {
		t.Error("nothing was given")
	}

	z.grpc.Stop()
	if err := f.Await(ctx, "streams end", soon, func(c Counts) bool { return c.Connected == 0 && c.Complete == 0 }); err != nil {
		t.Fatal(err)
	}
	z.start()
	z.give(80, 81)
	if err := f.Await(ctx, "all are back", soon, func(c Counts) bool { return c.Complete == 2 }); err != nil {
		t.Fatal(err)
	}
	if c := f.Counts(); c.Bytes != given || c.Removed+c.Emptied != 0 || c.Reconnects < 2 {
		t.Errorf("what they had was sent again, or taken from them: %+v", c)
	}

	z.give()
	if err := f.Await(ctx, "endpoints are gone", soon, func(c Counts) bool { return c.Emptied == 2 }); err != nil {
		t.Error(err)
	}
}

func TestWhatComesIsTold(t *testing.T) {
	z := newZone(t)
	f := z.fleet()
	ctx, cancel := context.WithCancel(t.Context())
	defer f.Wait()
	defer cancel()
	z.give(80)
	link, err := f.Dial("good")
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	var mu sync.Mutex
	var sights [][]string
	f.Watch(func(_ *Proxy, typeURL, _ string, item *Item, _ time.Time) {
		if typeURL == xds.TypeEndpoint {
			mu.Lock()
			defer mu.Unlock()
			sights = append(sights, item.Endpoints)
		}
	})
	one := f.AddOver(ctx, link, &corev3.Node{Id: "one"})
	if err := f.Await(ctx, "all is there", soon, func(c Counts) bool { return c.Complete == 1 }); err != nil {
		t.Fatal(err)
	}
	z.give(80, 81)
	if err := f.Await(ctx, "the change is told", soon, func(Counts) bool {
		mu.Lock()
		defer mu.Unlock()
		return len(sights) == 2
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(sights[0], []string{"127.0.0.1:80"}) || !slices.Equal(sights[1], []string{"127.0.0.1:80", "127.0.0.1:81"}) {
		t.Errorf("told of %q", sights)
	}
	one.Stop()
	if c := f.Counts(); c.Connected != 0 {
		t.Errorf("%+v", c)
	}
}

func TestWhyAStreamEndedIsTold(t *testing.T) {
	z := newZone(t)
	f := z.fleet()
	ctx, cancel := context.WithCancel(t.Context())
	defer f.Wait()
	defer cancel()
	f.Add(ctx, &corev3.Node{Id: "one"}, "bad")
	if err := f.Await(ctx, "a refusal", soon, func(c Counts) bool { return c.Reconnects > 0 }); err != nil {
		t.Fatal(err)
	}
	if err := f.Await(ctx, "never", time.Millisecond, func(Counts) bool { return false }); err == nil || !strings.Contains(err.Error(), "no good token") {
		t.Errorf("got %v", err)
	}
}
