package zone_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/zone"
)

type tags = map[string]string

func service(name string) tags { return tags{resource.TagService: name} }

func sel(t tags) []*meshv1.Selector { return []*meshv1.Selector{{Match: t}} }

func strict() *meshv1.Mesh {
	return &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{EnabledBackend: "ca", Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "ca", Type: "builtin"}}}}
}

// route answers with x-route, so that a change of it is seen.
func route(value string) *meshv1.MeshGatewayRoute {
	return &meshv1.MeshGatewayRoute{Selectors: sel(service("edge")), Conf: &meshv1.MeshGatewayRoute_Conf{Http: &meshv1.MeshGatewayRoute_Http{Rules: []*meshv1.MeshGatewayRoute_Rule{{
		Backends: []*meshv1.MeshGatewayRoute_Backend{{Destination: service("echo")}},
		Filters: []*meshv1.MeshGatewayRoute_Filter{{Filter: &meshv1.MeshGatewayRoute_Filter_ResponseHeader{
			ResponseHeader: &meshv1.HeaderChange{Set: []*meshv1.HeaderValue{{Name: "x-route", Value: value}}}}}},
	}}}}}
}

func gatewayAt(address string) *meshv1.Dataplane {
	return &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: address,
		Gateway: &meshv1.Dataplane_Gateway{Type: meshv1.Dataplane_Gateway_TYPE_BUILTIN, Tags: service("edge")}}}
}

func has(kind, name string) func(*kdsv1.Status, *kds.Set) bool {
	return func(_ *kdsv1.Status, reported *kds.Set) bool {
		found := false
		reported.Each(kind, func(k resource.Key, _ *kdsv1.Record) bool { found = found || k.Name == name; return true })
		return found
	}
}

func TestZoneWithRealEnvoys(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("x-forwarded-client-cert"))
	}))
	t.Cleanup(backend.Close)
	transport := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}

	g := newGlobal(t)
	edge, inbound, ingressPort := freePort(t), freePort(t), freePort(t)
	everybody := &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("*"))}
	g.put(2, rec(t, "Mesh", "default", strict()), rec(t, "TrafficPermission", "all", everybody),
		rec(t, "MeshGateway", "edge", &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{
			Listeners: []*meshv1.MeshGateway_Listener{{Port: edge, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}}),
		rec(t, "MeshGatewayRoute", "echo", route("first")))
	cfg := zone.Config{
		Name: "east", DataDir: filepath.Join(t.TempDir(), "zone"), GlobalAddress: g.address, GlobalCAFile: g.caFile, TokenFile: write(t, "zone-token", []byte(zoneToken+"\n")),
		XDSAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t)), RESTAddress: "127.0.0.1:0", Replica: "a", EndpointGrace: patience,
	}
	z := startZone(t, cfg)
	g.await("the zone to take revision 2", func(s *kdsv1.Status, _ *kds.Set) bool { return s.GetRevision() == 2 })

	port := uint32(backend.Listener.Addr().(*net.TCPAddr).Port)
	g.startEnvoy(z, "Dataplane", "echo-1", &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "127.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
		{Port: inbound, ServicePort: port, Tags: tags{resource.TagService: "echo", resource.TagProtocol: "http"}}}}})
	g.startEnvoy(z, "Dataplane", "edge-1", gatewayAt("127.0.0.1"))
	stopIngress := g.startEnvoy(z, "ZoneIngress", "in", &meshv1.ZoneIngress{Networking: &meshv1.ZoneIngress_Networking{Address: "127.0.0.1", Port: ingressPort}})
	g.await("three proxies that acknowledged", func(s *kdsv1.Status, _ *kds.Set) bool { return s.GetProxies() == 3 && s.GetAcked() == 3 })
	g.await("the service to be offered", has("ServiceAvailability", "east.echo"))
	g.await("the ingress to be offered", has("ZoneIngress", "east.in"))

	url := fmt.Sprintf("http://127.0.0.1:%d/", edge)
	answers := func(value string) func(int, http.Header, string) bool {
		return func(code int, h http.Header, body string) bool {
			return code == http.StatusOK && h.Get("x-route") == value && strings.Contains(body, "spiffe://east.default.zoneforge/edge")
		}
	}
	fetch(t, client, url, answers("first"))

	// A change reaches Envoy, and its receipt comes back. One that touches no proxy is live at once, and a bad one costs
	// itself only.
	g.put(3, rec(t, "MeshGatewayRoute", "echo", route("second")))
	g.await("revision 3 to be live", live(3))
	fetch(t, client, url, answers("second"))
	g.put(4, rec(t, "Timeout", "of-others", &meshv1.Timeout{Sources: sel(service("nobody")), Destinations: sel(service("nothing")), Conf: &meshv1.Timeout_Conf{}}),
		kds.NewRecord(resource.Key{Kind: "FromTomorrow", Mesh: "default", Name: "x"}, []byte("?")))
	g.await("revision 4 to be live, with its rejection", func(s *kdsv1.Status, r *kds.Set) bool {
		return live(4)(s, r) && len(s.GetRejected()) == 1 && strings.Contains(s.GetRejected()[0].GetReason(), "not known to this version")
	})

	// The end of a stream takes away what it offered.
	stopIngress()
	g.await("the ingress to be gone", func(s *kdsv1.Status, r *kds.Set) bool {
		return s.GetProxies() == 2 && !has("ZoneIngress", "east.in")(s, r)
	})

	// With global gone, the zone restarts from its disk; the proxies that were there serve on, and a new one is served too.
	g.stop()
	z.stop()
	fetch(t, client, url, answers("second"))
	z = startZone(t, cfg)
	g.startEnvoy(z, "Dataplane", "edge-2", gatewayAt("127.0.0.2"))
	fetch(t, client, fmt.Sprintf("http://127.0.0.2:%d/", edge), answers("second"))
	fetch(t, client, url, answers("second"))
}
