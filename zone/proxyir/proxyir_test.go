package proxyir_test

import (
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

type tags = map[string]string

func service(name string) tags { return tags{resource.TagService: name} }

func sel(t tags) []*meshv1.Selector { return []*meshv1.Selector{{Match: t}} }

func res(kind, name string, spec proto.Message) *resource.Resource {
	return &resource.Resource{Key: resource.Key{Kind: kind, Mesh: "default", Name: name}, Spec: spec}
}

func mesh(mode meshv1.Mesh_Mode) *meshv1.Mesh {
	return &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{EnabledBackend: "ca", Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "ca", Mode: mode}}}}
}

func input(m *meshv1.Mesh, n *meshv1.Dataplane_Networking, policies map[string][]*resource.Resource) proxyir.Input {
	n.Address = "10.0.0.1"
	return proxyir.Input{Mesh: m, MeshName: "default", Zone: "east", Domain: "mesh.example.com", Name: "p", Policies: lists(policies),
		Dataplane: &meshv1.Dataplane{Networking: n}, Protocols: tags{"echo": "http", "grpc": "grpc"}}
}

func lists(policies map[string][]*resource.Resource) policy.ByKind {
	out := policy.ByKind{}
	for kind, list := range policies {
		out[kind] = policy.NewList(list...)
	}
	return out
}

func sidecar() *meshv1.Dataplane_Networking {
	return &meshv1.Dataplane_Networking{
		Inbound: []*meshv1.Dataplane_Inbound{
			{Port: 80, ServicePort: 8080, Tags: tags{resource.TagService: "web", resource.TagProtocol: "http"}},
			{Port: 81, Tags: service("db")},
		},
		Outbound: []*meshv1.Dataplane_Outbound{{Port: 9000, Tags: service("echo")}, {Port: 9001, Tags: service("raw")}, {Port: 9002, Tags: service("grpc")}},
	}
}

func sidecarPolicies() map[string][]*resource.Resource {
	every := sel(tags{resource.TagService: "*"})
	return map[string][]*resource.Resource{
		"TrafficPermission": {
			res("TrafficPermission", "a", &meshv1.TrafficPermission{Sources: every, Destinations: every}),
			res("TrafficPermission", "b", &meshv1.TrafficPermission{Sources: sel(service("bad")), Destinations: every,
				Conf: &meshv1.TrafficPermission_Conf{Action: meshv1.TrafficPermission_ACTION_DENY}}),
		},
		"TrafficRoute": {
			res("TrafficRoute", "all", &meshv1.TrafficRoute{Sources: every, Destinations: every, Conf: &meshv1.TrafficRoute_Conf{}}),
			res("TrafficRoute", "echo", &meshv1.TrafficRoute{Sources: every, Destinations: sel(service("echo")), Conf: &meshv1.TrafficRoute_Conf{
				Split: []*meshv1.TrafficRoute_Split{{Weight: 9, Destination: tags{resource.TagService: "echo", "version": "1"}}, {Weight: 1, Destination: tags{resource.TagService: "echo", "version": "2"}}},
				Http: []*meshv1.TrafficRoute_HttpRule{{
					Match:       &meshv1.TrafficRoute_HttpMatch{Path: &meshv1.StringMatcher{Matcher: &meshv1.StringMatcher_Prefix{Prefix: "/new"}}},
					Modify:      &meshv1.TrafficRoute_Modify{RequestHeaders: &meshv1.HeaderChange{Set: []*meshv1.HeaderValue{{Name: "x-a", Value: "b"}}}},
					Destination: tags{resource.TagService: "echo", "version": "2"},
				}},
			}}),
		},
		"Retry": {
			res("Retry", "r", &meshv1.Retry{Sources: every, Destinations: every, Conf: &meshv1.Retry_Conf{Http: &meshv1.Retry_Http{}, Tcp: &meshv1.Retry_Tcp{MaxConnectAttempts: 3}}}),
		},
	}
}

