package xds

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/ir"
)

// goodRoute forwards all to the cluster "a".
func goodRoute() ir.Route {
	return ir.Route{Name: "good", Forward: &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: "a", Weight: 1}}}}
}

func goodCluster() ir.Cluster {
	return ir.Cluster{Name: "a", Protocol: ir.HTTP1, EndpointsName: "a"}
}

// TestBuildReportsAll has one mistake per place, and wants each of them reported with its place.
func TestBuildReportsAll(t *testing.T) {
	regex, escape := goodRoute(), goodRoute()
	regex.Name, regex.Match.Path = "regex", ir.PathMatch{Kind: ir.PathRegex, Value: "("}
	escape.Name, escape.Forward = "lost", &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: "nowhere", Weight: 1}}}
	status := ir.Route{Name: "status", Direct: &ir.DirectResponse{Status: 7}}
	unsafe := goodCluster()
	unsafe.Name, unsafe.TLS = "unsafe", &ir.UpstreamTLS{Certificate: "c", Validation: "v"}
	named := goodCluster()
	named.Name, named.EndpointsName, named.Static = "named", "", &ir.Endpoint{Address: "example.com", Port: 80}

	rs, err := Build(&ir.Proxy{
		Listeners: []ir.Listener{
			{Name: "l1", Address: "0.0.0.0", Port: 80, Direction: ir.Edge, Chains: []ir.FilterChain{
				{Name: "c1", HTTP: &ir.HTTPConnection{StatPrefix: "s", RouteConfig: "missing"}},
				{Name: "c2", Match: ir.ChainMatch{Transport: "tls"}, TCP: &ir.TCPProxy{StatPrefix: "s", SNICluster: true, Authorization: "missing"}},
			}},
			{Name: "l2", Address: "0.0.0.0", Port: 81, Direction: ir.Edge, Chains: []ir.FilterChain{
				{Name: "c1", TCP: &ir.TCPProxy{StatPrefix: "s", SNICluster: true}},
				{Name: "c2", TCP: &ir.TCPProxy{StatPrefix: "s", SNICluster: true}},
			}},
		},
		Routes: []ir.RouteConfig{{Name: "r1", VirtualHosts: []ir.VirtualHost{
			{Name: "v1", Domains: []string{"a.example.com"}, Routes: []ir.Route{regex, goodRoute(), escape, status}},
			{Name: "v2", Domains: []string{"A.example.com"}},
		}}},
		Clusters: []ir.Cluster{goodCluster(), goodCluster(), unsafe, named},
		Authorizations: []ir.NamedAuthorization{{Name: "z1", Authorization: ir.Authorization{
			Rules: []ir.AuthorizationRule{{Name: "rule", Allow: []ir.TextMatch{{Kind: "glob"}}}},
		}}},
	})
	if rs != nil {
		t.Error("there are resources beside the errors")
	}
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for _, want := range [][]string{
		{`listener "l1": chain "c1"`, `routes "missing"`},
		{`listener "l1": chain "c2"`, `authorization "missing"`},
		{`listener "l2"`, `chains "c1" and "c2" both match`},
		{`routes "r1": virtual host "v1": route "regex"`, "not RE2"},
		{`routes "r1": virtual host "v1": route "lost"`, `cluster "nowhere"`},
		{`routes "r1": virtual host "v1": route "status"`, "Status"},
		{`routes "r1": virtual host "v2"`, "also in virtual host"},
		{`cluster "a"`, "two of this name"},
		{`cluster "unsafe"`, "no names are given"},
		{`cluster "named"`, "not an IP address"},
		{`authorization "z1"`, `"glob"`},
	} {
		if n := linesWith(lines, want); n != 1 {
			t.Errorf("%d lines hold %q, want 1", n, want)
		}
	}
	if len(lines) != 11 {
		t.Errorf("there are %d lines, want 11:\n%v", len(lines), err)
	}
}

func linesWith(lines, parts []string) int {
	n := 0
line:
	for _, l := range lines {
		for _, part := range parts {
			if !strings.Contains(l, part) {
				continue line
			}
		}
		n++
	}
	return n
}

// TestBuildOfNothing takes what is allowed to be empty, and refuses the rest without a panic.
func TestBuildOfNothing(t *testing.T) {
	if _, err := Build(&ir.Proxy{}); err != nil {
		t.Errorf("a proxy with nothing: %v", err)
	}
	if _, err := BuildEndpoints(&ir.Endpoints{Name: "none"}); err != nil {
		t.Errorf("endpoints without any: %v", err)
	}
	if _, err := Build(nil); err == nil {
		t.Error("no proxy is accepted")
	}
	if _, err := BuildEndpoints(nil); err == nil {
		t.Error("no endpoints are accepted")
	}
	if _, err := BuildSecret(nil); err == nil {
		t.Error("no secret is accepted")
	}
	if _, err := Build(&ir.Proxy{
		Listeners:      []ir.Listener{{Chains: []ir.FilterChain{{}}}},
		Routes:         []ir.RouteConfig{{VirtualHosts: []ir.VirtualHost{{Routes: []ir.Route{{}, {Forward: &ir.Forward{}}}}}}},
		Clusters:       []ir.Cluster{{}},
		Authorizations: []ir.NamedAuthorization{{}},
	}); err == nil {
		t.Error("zero values are accepted")
	}
}

