package zone_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/pki/certfile"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
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
		Filters: []*meshv1.Filter{{Filter: &meshv1.Filter_ResponseHeader{
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
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}

	g := newGlobal(t)
	edge, inbound, ingressPort := freePort(t), freePort(t), freePort(t)
	everybody := &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("*"))}
	g.put(2, rec(t, "Mesh", "default", strict()), rec(t, "TrafficPermission", "all", everybody),
		rec(t, "MeshGateway", "edge", &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{
			Listeners: []*meshv1.MeshGateway_Listener{{Port: edge, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}}),
		rec(t, "MeshGatewayRoute", "echo", route("first")))
	cfg := zone.Config{
		Name: "east", DataDir: filepath.Join(t.TempDir(), "zone"), GlobalAddresses: []string{g.address}, GlobalCAFile: g.caFile, TokenFile: write(t, "zone-token", []byte(zoneToken+"\n")),
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

	// What Envoy refuses shows up in its own words, counts as not live, and leaves what was there; mended, it is live.
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	listeners := func(ports ...uint32) *meshv1.MeshGateway {
		m := &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{}}
		for _, p := range ports {
			m.Conf.Listeners = append(m.Conf.Listeners, &meshv1.MeshGateway_Listener{Port: p, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP})
		}
		return m
	}
	g.put(5, rec(t, "MeshGateway", "edge", listeners(edge, uint32(taken.Addr().(*net.TCPAddr).Port))))
	g.await("Envoy's refusal", func(s *kdsv1.Status, r *kds.Set) bool {
		n := s.GetNacks()
		return s.GetRevision() == 5 && len(n) == 1 && n[0].GetProxy() == "edge-1" && n[0].GetMesh() == "default" && n[0].GetRevision() == 5 &&
			strings.Contains(n[0].GetError(), "cannot bind") && s.GetAcked() == 2 && !live(5)(s, r)
	})
	fetch(t, client, url, answers("second"))
	_ = taken.Close()
	g.put(6, rec(t, "MeshGateway", "edge", listeners(edge)))
	g.await("revision 6 to be live", func(s *kdsv1.Status, r *kds.Set) bool { return live(6)(s, r) && len(s.GetNacks()) == 0 })

	// A second root is part of its revision: it is live when the proxies have the bundle.
	other := must(pki.NewRoot(rand.Reader, time.Now(), "default", pki.Validity{}))(t)
	roots := []string{string(g.bundle.PEM()), string(pki.EncodeCertificates(other.Certificate))}
	before := secretVersion(t, g, "edge-1", "bundle")
	g.put(7, rec(t, "TrustBundle", "default", &federationv1.TrustBundle{Domain: domain, Roots: roots}))
	g.await("revision 7 to be live", live(7))
	if after := secretVersion(t, g, "edge-1", "bundle"); after == before {
		t.Error("the second root did not reach the gateway")
	}
	fetch(t, client, url, answers("second"))

	queries(t, g)
	health(t, z)

	// A revoked token ends its proxy's stream, and lets no other begin.
	g.startEnvoy(z, "Dataplane", "edge-3", gatewayAt("127.0.0.3"))
	g.await("a fourth proxy", func(s *kdsv1.Status, _ *kds.Set) bool { return s.GetProxies() == 4 && s.GetAcked() == 4 })
	g.put(8, g.keys("edge-3"))
	g.await("its end", func(s *kdsv1.Status, r *kds.Set) bool { return s.GetProxies() == 3 && live(8)(s, r) })

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

// ask sends a query down the stream, as the REST API does.
func ask(t *testing.T, g *global, q *kdsv1.Query, into any) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	body, err := g.server.Ask(ctx, "east", q)
	if err != nil {
		return err
	}
	if bytes.Contains(body, []byte("PRIVATE KEY")) {
		t.Fatal("an answer holds a private key")
	}
	return json.Unmarshal(body, into)
}