func accepted(t *testing.T, r *proxyir.Result, err error) (*ir.Proxy, []ingress.Destination) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := xds.Build(r.Proxy); err != nil {
		t.Fatal(err)
	}
	return r.Proxy, r.Destinations
}

// facing is a gateway without the ways by which caches and compositions ask, which each has.
func facing(p *ir.Proxy) *ir.Proxy {
	own := func(name string) bool { return name == "cache" || name == "composer" }
	out := *p
	out.Listeners = slices.DeleteFunc(slices.Clone(p.Listeners), func(l ir.Listener) bool { return own(l.Name) })
	out.Routes = slices.DeleteFunc(slices.Clone(p.Routes), func(c ir.RouteConfig) bool { return own(c.Name) })
	out.Clusters = slices.DeleteFunc(slices.Clone(p.Clusters), func(c ir.Cluster) bool { return own(c.Name) })
	return &out
}

// The listeners by which caches and compositions ask don't come and go with those, as connections would end.
func TestWaysOfCachesAndCompositionsStay(t *testing.T) {
	without, err := proxyir.Gateway(gatewayInput())
	before, _ := accepted(t, without, err)
	in := gatewayInput()
	in.Policies["MeshGatewayRoute"].Put(func() *resource.Resource {
		r := route("regex", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/a"))
		rule := resource.Spec[*meshv1.MeshGatewayRoute](r).GetConf().GetHttp().GetRules()[0]
		rule.Filters = []*meshv1.Filter{{Filter: &meshv1.Filter_Cache{Cache: &meshv1.Cache{}}}}
		return r
	}())
	in.Policies["Composition"] = policy.NewList(res("Composition", "sum", &meshv1.Composition{Selectors: sel(service("edge")), Conf: &meshv1.Composition_Conf{
		Path: "/sum", Calls: []*meshv1.Composition_Call{{Name: "one", Destination: service("echo"), Path: "/one"}},
	}}))
	with, err := proxyir.Gateway(in)
	after, _ := accepted(t, with, err)
	if !reflect.DeepEqual(before.Listeners, after.Listeners) || !reflect.DeepEqual(before.Clusters, after.Clusters) {
		t.Errorf("listeners %v and clusters %v, before %v and %v", after.Listeners, after.Clusters, before.Listeners, before.Clusters)
	}
	if len(facing(after).Listeners) != len(after.Listeners)-2 {
		t.Errorf("listeners %v", after.Listeners)
	}
	// A gateway that takes no HTTP has none of it.
	resource.Spec[*meshv1.MeshGateway](in.Policies["MeshGateway"].All()[0]).Conf.Listeners = nil
	bare, err := proxyir.Gateway(in)
	if p, _ := accepted(t, bare, err); len(p.Listeners)+len(p.Routes) > 0 {
		t.Errorf("without listeners it has %v %v", p.Listeners, p.Routes)
	}
}

func TestSidecarModes(t *testing.T) {
	for _, c := range []struct {
		name    string
		mesh    *meshv1.Mesh
		tls     []bool
		secrets []string
	}{
		{"without mTLS", nil, []bool{false}, nil},
		{"strict", mesh(meshv1.Mesh_MODE_STRICT), []bool{true}, []string{"bundle", "svid:db", "svid:web"}},
		{"strict by default", mesh(meshv1.Mesh_MODE_UNSPECIFIED), []bool{true}, []string{"bundle", "svid:db", "svid:web"}},
		{"permissive", mesh(meshv1.Mesh_MODE_PERMISSIVE), []bool{true, false}, []string{"bundle", "svid:db", "svid:web"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := proxyir.Sidecar(input(c.mesh, sidecar(), sidecarPolicies()))
			p, destinations := accepted(t, r, err)
			for _, l := range p.Listeners[:2] {
				var got []bool
				for _, chain := range l.Chains {
					got = append(got, chain.TLS != nil)
					if chain.TCP != nil && (chain.TCP.Authorization != "") != (chain.TLS != nil) {
						t.Errorf("%s %s: authorization %q", l.Name, chain.Name, chain.TCP.Authorization)
					}
				}
				if !slices.Equal(got, c.tls) {
					t.Errorf("%s: TLS of chains %v, want %v", l.Name, got, c.tls)
				}
			}
			for _, r := range p.Routes {
				if a := r.VirtualHosts[0].Routes[0].Filters.Authorization; r.Name == "inbound:10.0.0.1:80:mtls" && (a == nil || len(a.Rules) == 0) {
					t.Error("mTLS chain authorizes nobody or everybody")
				}
			}
			if !slices.Equal(p.Secrets, c.secrets) {
				t.Errorf("secrets %v, want %v", p.Secrets, c.secrets)
			}
			if len(destinations) != 4 {
				t.Errorf("destinations %v, want echo twice, raw and grpc", destinations)
			}
			for _, cluster := range p.Clusters {
				if (cluster.TLS != nil) != (c.mesh != nil && cluster.Static == nil) {
					t.Errorf("cluster %s: TLS %v", cluster.Name, cluster.TLS)
				}
				if cluster.TLS != nil && cluster.Protocol == ir.HTTP2 && cluster.TLS.SANs[0].Value != `spiffe://[^./]+\.default\.mesh\.example\.com/grpc` {
					t.Errorf("SAN %q", cluster.TLS.SANs[0].Value)
				}
			}
		})
	}
}

func TestClientWithoutIdentityIsRefused(t *testing.T) {
	n := sidecar()
	n.Inbound = nil
	if _, err := proxyir.Sidecar(input(mesh(meshv1.Mesh_MODE_STRICT), n, nil)); err == nil {
		t.Fatal("a sidecar without identity got clusters with mTLS")
	}
}

func path(kind meshv1.MatchType, value string) *meshv1.RequestMatch {
	return &meshv1.RequestMatch{Path: &meshv1.PathMatch{Match: kind, Value: value}}
}

func route(name string, hostnames []string, matches ...*meshv1.RequestMatch) *resource.Resource {
	return res("MeshGatewayRoute", name, &meshv1.MeshGatewayRoute{Selectors: sel(service("edge")), Conf: &meshv1.MeshGatewayRoute_Conf{Http: &meshv1.MeshGatewayRoute_Http{
		Hostnames: hostnames, Rules: []*meshv1.MeshGatewayRoute_Rule{{Matches: matches, Backends: []*meshv1.MeshGatewayRoute_Backend{{Destination: service("echo")}}}},
	}}})
}

func gatewayInput() proxyir.Input {
	get := path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/a")
	get.Method = "GET"
	tls := &meshv1.MeshGateway_Tls{Certificates: []*meshv1.MeshGateway_Certificate{{Secret: "web"}}}
	return input(mesh(meshv1.Mesh_MODE_STRICT), &meshv1.Dataplane_Networking{Gateway: &meshv1.Dataplane_Gateway{Tags: service("edge")}}, map[string][]*resource.Resource{
		"MeshGateway": {res("MeshGateway", "g", &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{Listeners: []*meshv1.MeshGateway_Listener{
			{Port: 80, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP},
			{Port: 80, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP, Hostname: "*.example.com"},
			{Port: 443, Protocol: meshv1.MeshGateway_PROTOCOL_HTTPS, Hostname: "api.example.com", Tls: tls},
			{Port: 443, Protocol: meshv1.MeshGateway_PROTOCOL_HTTPS, Tls: tls},
		}}})},
		"MeshGatewayRoute": {
			route("regex", nil, path(meshv1.MatchType_MATCH_TYPE_REGEX, "/r.*")),
			route("short", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/a")),
			route("get", nil, get),
			route("long", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/a/b")),
			route("exact", nil, path(meshv1.MatchType_MATCH_TYPE_EXACT, "/z")),
			route("api", []string{"API.example.com"}, path(meshv1.MatchType_MATCH_TYPE_EXACT, "/api")),
			route("other", []string{"other.org"}),
		},
	})
}

func TestGatewayPrecedenceAndHostnames(t *testing.T) {
	r, err := proxyir.Gateway(gatewayInput())
	p, destinations := accepted(t, r, err)
	p = facing(p)
	got := map[string][]string{}
	for _, c := range p.Routes {
		for _, h := range c.VirtualHosts {
			for _, r := range h.Routes {
				got[c.Name+" "+h.Name] = append(got[c.Name+" "+h.Name], r.Name)
			}
		}
	}
	all := []string{"exact/0/0", "long/0/0", "get/0/0", "short/0/0", "regex/0/0", "not-found"}
	api := append([]string{"api/0/0"}, all...)
	other := []string{"exact/0/0", "long/0/0", "get/0/0", "short/0/0", "other/0/0", "regex/0/0", "not-found"}
	want := map[string][]string{
		"gateway:80 *": all, "gateway:80 *.example.com": all, "gateway:80 api.example.com": api, "gateway:80 other.org": other,
		"gateway:443:* *": all, "gateway:443:* other.org": other, "gateway:443:api.example.com api.example.com": api,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if len(p.Listeners) != 2 || len(destinations) != 1 || !slices.Equal(p.Secrets, []string{"bundle", "secret:web", "svid:edge"}) {
		t.Errorf("listeners %d, destinations %v, secrets %v", len(p.Listeners), destinations, p.Secrets)
	}
}

// twice adds two policies of each kind that match equally well, so that only their names tell which counts.
func twice(policies policy.ByKind, own string) {
	every, mine := sel(service("*")), sel(service(own))
	header := func(value string) *meshv1.Filter {
		return &meshv1.Filter{Filter: &meshv1.Filter_RequestHeader{RequestHeader: &meshv1.HeaderChange{Set: []*meshv1.HeaderValue{{Name: "x-from", Value: value}}}}}
	}
	for i, name := range []string{"one", "two"} {
		n := uint32(i + 1)
		add := func(kind string, spec proto.Message) { policies.Put(res(kind, name, spec)) }
		limits := []*meshv1.RateLimit_Rule{limitRule(n, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/a")), limitRule(n + 5)}
		add("FilterPolicy", &meshv1.FilterPolicy{Selectors: mine, Conf: &meshv1.FilterPolicy_Conf{Filters: []*meshv1.Filter{header(name),
			{Filter: &meshv1.Filter_BodySize{BodySize: &meshv1.BodySize{Max: fmt.Sprint(n)}}}}}})
		if own == "edge" {
			add("Composition", &meshv1.Composition{Selectors: mine, Conf: &meshv1.Composition_Conf{Path: "/sum/{id}", Filters: []*meshv1.Filter{header(name)},
				Calls: []*meshv1.Composition_Call{{Name: name, Destination: service("echo"), Path: "/" + name}}}})
			add("RateLimit", &meshv1.RateLimit{Selectors: mine, Conf: &meshv1.RateLimit_Conf{Http: limits}})
		} else {
			add("RateLimit", &meshv1.RateLimit{Sources: every, Destinations: mine, Conf: &meshv1.RateLimit_Conf{Http: limits}})
		}
		add("FaultInjection", &meshv1.FaultInjection{Sources: every, Destinations: mine,
			Conf: &meshv1.FaultInjection_Conf{Http: []*meshv1.Fault{{Abort: &meshv1.Fault_Abort{HttpStatus: 500 + n}}}}})
		add("CircuitBreaker", &meshv1.CircuitBreaker{Sources: every, Destinations: every,
			Conf: &meshv1.CircuitBreaker_Conf{Thresholds: &meshv1.CircuitBreaker_Thresholds{MaxConnections: &n}}})
		add("HealthCheck", &meshv1.HealthCheck{Sources: every, Destinations: every, Conf: &meshv1.HealthCheck_Conf{
			Interval: durationpb.New(time.Duration(n) * time.Second), Timeout: durationpb.New(time.Second), UnhealthyThreshold: &n, HealthyThreshold: &n, Tcp: &meshv1.HealthCheck_Tcp{}}})
		add("Timeout", &meshv1.Timeout{Sources: every, Destinations: every, Conf: &meshv1.Timeout_Conf{ConnectTimeout: durationpb.New(time.Duration(n) * time.Second)}})
		add("TrafficLog", &meshv1.TrafficLog{Sources: every, Destinations: every, Conf: &meshv1.TrafficLog_Conf{File: &meshv1.LogFile{Path: fmt.Sprintf("/log%d", n)},
			Format: &meshv1.LogFormat{Json: map[string]string{"b": "%DURATION%", "a": "%KUMA_DESTINATION_SERVICE%", "c": fmt.Sprint(n)}}}})
		traced := &meshv1.TrafficTrace{Selectors: mine, Conf: &meshv1.TrafficTrace_Conf{Backend: &meshv1.TraceBackend{Datadog: &meshv1.DatadogCollector{Address: fmt.Sprintf("dd%d", n)}}}}
		add("MeshTrafficTrace", traced)
		add("TrafficTrace", proto.CloneOf(traced))
		add("ProxyTemplate", &meshv1.ProxyTemplate{Selectors: mine, Conf: &meshv1.ProxyTemplate_Conf{Modifications: []*meshv1.ProxyTemplate_Modification{{
			Modification: &meshv1.ProxyTemplate_Modification_Cluster{Cluster: &meshv1.ProxyTemplate_Cluster{Operation: "patch", Value: fmt.Sprintf("connectTimeout: %ds", n)}}}}}})
		add("ExternalService", &meshv1.ExternalService{Tags: service("raw"), Networking: &meshv1.ExternalService_Networking{Address: fmt.Sprintf("10.1.0.%d:80", n)}})
	}
}

// TestOrderOfPoliciesDoesNotMatter holds it for the bytes that an Envoy is sent, too.
func TestOrderOfPoliciesDoesNotMatter(t *testing.T) {
	side := input(mesh(meshv1.Mesh_MODE_PERMISSIVE), sidecar(), sidecarPolicies())
	edge := gatewayInput()
	side.LogPipe, edge.LogPipe = "/dev/fd/3", "/dev/fd/3"
	twice(side.Policies, "web")
	twice(edge.Policies, "edge")
	edge.Policies["TrafficPermission"] = side.Policies["TrafficPermission"]
	outside := route("outside", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/outside"))
	resource.Spec[*meshv1.MeshGatewayRoute](outside).Conf.Http.Rules[0].Backends[0].Destination = service("raw")
	edge.Policies["MeshGatewayRoute"].Put(outside)
	random := rand.New(rand.NewSource(1))
	for _, c := range []struct {
		in    proxyir.Input
		build func(proxyir.Input) (*proxyir.Result, error)
	}{{side, proxyir.Sidecar}, {edge, proxyir.Gateway}} {
		want, err := c.build(c.in)
		accepted(t, want, err)
		if len(want.Rejected) > 0 {
			t.Errorf("rejected %v", want.Rejected)
		}
		wantSent, err := xds.Build(want.Proxy)
		if err != nil {
			t.Fatal(err)
		}
		used := map[string]bool{}
		for _, u := range want.Uses {
			used[u.Key.Kind] = true
		}
		for kind := range c.in.Policies {
			// These two are for those who take requests; TrafficTrace counts together with MeshTrafficTrace, of which one comes first.
			if !used[kind] && kind != "TrafficTrace" && !(want.Proxy.Kind == ir.Gateway && (kind == "FaultInjection" || kind == "TrafficPermission")) {
				t.Errorf("no %s is used", kind)
			}
		}
		for range 20 {
			for kind, list := range c.in.Policies {
				all := slices.Clone(list.All())
				random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
				c.in.Policies[kind] = policy.NewList(all...)
			}
			got, err := c.build(c.in)
			accepted(t, got, err)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s depends on the order of policies", want.Proxy.Kind)
			}
			sent, err := xds.Build(got.Proxy)
			if err != nil || !reflect.DeepEqual(sent, wantSent) {
				t.Fatalf("what %s is sent depends on the order of policies: %v", want.Proxy.Kind, err)
			}
		}
	}
}

// broken routes name no service, so nothing can be reached by them.
func broken() (*meshv1.TrafficRoute, *resource.Resource) {
	r := route("broken", nil, path(meshv1.MatchType_MATCH_TYPE_EXACT, "/broken"))
	rule := resource.Spec[*meshv1.MeshGatewayRoute](r).Conf.Http.Rules[0]
	rule.Backends = []*meshv1.MeshGatewayRoute_Backend{{Destination: service("only-here")}, {Destination: tags{"version": "1"}}, {Destination: tags{}}}
	return &meshv1.TrafficRoute{Sources: sel(tags{resource.TagService: "web"}), Destinations: sel(service("echo")), Conf: &meshv1.TrafficRoute_Conf{
		Split: []*meshv1.TrafficRoute_Split{{Weight: 1, Destination: service("only-here")}, {Weight: 1, Destination: tags{"version": "1"}}},
	}}, r
}

func TestOneBadRouteCostsItselfOnly(t *testing.T) {
	tr, mgr := broken()
	side, edge := input(mesh(meshv1.Mesh_MODE_STRICT), sidecar(), sidecarPolicies()), gatewayInput()
	wantSide, err := proxyir.Sidecar(side)
	accepted(t, wantSide, err)
	wantEdge, err := proxyir.Gateway(edge)
	accepted(t, wantEdge, err)
	// The most specific of all, so that it would decide.
	side.Policies["TrafficRoute"].Put(res("TrafficRoute", "broken", tr))
	edge.Policies["MeshGatewayRoute"].Put(mgr)
	gotSide, err := proxyir.Sidecar(side)
	accepted(t, gotSide, err)
	gotEdge, err := proxyir.Gateway(edge)
	accepted(t, gotEdge, err)
	// What the broken rule matches must not fall to another.
	takeClosed(t, gotEdge, "broken/0/0", mgr.Key, 7)
	for _, c := range []struct {
		got, want *proxyir.Result
		key       resource.Key
		reasons   int
	}{{gotSide, wantSide, resource.Key{Kind: "TrafficRoute", Mesh: "default", Name: "broken"}, 1}, {gotEdge, wantEdge, mgr.Key, 2}} {
		if !reflect.DeepEqual(c.got.Proxy, c.want.Proxy) || !reflect.DeepEqual(c.got.Destinations, c.want.Destinations) {
			t.Errorf("%s left something behind", c.key)
		}
		if !reflect.DeepEqual(c.got.Uses, c.want.Uses) {
			t.Errorf("uses %v, want %v", c.got.Uses, c.want.Uses)
		}
		if len(c.got.Rejected) != 1 || c.got.Rejected[0].Key != c.key || strings.Count(c.got.Rejected[0].Reason, "needs the tag") != c.reasons {
			t.Errorf("rejected %v", c.got.Rejected)
		}
	}
}

// takeClosed takes the routes of a name out of a gateway, which must be closed in so many virtual hosts, and the uses of their policy.
func takeClosed(t *testing.T, r *proxyir.Result, name string, key resource.Key, hosts int) {
	t.Helper()
	for _, table := range r.Proxy.Routes {
		for i := range table.VirtualHosts {
			host := &table.VirtualHosts[i]
			host.Routes = slices.DeleteFunc(host.Routes, func(route ir.Route) bool {
				if route.Name != name {
					return false
				}
				if hosts--; route.Direct == nil || route.Direct.Status != 503 || route.Forward != nil {
					t.Errorf("%s %s: %s is open: %+v", table.Name, host.Name, name, route)
				}
				return true
			})
		}
	}
	if hosts != 0 {
		t.Errorf("%s is missing in %d virtual hosts", name, hosts)
	}
	r.Uses = slices.DeleteFunc(r.Uses, func(u proxyir.Use) bool { return u.Key == key })
}

// TestWhatCannotBeBuiltKeepsItsPlace holds that neither a rule nor a composition that can't be built leaves its requests to a wider
// route, and that the other rules of its route stay as they are.
func TestWhatCannotBeBuiltKeepsItsPlace(t *testing.T) {
	prefix := meshv1.MatchType_MATCH_TYPE_PREFIX
	in := gatewayInput()
	mixed := route("mixed", nil, path(prefix, "/admin"))
	http := resource.Spec[*meshv1.MeshGatewayRoute](mixed).Conf.Http
	http.Rules = append(http.Rules, &meshv1.MeshGatewayRoute_Rule{Matches: []*meshv1.RequestMatch{path(prefix, "/nowhere")},
		Backends: []*meshv1.MeshGatewayRoute_Backend{{Destination: tags{"version": "1"}}}})
	refused := route("refused", nil, path(prefix, "/refused"))
	in.Policies["MeshGatewayRoute"] = policy.NewList(mixed, refused, route("wide", nil, path(prefix, "/")))
	unheard := &meshv1.Filter{Filter: &meshv1.Filter_RateLimit{RateLimit: &meshv1.RequestLimit{Requests: 1, Interval: durationpb.New(1e9),
		Shared: &meshv1.SharedLimit{Service: &meshv1.Target{}}}}}
	in.Policies["Composition"] = policy.NewList(res("Composition", "sum", &meshv1.Composition{Selectors: sel(service("edge")), Conf: &meshv1.Composition_Conf{
		Path: "/sum/{id}", Filters: []*meshv1.Filter{unheard},
		Calls: []*meshv1.Composition_Call{{Name: "one", Destination: service("echo"), Path: "/one"}},
	}}))
	in.Closed = map[resource.Key]bool{refused.Key: true}
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	got := map[string]uint32{}
	for _, route := range p.Routes[0].VirtualHosts[0].Routes {
		status := uint32(0)
		if route.Direct != nil {
			status = route.Direct.Status
		}
		got[route.Name] = status
	}
	want := map[string]uint32{"mixed/0/0": 0, "mixed/1/0": 503, "refused/0/0": 503, "composition/sum": 503, "wide/0/0": 0, "not-found": 404}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(r.Rejected) != 2 || r.Rejected[0].Key.Name != "sum" || r.Rejected[1].Key != mixed.Key || !strings.HasPrefix(r.Rejected[1].Reason, "rule 1: ") {
		t.Errorf("rejected %v", r.Rejected)
	}
}

func TestListenerWithoutItsSecretIsLeftOut(t *testing.T) {
	in := gatewayInput()
	in.HasSecret = func(string) bool { return false }
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	p = facing(p)
	if len(p.Listeners) != 1 || p.Listeners[0].Port != 80 {
		t.Errorf("listeners %v", p.Listeners)
	}
	if len(r.Rejected) != 2 || r.Rejected[0].Key.Kind != "MeshGateway" || !strings.Contains(r.Rejected[0].Reason, "Secret default/web is not there") {
		t.Errorf("rejected %v", r.Rejected)
	}
}

func TestPoliciesThatArePassedOver(t *testing.T) {
	in := input(nil, sidecar(), sidecarPolicies())
	in.Without = map[resource.Key]bool{{Kind: "TrafficRoute", Mesh: "default", Name: "echo"}: true}
	r, err := proxyir.Sidecar(in)
	_, destinations := accepted(t, r, err)
	if len(destinations) != 3 {
		t.Errorf("destinations %v, want echo, raw and grpc without subsets", destinations)
	}
	for _, u := range r.Uses {
		if u.Key.Name == "echo" {
			t.Errorf("uses %v", r.Uses)
		}
	}
}
