package xds

import (
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
)

func templated(change ...ir.Modification) *ir.Proxy {
	return &ir.Proxy{Kind: ir.Sidecar, Name: "p",
		Listeners: []ir.Listener{{Name: "l", Address: "10.0.0.1", Port: 80, Direction: ir.Inbound,
			Chains: []ir.FilterChain{{Name: "c", TCP: &ir.TCPProxy{StatPrefix: "s", Clusters: []ir.WeightedCluster{{Cluster: "workload", Weight: 1}}}}}}},
		Clusters: []ir.Cluster{{Name: "workload", Protocol: ir.TCP, Static: &ir.Endpoint{Address: "127.0.0.1", Port: 1}}},
		Template: &ir.Template{From: "ProxyTemplate default/t", Modifications: change},
	}
}

// TestTemplatesOutsideOfTheSchema holds that nothing which Envoy's schema refuses leaves Build, however deep it lies, and that the
// message names the template and what of it is wrong.
func TestTemplatesOutsideOfTheSchema(t *testing.T) {
	const head = "ProxyTemplate default/t: "
	for _, c := range []struct {
		name string
		set  func(*ir.Template)
		want []string
	}{
		{"unknown field", func(t *ir.Template) {
			t.Modifications = []ir.Modification{{Target: ir.TargetCluster, Operation: "patch", JSON: `{"connect_timeot":"1s"}`}}
		}, []string{head + "modification 0: not as Envoy's schema has it", "connect_timeot"}},
		{"unknown type", func(t *ir.Template) {
			t.Resources = []ir.TemplateResource{{Name: "x", JSON: `{"@type":"type.googleapis.com/envoy.nothing.v3.Such"}`}}
		}, []string{head + `resource "x": `, "envoy.nothing.v3.Such"}},
		{"two names", func(t *ir.Template) {
			t.Resources = []ir.TemplateResource{{Name: "x", JSON: `{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","name":"y"}`}}
		}, []string{`resource "x": the resource calls itself "y"`}},
		{"no resource for proxies", func(t *ir.Template) {
			t.Resources = []ir.TemplateResource{{Name: "x", JSON: `{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret","name":"x"}`}}
		}, []string{"can't be added"}},
		{"deep within", func(t *ir.Template) {
			t.Modifications = []ir.Modification{{Target: ir.TargetNetworkFilter, Operation: "addFirst", JSON: `{"name":"f","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"}}`}}
		}, []string{head + `what becomes of listener "l": `, "connection_limit.v3.ConnectionLimit", "StatPrefix"}},
		{"a rule of Envoy", func(t *ir.Template) {
			t.Patches = []ir.Patch{{Type: ir.PatchCluster, Merge: `{"connect_timeout":"0s"}`}}
		}, []string{head + `what becomes of cluster "workload": `, "ConnectTimeout"}},
		{"a test that fails", func(t *ir.Template) {
			t.Patches = []ir.Patch{{Type: ir.PatchCluster, Operations: `[{"op":"test","path":"/type","value":"EDS"}]`}}
		}, []string{head + `patch 0: cluster "workload": `, "test"}},
		{"another name", func(t *ir.Template) {
			t.Patches = []ir.Patch{{Type: ir.PatchListener, Merge: `{"name":"m"}`}}
		}, []string{`what becomes of listener "l": it is called "m" then`}},
		{"endless copies", func(t *ir.Template) {
			t.Patches = []ir.Patch{{Type: ir.PatchCluster, Operations: `[{"op":"add","path":"/a","value":["` + strings.Repeat("x", 1000) + `"]},` +
				strings.Repeat(`{"op":"copy","from":"/a","path":"/a/-"},`, 40) + `{"op":"remove","path":"/a"}]`}}
		}, []string{head + "patch 0: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := templated()
			c.set(p.Template)
			rs, err := Build(p)
			if err == nil || rs != nil {
				t.Fatalf("it was built: %v", rs)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if _, again := Build(p); again == nil || again.Error() != err.Error() {
				t.Errorf("another time it says %v", again)
			}
		})
	}
}

// TestTemplateLeavesTheRestAlone: what doesn't match is shared with proxies that have no template.
func TestTemplateLeavesTheRestAlone(t *testing.T) {
	plain := templated()
	plain.Template = nil
	want, err := Build(plain)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Build(templated(ir.Modification{Target: ir.TargetCluster, Operation: "patch", Origin: ir.OriginOutbound, JSON: `{"connect_timeout":"9s"}`},
		ir.Modification{Target: ir.TargetHTTPFilter, Operation: "remove", Name: "envoy.filters.http.cors"}))
	if err != nil {
		t.Fatal(err)
	}
	if got.Clusters[0].Version != want.Clusters[0].Version || got.Listeners[0].Version != want.Listeners[0].Version {
		t.Error("resources that the template doesn't match differ")
	}
	got, err = Build(templated(ir.Modification{Target: ir.TargetCluster, Operation: "remove", Origin: ir.OriginInbound}))
	if err != nil || len(got.Clusters) != 0 {
		t.Errorf("clusters %v, %v", got, err)
	}
}

// A template of routes goes with filters that a route turns on as they are, and routes behind others stay that.
func TestTemplateOfRoutes(t *testing.T) {
	p := templated()
	p.Listeners[0].Chains[0] = ir.FilterChain{Name: "c", HTTP: &ir.HTTPConnection{StatPrefix: "s", RouteConfig: "r"}}
	p.Routes = []ir.RouteConfig{{Name: "r", Behind: true, VirtualHosts: []ir.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []ir.Route{
		{Name: "web", Filters: ir.Filters{GRPCWeb: &ir.GRPCWeb{}}, Forward: &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: "workload", Weight: 1}}}},
	}}}}}
	p.Template.Patches = []ir.Patch{{Type: ir.PatchRoute, Merge: `{"response_headers_to_remove":["x-gone"]}`}}
	rs, err := Build(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(rs.Routes) != 1 || !rs.Routes[0].Behind || !strings.Contains(string(rs.Routes[0].Any().GetValue()), "x-gone") {
		t.Errorf("routes %v", rs.Routes)
	}
}