func TestSegments(t *testing.T) {
	for _, c := range []struct{ value, prefix, separated string }{
		{"/", "/", ""},
		{"//", "/", ""},
		{"/a", "", "/a"},
		{"/a/", "", "/a"},
		{"/a/b//", "", "/a/b"},
	} {
		m, err := routeMatch(ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathSegments, Value: c.value}})
		if err != nil {
			t.Errorf("%s: %v", c.value, err)
			continue
		}
		if err := m.ValidateAll(); err != nil {
			t.Errorf("%s: %v", c.value, err)
		}
		if m.GetPrefix() != c.prefix || m.GetPathSeparatedPrefix() != c.separated {
			t.Errorf("%s: prefix %q, separated %q; want %q, %q", c.value, m.GetPrefix(), m.GetPathSeparatedPrefix(), c.prefix, c.separated)
		}
	}
	for _, value := range []string{"", "a", "/a?b", "/a#b"} {
		if _, err := routeMatch(ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathSegments, Value: value}}); err == nil {
			t.Errorf("%q is accepted", value)
		}
	}
}

func TestNegativeDurationsAreRefused(t *testing.T) {
	r := goodRoute()
	r.Forward.Timeout = -time.Second
	if _, err := route(&r, namesOf(&ir.Proxy{Clusters: []ir.Cluster{{Name: "a"}}})); err == nil || !strings.Contains(err.Error(), "timeout is -1s") {
		t.Errorf("error is %v, want one about the timeout", err)
	}
}

// TestLongBody covers Envoy's limit on direct responses, for which it would refuse the whole table.
func TestLongBody(t *testing.T) {
	r, err := routeConfig(&ir.RouteConfig{Name: "r", VirtualHosts: []ir.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []ir.Route{
		{Name: "long", Direct: &ir.DirectResponse{Status: 200, Body: strings.Repeat("x", 5000)}},
	}}}}, &known{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(printed(t, []*Resource{r})), `"max_direct_response_body_size_bytes": 5000`) {
		t.Error("the limit is not raised")
	}
}

// TestPseudoHeadersAreRefused covers headers for which Envoy would refuse the whole table.
func TestPseudoHeadersAreRefused(t *testing.T) {
	for _, name := range []string{":path", "Host"} {
		for _, change := range []ir.HeaderChange{
			{Set: []ir.Header{{Name: name}}}, {Add: []ir.Header{{Name: name}}}, {Remove: []string{name}},
		} {
			if _, _, err := headers(change); err == nil {
				t.Errorf("%+v is accepted", change)
			}
		}
	}
}

func TestSecretsStaySecret(t *testing.T) {
	const key = "very-secret-key"
	good := &ir.Secret{Name: "s", Certificate: &ir.Certificate{Chain: []byte("chain"), Key: []byte(key)}}
	r, err := BuildSecret(good)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.String()+r.GoString(), key) {
		t.Error("the resource prints the key")
	}
	for _, bad := range []*ir.Secret{
		{Name: "s"},
		{Certificate: good.Certificate},
		{Name: "s", Bundle: []byte("b"), Certificate: good.Certificate},
		{Name: "s", Certificate: &ir.Certificate{Key: []byte(key)}},
	} {
		_, err := BuildSecret(bad)
		if err == nil {
			t.Errorf("%v is accepted", bad)
		} else if strings.Contains(err.Error(), key) {
			t.Errorf("the error for %v prints the key", bad)
		}
	}
}

// BenchmarkBuild is a gateway with a thousand routes to a hundred clusters.
func BenchmarkBuild(b *testing.B) {
	p := &ir.Proxy{}
	for i := range 100 {
		name := fmt.Sprintf("c%d", i)
		p.Clusters = append(p.Clusters, ir.Cluster{Name: name, Protocol: ir.HTTP2, EndpointsName: name})
		host := ir.VirtualHost{Name: name, Domains: []string{name + ".example.com"}}
		for n := range 10 {
			host.Routes = append(host.Routes, ir.Route{
				Name:    fmt.Sprintf("r%d", n),
				Match:   ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathSegments, Value: fmt.Sprintf("/p%d", n)}},
				Forward: &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: name, Weight: 1}}},
				Filters: ir.Filters{Authorization: &ir.Authorization{Rules: []ir.AuthorizationRule{{Name: "r", Allow: []ir.TextMatch{{Kind: ir.TextExact, Value: "spiffe://a/b"}}}}}},
			})
		}
		if len(p.Routes) == 0 {
			p.Routes = []ir.RouteConfig{{Name: "all"}}
		}
		p.Routes[0].VirtualHosts = append(p.Routes[0].VirtualHosts, host)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(p); err != nil {
			b.Fatal(err)
		}
	}
}

// A filter that a route turns on and its listener doesn't have would be passed over by Envoy without a word.
func TestBareListenerTakesNoFilters(t *testing.T) {
	p := &ir.Proxy{
		Listeners: []ir.Listener{{Name: "out", Address: "127.0.0.1", Port: 80, Direction: ir.Outbound, Chains: []ir.FilterChain{{Name: "http",
			HTTP: &ir.HTTPConnection{StatPrefix: "out", RouteConfig: "out", Bare: true}}}}},
		Routes:   []ir.RouteConfig{{Name: "out", VirtualHosts: []ir.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []ir.Route{goodRoute()}}}}},
		Clusters: []ir.Cluster{{Name: "a", Protocol: ir.HTTP1, Static: &ir.Endpoint{Address: "127.0.0.1", Port: 81}, ConnectTimeout: time.Second}},
	}
	built, err := Build(p)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(printed(t, built.Listeners)); strings.Count(text, `"disabled": true`) != 0 || !strings.Contains(text, "envoy.filters.http.router") || len(built.Extensions) != 0 {
		t.Errorf("a bare listener is\n%s\nwith %d extensions", text, len(built.Extensions))
	}
	p.Routes[0].VirtualHosts[0].Routes[0].Filters.CORS = &ir.CORS{}
	if _, err := Build(p); err == nil || !strings.Contains(err.Error(), `route "`) || !strings.Contains(err.Error(), "its listener has none") {
		t.Errorf("error is %v, want one about the filter", err)
	}
}