func queries(t *testing.T, g *global) {
	t.Helper()
	var list struct {
		Items []struct {
			Kind, Mesh, Name, Address string
			Services                  []string
			Revision                  uint64
			Acked                     bool
			Nacks                     []any
		}
	}
	if err := ask(t, g, &kdsv1.Query{Query: &kdsv1.Query_ListDataplanes_{ListDataplanes: &kdsv1.Query_ListDataplanes{}}}, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 3 || list.Items[0].Name != "echo-1" || list.Items[1].Services[0] != "edge" || list.Items[2].Kind != "ZoneIngress" {
		t.Fatalf("listed %+v", list)
	}
	for _, i := range list.Items {
		if !i.Acked || i.Revision != 7 || i.Nacks == nil || len(i.Nacks) > 0 {
			t.Errorf("listed %+v", i)
		}
	}
	describe := func(name string) *kdsv1.Query {
		return &kdsv1.Query{Query: &kdsv1.Query_DescribeDataplane_{DescribeDataplane: &kdsv1.Query_DescribeDataplane{Mesh: "default", Name: name, Config: true}}}
	}
	var d struct {
		Document map[string]any
		Policies []struct{ Kind, Name, Why string }
		Config   struct {
			Listeners, Routes, Clusters, Endpoints []map[string]any
			Secrets                                []struct{ Name, Version, Data string }
		}
	}
	if err := ask(t, g, describe("edge-1"), &d); err != nil {
		t.Fatal(err)
	}
	if d.Document["name"] != "edge-1" || len(d.Policies) != 2 || d.Policies[0].Why != "listeners of this gateway" || d.Policies[1].Name != "echo" {
		t.Errorf("document %v, policies %+v", d.Document, d.Policies)
	}
	c := d.Config
	// Its own, and those by which caches and compositions ask.
	if len(c.Listeners) != 3 || len(c.Routes) != 3 || len(c.Clusters) != 3 || len(c.Endpoints) != 1 || len(c.Secrets) != 2 {
		t.Fatalf("config %+v", c)
	}
	for _, s := range c.Secrets {
		if s.Data != resource.Redacted || s.Version == "" {
			t.Errorf("secret %+v", s)
		}
	}
	if err := ask(t, g, describe("nobody"), &d); err == nil || !strings.Contains(err.Error(), "no such proxy") {
		t.Errorf("error %v", err)
	}
}

func secretVersion(t *testing.T, g *global, proxy, secret string) string {
	t.Helper()
	var d struct {
		Config struct {
			Secrets []struct{ Name, Version string }
		}
	}
	if err := ask(t, g, &kdsv1.Query{Query: &kdsv1.Query_DescribeDataplane_{DescribeDataplane: &kdsv1.Query_DescribeDataplane{Mesh: "default", Name: proxy, Config: true}}}, &d); err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Config.Secrets {
		if s.Name == secret {
			return s.Version
		}
	}
	t.Fatalf("%s has no secret %s", proxy, secret)
	return ""
}

func health(t *testing.T, z running) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(z.CAFile()))(t))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	for path, want := range map[string]string{"/healthz": `"ok"`, "/readyz": `"ok"`, "/metrics": "zoneforge_zone_proxies 3"} {
		resp := must(client.Get("https://" + z.Addresses().REST + path))(t)
		body := must(io.ReadAll(resp.Body))(t)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %.300s", path, resp.StatusCode, body)
		}
	}
}

func TestConfigNamesAllThatIsWrong(t *testing.T) {
	_, err := zone.New(zone.Config{Name: "No Zone", XDSAddress: "5678", TLSCertFile: "x", EndpointGrace: -1})
	for _, want := range []string{"data-dir", "global", "global-ca", "token-file", "xds-address", "tls-key-file", `name "No Zone"`, "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %s: %v", want, err)
		}
	}
}

func TestWhatCanNotStartSaysWhy(t *testing.T) {
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer taken.Close()
	ca := must(certfile.Ensure(t.TempDir(), rand.Reader, time.Now(), "global", []string{"127.0.0.1"}))(t)
	good := zone.Config{Name: "east", DataDir: t.TempDir(), GlobalAddresses: []string{"127.0.0.1:1"}, GlobalCAFile: write(t, "ca", ca.CA), TokenFile: "/nowhere",
		XDSAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0"}
	for name, c := range map[string]struct {
		change func(*zone.Config)
		want   string
	}{
		"a port in use":       {func(c *zone.Config) { c.XDSAddress = taken.Addr().String() }, "in use by another process"},
		"no CA file":          {func(c *zone.Config) { c.GlobalCAFile = "/nowhere" }, "copy tls/server-ca.crt"},
		"a CA that is none":   {func(c *zone.Config) { c.GlobalCAFile = write(t, "ca", []byte("?")) }, "holds no certificate"},
		"a file for data-dir": {func(c *zone.Config) { c.DataDir = write(t, "file", nil) }, "data directory"},
	} {
		cfg := good
		c.change(&cfg)
		z := must(zone.New(cfg))(t)
		if err := z.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNotReadyBeforeGlobalWasHeard(t *testing.T) {
	ca := must(certfile.Ensure(t.TempDir(), rand.Reader, time.Now(), "global", []string{"127.0.0.1"}))(t)
	z := startZone(t, zone.Config{Name: "east", DataDir: t.TempDir(), GlobalAddresses: []string{"127.0.0.1:1"}, GlobalCAFile: write(t, "ca", ca.CA), TokenFile: "/nowhere",
		XDSAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0"})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	resp := must((&http.Client{Transport: transport}).Get("https://" + z.Addresses().REST + "/readyz"))(t)
	defer resp.Body.Close()
	if body := must(io.ReadAll(resp.Body))(t); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "never heard of global") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
