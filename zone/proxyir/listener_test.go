package proxyir_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// bytesInput is a gateway whose listeners forward bytes, beside one for HTTPS on the same port.
func bytesInput(routes ...*resource.Resource) proxyir.Input {
	terminate := &meshv1.MeshGateway_Tls{Mode: meshv1.MeshGateway_MODE_TERMINATE, Certificates: []*meshv1.MeshGateway_Certificate{{Secret: "web"}}}
	gateway := &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{Listeners: []*meshv1.MeshGateway_Listener{
		{Port: 443, Protocol: meshv1.MeshGateway_PROTOCOL_TLS, Hostname: "*.example.com", Tls: &meshv1.MeshGateway_Tls{Mode: meshv1.MeshGateway_MODE_PASSTHROUGH}},
		{Port: 443, Protocol: meshv1.MeshGateway_PROTOCOL_TLS, Hostname: "term.example.com", Tls: terminate},
		{Port: 443, Protocol: meshv1.MeshGateway_PROTOCOL_HTTPS, Hostname: "api.example.com", Tls: terminate},
		{Port: 5432, Protocol: meshv1.MeshGateway_PROTOCOL_TCP},
	}}}
	return input(mesh(meshv1.Mesh_MODE_STRICT), &meshv1.Dataplane_Networking{Gateway: &meshv1.Dataplane_Gateway{Tags: service("edge")}},
		map[string][]*resource.Resource{"MeshGateway": {res("MeshGateway", "edge", gateway)}, "MeshGatewayRoute": routes})
}

func bytesRoute(name string, hostnames []string, backends ...*meshv1.MeshGatewayRoute_Backend) *resource.Resource {
	return res("MeshGatewayRoute", name, &meshv1.MeshGatewayRoute{Selectors: sel(service("edge")), Conf: &meshv1.MeshGatewayRoute_Conf{
		Tcp: &meshv1.MeshGatewayRoute_Tcp{Hostnames: hostnames, Rules: []*meshv1.MeshGatewayRoute_TcpRule{{Backends: backends}}}}})
}

func backend(name string) *meshv1.MeshGatewayRoute_Backend {
	return &meshv1.MeshGatewayRoute_Backend{Destination: service(name)}
}

// chains are those of a port as "server name -> clusters", in their order.
func chains(p *ir.Proxy, port uint32) []string {
	var out []string
	for _, l := range p.Listeners {
		for _, c := range l.Chains {
			if l.Port == port && c.TCP != nil {
				text := strings.Join(c.Match.ServerNames, ",") + " ->"
				for _, w := range c.TCP.Clusters {
					text += fmt.Sprintf(" %s*%d", strings.SplitN(w.Cluster, ".", 2)[0], w.Weight)
				}
				if c.TLS != nil {
					text += " terminated"
				}
				out = append(out, text)
			}
		}
	}
	return out
}

func TestConnectionsByServerName(t *testing.T) {
	weight := uint32(3)
	heavy := &meshv1.MeshGatewayRoute_Backend{Weight: &weight, Destination: service("b")}
	for _, c := range []struct {
		name   string
		routes []*resource.Resource
		tls    []string
		tcp    []string
	}{
		{"none", nil, nil, nil},
		{"all", []*resource.Resource{bytesRoute("all", nil, backend("a"))}, []string{"*.example.com -> a*1", "term.example.com -> a*1 terminated"}, []string{" -> a*1"}},
		{"weights", []*resource.Resource{bytesRoute("all", []string{"*"}, backend("a"), heavy)},
			[]string{"*.example.com -> a*1 b*3", "term.example.com -> a*1 b*3 terminated"}, []string{" -> a*1 b*3"}},
		// A name belongs to its most specific listener; that of HTTPS is for requests.
		{"names", []*resource.Resource{bytesRoute("names", []string{"B.example.com", "api.example.com", "term.example.com", "example.org"}, backend("a"))},
			[]string{"b.example.com -> a*1", "term.example.com -> a*1 terminated"}, nil},
		{"the first by name holds", []*resource.Resource{bytesRoute("two", []string{"b.example.com"}, backend("b")), bytesRoute("one", []string{"b.example.com", "*.example.com"}, backend("a"))},
			[]string{"*.example.com -> a*1", "b.example.com -> a*1", "term.example.com -> a*1 terminated"}, nil},
		{"a bad one is as if it weren't there", []*resource.Resource{bytesRoute("one", nil, &meshv1.MeshGatewayRoute_Backend{Destination: tags{"version": "1"}}), bytesRoute("two", nil, backend("b"))},
			[]string{"*.example.com -> b*1", "term.example.com -> b*1 terminated"}, []string{" -> b*1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := proxyir.Gateway(bytesInput(c.routes...))
			p, _ := accepted(t, r, err)
			if got := chains(p, 443); !slices.Equal(got, c.tls) {
				t.Errorf("TLS %q, want %q", got, c.tls)
			}
			if got := chains(p, 5432); !slices.Equal(got, c.tcp) {
				t.Errorf("TCP %q, want %q", got, c.tcp)
			}
		})
	}
}

