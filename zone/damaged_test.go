package zone_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone"
)

// A zone that lost its state knows none of the endpoints that its proxies have. It takes none of them away, neither from its own proxies
// nor from other zones, before those had time to come back.
func TestLostStateEmptiesNoEndpoints(t *testing.T) {
	g := newGlobal(t)
	everybody := &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("*"))}
	g.put(2, rec(t, "Mesh", "default", strict()), rec(t, "TrafficPermission", "all", everybody),
		rec(t, "MeshGateway", "edge", &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{
			Listeners: []*meshv1.MeshGateway_Listener{{Port: 8080, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}}),
		rec(t, "MeshGatewayRoute", "echo", route("first")))
	cfg := zone.Config{
		Name: "east", DataDir: filepath.Join(t.TempDir(), "zone"), GlobalAddresses: []string{g.address}, GlobalCAFile: g.caFile, TokenFile: write(t, "zone-token", []byte(zoneToken+"\n")),
		XDSAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t)), RESTAddress: "127.0.0.1:0", Replica: "a", EndpointGrace: time.Hour, Logger: zap.NewNop(),
	}
	z := startZone(t, cfg)
	g.await("the zone to take revision 2", func(s *kdsv1.Status, _ *kds.Set) bool { return s.GetRevision() == 2 })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must(os.ReadFile(z.CAFile()))(t))
	ctx, stop := context.WithCancel(t.Context())
	fleet := func() *simproxy.Fleet {
		f := simproxy.New(simproxy.Config{Address: z.Addresses().XDS, TLS: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"h2"}}, Pause: 100 * time.Millisecond})
		t.Cleanup(func() { stop(); f.Wait() })
		return f
	}
	clients, backends := fleet(), fleet()
	echo := func() *simproxy.Proxy {
		node, token := g.node("echo-1", &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "127.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
			{Port: 15006, ServicePort: 8080, Tags: tags{resource.TagService: "echo", resource.TagProtocol: "http"}}}}})
		return backends.Add(ctx, node, token)
	}
	complete := func(f *simproxy.Fleet, what string) {
		t.Helper()
		if err := f.Await(ctx, what, patience, func(c simproxy.Counts) bool { return c.Complete == 1 }); err != nil {
			t.Fatal(err)
		}
	}
	backend := echo()
	complete(backends, "the backend")
	node, token := g.gatewayNode("edge-1")
	clients.Add(ctx, node, token)
	complete(clients, "the gateway")
	endpoints := make(chan int, 100)
	routes := make(chan struct{}, 100)
	clients.Watch(func(_ *simproxy.Proxy, typeURL, _ string, item *simproxy.Item, _ time.Time) {
		switch {
		case item == nil:
		case typeURL == xds.TypeEndpoint:
			endpoints <- len(item.Endpoints)
		case typeURL == xds.TypeRoute:
			routes <- struct{}{}
		}
	})
	g.await("the service to be offered", has("ServiceAvailability", "east.echo"))

	var came time.Time // when global came back
	// lose starts the zone without its state, while the backend is away, and without global for longer than proxies have to come back.
	lose := func(revision uint64, damage func(path string) error, without bool) {
		t.Helper()
		z.stop()
		backend.Stop()
		if err := damage(filepath.Join(cfg.DataDir, "state.db")); err != nil {
			t.Fatal(err)
		}
		for len(endpoints) > 0 { // what came before
			<-endpoints
		}
		if without {
			g.stop()
		}
		z = startZone(t, cfg)
		if without {
			<-time.After(cfg.EndpointGrace + time.Second)
			came = time.Now()
			g.start()
		}
		g.put(revision, rec(t, "MeshGatewayRoute", "echo", route(fmt.Sprint("value-", revision))))
		select {
		case <-routes:
		case <-time.After(patience):
			t.Fatal("the gateway was given nothing new")
		}
	}
	cutOff := func(path string) error { return os.Truncate(path, 3*4096) }
	for n, damage := range []func(string) error{cutOff, os.Remove} {
		lose(uint64(3+n), damage, false)
		backend = echo()
		complete(backends, "the backend again")
		complete(clients, "the gateway again")
		if c := clients.Counts(); c.Emptied != 0 {
			t.Errorf("endpoints were taken away: %+v", c)
		}
		g.await("the service to be still offered", has("ServiceAvailability", "east.echo"))
	}

	// A backend that does not come back goes in the end, here and elsewhere.
	cfg.EndpointGrace = 2 * time.Second
	lose(5, cutOff, true)
	for gone := false; !gone; {
		select {
		case n := <-endpoints: // those from before may come once more
			gone = n == 0
		case <-time.After(patience):
			t.Fatal("the endpoint of a backend that is gone stays for good")
		}
	}
	g.await("the service to be gone", func(s *kdsv1.Status, offered *kds.Set) bool {
		return !has("ServiceAvailability", "east.echo")(s, offered)
	})
	if kept := g.reportedAt().Sub(came); kept < cfg.EndpointGrace {
		t.Errorf("the service was taken from other zones %s after they could be told", kept)
	}
}

// reportedAt is when the zone last reported something else than before.
func (g *global) reportedAt() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reportedTime
}