// listeners are the versions of a proxy's listeners by name.
func listeners(t *testing.T, in proxyir.Input) map[string]string {
	t.Helper()
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	resources, err := xds.Build(p)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, l := range resources.Listeners {
		out[l.Name] = l.Version
	}
	return out
}

// TestListenersStayAsTheyAre: what forwards bytes, HTTP/3 and redirects change without an end of connections.
func TestListenersStayAsTheyAre(t *testing.T) {
	before := listeners(t, bytesInput(bytesRoute("all", nil, backend("a"))))
	if after := listeners(t, bytesInput(bytesRoute("all", nil, backend("b"), backend("c")))); !reflect.DeepEqual(before, after) {
		t.Errorf("backends changed listeners from %v to %v", before, after)
	}
	in := gatewayInput()
	before = listeners(t, in)
	gateway := resource.Spec[*meshv1.MeshGateway](in.Policies["MeshGateway"].All()[0])
	for _, l := range gateway.Conf.Listeners {
		if l.Protocol == meshv1.MeshGateway_PROTOCOL_HTTPS {
			l.Http3, l.Http3AdvertisedPort = true, 444
		} else {
			l.RedirectToHttps = &meshv1.MeshGateway_RedirectToHttps{}
		}
	}
	after := listeners(t, in)
	if len(after) != len(before)+1 {
		t.Errorf("listeners %v, want one of QUIC beside %v", after, before)
	}
	for name, version := range before {
		if after[name] != version {
			t.Errorf("listener %s changed", name)
		}
	}
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	for _, c := range facing(p).Routes {
		for _, h := range c.VirtualHosts {
			if c.Name == "gateway:80" && (len(h.Routes) != 1 || h.Routes[0].Redirect == nil || h.Routes[0].Redirect.Status != 301 || h.Routes[0].Redirect.Port != 443) {
				t.Errorf("%s %s: %v", c.Name, h.Name, h.Routes)
			}
		}
		if c.Name != "gateway:80" && (len(c.ResponseHeaders.Set) != 1 || c.ResponseHeaders.Set[0].Value != `h3=":444"; ma=86400`) {
			t.Errorf("%s: headers %v", c.Name, c.ResponseHeaders)
		}
	}
}

// TestListenerWithoutAuthoritiesIsLeftOut, as it would let in anyone.
func TestListenerWithoutAuthoritiesIsLeftOut(t *testing.T) {
	in := gatewayInput()
	gateway := resource.Spec[*meshv1.MeshGateway](in.Policies["MeshGateway"].All()[0])
	for _, l := range gateway.Conf.Listeners {
		if l.GetTls() != nil {
			l.Tls.ClientValidation = &meshv1.MeshGateway_ClientValidation{Secret: "clients"}
		}
	}
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	p = facing(p)
	if !slices.Contains(p.Secrets, "authorities:clients") || len(p.Listeners) != 2 {
		t.Errorf("secrets %v of %d listeners", p.Secrets, len(p.Listeners))
	}
	in.HasAuthorities = func(string) bool { return false }
	r, err = proxyir.Gateway(in)
	p, _ = accepted(t, r, err)
	p = facing(p)
	if len(p.Listeners) != 1 || p.Listeners[0].Port != 80 || slices.ContainsFunc(p.Secrets, func(s string) bool { return strings.HasPrefix(s, "secret:") }) {
		t.Errorf("secrets %v, listeners %v", p.Secrets, p.Listeners)
	}
	if len(r.Rejected) == 0 || !strings.Contains(r.Rejected[0].Reason, "Secret default/clients is not there or holds no certificate of an authority") {
		t.Errorf("rejected %v", r.Rejected)
	}
}
