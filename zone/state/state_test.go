package state_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/state"
)

type tags = map[string]string

func service(name string) tags { return tags{resource.TagService: name} }

func sel(all ...tags) (out []*meshv1.Selector) {
	for _, t := range all {
		out = append(out, &meshv1.Selector{Match: t})
	}
	return out
}

func key(kind, name string) resource.Key {
	k, _ := resource.Lookup(kind)
	if k != nil && k.Global() {
		return resource.Key{Kind: kind, Name: name}
	}
	return resource.Key{Kind: kind, Mesh: "default", Name: name}
}

func rec(t testing.TB, kind, name string, spec proto.Message) *kdsv1.Record {
	t.Helper()
	k := key(kind, name)
	payload, err := resource.Marshal(&resource.Resource{Key: k, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return kds.NewRecord(k, payload)
}

func mesh(mode meshv1.Mesh_Mode) *meshv1.Mesh {
	return &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{EnabledBackend: "ca", Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "ca", Type: "builtin", Mode: mode}}}}
}

func sidecar(name, address string, outbounds ...string) state.Proxy {
	n := &meshv1.Dataplane_Networking{Address: address, Inbound: []*meshv1.Dataplane_Inbound{
		{Port: 8080, Tags: tags{resource.TagService: name, resource.TagProtocol: "http", "version": "1"}}}}
	for i, o := range outbounds {
		n.Outbound = append(n.Outbound, &meshv1.Dataplane_Outbound{Port: uint32(9000 + i), Tags: service(o)})
	}
	return state.Proxy{ID: "Dataplane/default/" + name + "-" + address, Mesh: "default", Name: name + "-" + address, Dataplane: &meshv1.Dataplane{Networking: n}}
}

func gateway() state.Proxy {
	return state.Proxy{ID: "Dataplane/default/edge", Mesh: "default", Name: "edge", Dataplane: &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{
		Address: "10.0.0.9", Gateway: &meshv1.Dataplane_Gateway{Type: meshv1.Dataplane_Gateway_TYPE_BUILTIN, Tags: service("edge")}}}}
}

func zoneIngress() state.Proxy {
	return state.Proxy{ID: "ZoneIngress/in", Name: "in", ZoneIngress: &meshv1.ZoneIngress{Networking: &meshv1.ZoneIngress_Networking{Address: "10.0.0.8", Port: 10001}}}
}

func remote(zone, address string) *meshv1.ZoneIngress {
	return &meshv1.ZoneIngress{Zone: zone, Networking: &meshv1.ZoneIngress_Networking{Address: address, Port: 10001}}
}

func available(zone, name string, count uint32) *federationv1.ServiceAvailability {
	return &federationv1.ServiceAvailability{Zone: zone, Service: name, TagSets: []*federationv1.TagSet{
		{Tags: tags{resource.TagService: name, resource.TagProtocol: "http"}, Count: count}}}
}

func gatewayRoute(to string) *meshv1.MeshGatewayRoute {
	return &meshv1.MeshGatewayRoute{Selectors: sel(service("edge")), Conf: &meshv1.MeshGatewayRoute_Conf{Http: &meshv1.MeshGatewayRoute_Http{
		Rules: []*meshv1.MeshGatewayRoute_Rule{{Backends: []*meshv1.MeshGatewayRoute_Backend{{Destination: service(to)}}}}}}}
}

func listeners(port uint32) *meshv1.MeshGateway {
	return &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{Listeners: []*meshv1.MeshGateway_Listener{
		{Port: port, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}}
}

func timeout(from, to string, seconds string) *meshv1.Timeout {
	return &meshv1.Timeout{Sources: sel(service(from)), Destinations: sel(service(to)), Conf: &meshv1.Timeout_Conf{}}
}

// settle builds all that is dirty, proxies first, and returns what was.
func settle(t *testing.T, s *state.State) (proxies, endpoints []string, d state.Dirty) {
	t.Helper()
	d = s.Take()
	for _, id := range d.Proxies {
		if _, err := s.BuildProxy(id); err != nil {
			t.Fatal(err)
		}
		proxies = append(proxies, short(id))
	}
	endpoints = append(d.Endpoints, s.TakeEndpoints()...)
	slices.Sort(endpoints)
	for i, name := range endpoints {
		if _, err := s.BuildEndpoints(name); err != nil {
			t.Fatal(err)
		}
		endpoints[i] = strings.Replace(name, ".default.mesh", "", 1)
	}
	for _, wrong := range state.AsIfBuiltWhole(s) {
		t.Error(wrong)
	}
	return proxies, endpoints, d
}

func short(id string) string { return id[strings.LastIndex(id, "/")+1:] }

// world is a zone with web (which calls echo), two echoes, a gateway that routes to echo, and an ingress; west offers echo.
func world(t *testing.T) *state.State {
	t.Helper()
	s := state.New("east", "")
	rejected := s.Apply([]*kdsv1.Record{
		rec(t, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT)),
		rec(t, "TrustBundle", "default", &federationv1.TrustBundle{Domain: "zoneforge", Roots: []string{"root"}}),
		rec(t, "MeshGateway", "edge", listeners(80)),
		rec(t, "MeshGatewayRoute", "echo", gatewayRoute("echo")),
		rec(t, "ServiceAvailability", "west.echo", available("west", "echo", 2)),
		rec(t, "ZoneIngress", "west.in", remote("west", "10.1.0.1")),
		rec(t, "ServiceAvailability", "east.echo", available("east", "echo", 9)),
		rec(t, "ZoneIngress", "east.in", remote("east", "10.0.0.8")),
	}, nil, false)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	for _, p := range []state.Proxy{sidecar("web", "10.0.0.1", "echo"), sidecar("echo", "10.0.0.2"), sidecar("echo", "10.0.0.3"), gateway(), zoneIngress()} {
		s.Register(p, true)
	}
	settle(t, s)
	return s
}

func TestDirtySets(t *testing.T) {
	const web, echo2, echo3, edge, in = "web-10.0.0.1", "echo-10.0.0.2", "echo-10.0.0.3", "edge", "in"
	up := func(t *testing.T, kind, name string, spec proto.Message) func(*state.State) {
		return func(s *state.State) {
			if r := s.Apply([]*kdsv1.Record{rec(t, kind, name, spec)}, nil, false); len(r) > 0 {
				t.Errorf("rejected %v", r)
			}
		}
	}
	down := func(kind, name string) func(*state.State) {
		return func(s *state.State) { s.Apply(nil, []resource.Key{key(kind, name)}, false) }
	}
	route := &meshv1.TrafficRoute{Sources: sel(service("web")), Destinations: sel(service("echo")), Conf: &meshv1.TrafficRoute_Conf{Destination: tags{resource.TagService: "echo", "version": "2"}}}
	limits := &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{{Requests: 1, Interval: durationpb.New(time.Second)}}}
	faults := &meshv1.FaultInjection_Conf{Http: []*meshv1.Fault{{Abort: &meshv1.Fault_Abort{HttpStatus: 500}}}}
	for _, c := range []struct {
		name      string
		do        func(*state.State)
		proxies   []string
		endpoints []string
		offer     bool
	}{
		{"nothing", func(*state.State) {}, nil, nil, false},
		{"the same record", up(t, "MeshGateway", "edge", listeners(80)), nil, nil, false},
		{"a route of the gateway", up(t, "MeshGatewayRoute", "more", gatewayRoute("echo")), []string{edge}, nil, false},
		{"a route to another service", up(t, "MeshGatewayRoute", "more", gatewayRoute("web")), []string{edge}, []string{"web.all/client"}, false},
		{"a route that goes", down("MeshGatewayRoute", "echo"), []string{edge}, nil, false},
		{"a gateway's listeners", up(t, "MeshGateway", "edge", listeners(81)), []string{edge}, nil, false},
		{"a timeout of web to echo", up(t, "Timeout", "t", timeout("web", "echo", "1")), []string{web}, nil, false},
		{"a timeout of all to echo", up(t, "Timeout", "t", timeout("*", "echo", "1")), []string{edge, web}, nil, false},
		{"a timeout of echo to all", up(t, "Timeout", "t", timeout("echo", "*", "1")), nil, nil, false},
		{"a timeout to nobody's destination", up(t, "Timeout", "t", timeout("*", "db", "1")), nil, nil, false},
		{"a circuit breaker of web to echo", up(t, "CircuitBreaker", "c", &meshv1.CircuitBreaker{Sources: sel(service("web")), Destinations: sel(service("echo")),
			Conf: &meshv1.CircuitBreaker_Conf{Thresholds: &meshv1.CircuitBreaker_Thresholds{}}}), []string{web}, nil, false},
		{"a health check of echo", up(t, "HealthCheck", "h", &meshv1.HealthCheck{Sources: sel(service("*")), Destinations: sel(service("echo")), Conf: &meshv1.HealthCheck_Conf{}}), []string{edge, web}, nil, false},
		{"a load balancer of the gateway", up(t, "TrafficRoute", "r", &meshv1.TrafficRoute{Sources: sel(service("edge")), Destinations: sel(service("echo")),
			Conf: &meshv1.TrafficRoute_Conf{LoadBalancer: &meshv1.LoadBalancer{Algorithm: &meshv1.LoadBalancer_Random_{Random: &meshv1.LoadBalancer_Random{}}}}}), []string{edge}, nil, false},
		{"localities of echo", up(t, "LocalityPolicy", "l", &meshv1.LocalityPolicy{Destinations: sel(service("echo")), Conf: &meshv1.LocalityPolicy_Conf{}}), []string{edge, web}, []string{"echo.all/client"}, false},
		{"localities of all", up(t, "LocalityPolicy", "l", &meshv1.LocalityPolicy{Destinations: sel(service("*")), Conf: &meshv1.LocalityPolicy_Conf{}}), []string{edge, web}, []string{"echo.all/client"}, false},
		{"localities of what nobody needs", up(t, "LocalityPolicy", "l", &meshv1.LocalityPolicy{Destinations: sel(service("db")), Conf: &meshv1.LocalityPolicy_Conf{}}), nil, nil, false},
		{"a subset that the ingress must offer", up(t, "TrafficRoute", "r", route), []string{web, in}, []string{"echo.ivssd6yhvjgmlnnqyrym/client", "echo.ivssd6yhvjgmlnnqyrym/ingress"}, false},
		{"a permission of echo", up(t, "TrafficPermission", "p", &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("echo"))}), []string{echo2, echo3}, nil, false},
		{"a permission of all", up(t, "TrafficPermission", "p", &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("*"))}), []string{echo2, echo3, web}, nil, false},
		{"a log of web", up(t, "TrafficLog", "l", &meshv1.TrafficLog{Sources: sel(service("web")), Destinations: sel(service("*"))}), []string{web}, nil, false},
		{"a log of all", up(t, "TrafficLog", "l", &meshv1.TrafficLog{Sources: sel(service("*")), Destinations: sel(service("db"))}), []string{echo2, echo3, edge, web}, nil, false},
		{"traces of the gateway", up(t, "TrafficTrace", "t", &meshv1.TrafficTrace{Selectors: sel(service("edge"))}), []string{edge}, nil, false},
		{"traces by the document's name", up(t, "MeshTrafficTrace", "t", &meshv1.TrafficTrace{Selectors: sel(tags{"version": "1"})}), []string{echo2, echo3, web}, nil, false},
		{"a template of echo", up(t, "ProxyTemplate", "p", &meshv1.ProxyTemplate{Selectors: sel(service("echo"))}), []string{echo2, echo3}, nil, false},
		{"metrics, then who may scrape them", func(s *state.State) {
			m := mesh(meshv1.Mesh_MODE_STRICT)
			m.Metrics = &meshv1.Metrics{EnabledBackend: "p", Backends: []*meshv1.Metrics_Backend{{Name: "p", Type: meshv1.Metrics_TYPE_PROMETHEUS}}}
			up(t, "Mesh", "default", m)(s)
			if proxies, _, _ := settle(t, s); !slices.Equal(proxies, []string{echo2, echo3, edge, web}) {
				t.Errorf("metrics change %v", proxies)
			}
			up(t, "TrafficPermission", "p", &meshv1.TrafficPermission{Sources: sel(service("prometheus")), Destinations: sel(service("dataplane-metrics"))})(s)
		}, []string{echo2, echo3, edge, web}, nil, false},
		{"a rate limit of the gateway", up(t, "RateLimit", "l", &meshv1.RateLimit{Selectors: sel(service("edge")), Conf: limits}), []string{edge}, nil, false},
		{"a rate limit of echo", up(t, "RateLimit", "l", &meshv1.RateLimit{Sources: sel(service("web")), Destinations: sel(service("echo")), Conf: limits}), []string{echo2, echo3}, nil, false},
		{"a rate limit of a gateway that is not there", up(t, "RateLimit", "l", &meshv1.RateLimit{Selectors: sel(service("shop")), Conf: limits}), nil, nil, false},
		{"a rate limit of echo by a tag", up(t, "RateLimit", "l", &meshv1.RateLimit{Sources: sel(tags{"version": "1"}), Destinations: sel(service("echo")), Conf: limits}), []string{echo2, echo3, edge, web}, nil, false},
		{"faults of web", up(t, "FaultInjection", "f", &meshv1.FaultInjection{Sources: sel(service("*")), Destinations: sel(service("web")), Conf: faults}), []string{web}, nil, false},
		{"roots", up(t, "TrustBundle", "default", &federationv1.TrustBundle{Domain: "zoneforge", Roots: []string{"other"}}), nil, nil, false},
		{"another domain", up(t, "TrustBundle", "default", &federationv1.TrustBundle{Domain: "example", Roots: []string{"root"}}), []string{echo2, echo3, edge, web}, nil, false},
		{"permissive", up(t, "Mesh", "default", mesh(meshv1.Mesh_MODE_PERMISSIVE)), []string{echo2, echo3, edge, web}, nil, false},
		{"mTLS off", up(t, "Mesh", "default", &meshv1.Mesh{}), []string{echo2, echo3, edge, web, in}, []string{
			"echo.all/client", "echo.all/ingress", "echo.hphfpvevwjlvmmxpv6lv/ingress", "echo.z/ingress", "web.all/ingress", "web.y/ingress", "web.z/ingress"}, false},
		{"a secret that nobody names", up(t, "Secret", "s", &meshv1.Secret{Data: []byte("x")}), nil, nil, false},
		{"another zone's count", up(t, "ServiceAvailability", "west.echo", available("west", "echo", 3)), nil, []string{"echo.all/client"}, false},
		{"another zone's service that nobody needs", up(t, "ServiceAvailability", "west.db", available("west", "db", 3)), nil, nil, false},
		{"another zone's ingress", up(t, "ZoneIngress", "west.in", remote("west", "10.1.0.2")), nil, []string{"echo.all/client"}, false},
		{"an ingress of a zone without services", up(t, "ZoneIngress", "north.in", remote("north", "10.2.0.2")), nil, nil, false},
		{"its own availability comes back", up(t, "ServiceAvailability", "east.echo", available("east", "echo", 8)), nil, nil, false},
		{"its own ingress comes back", up(t, "ZoneIngress", "east.in", remote("east", "10.0.0.7")), nil, nil, false},
		{"one echo more", func(s *state.State) { s.Register(sidecar("echo", "10.0.0.4"), true) }, []string{"echo-10.0.0.4"}, []string{"echo.all/client", "echo.all/ingress", "echo.v/ingress", "echo.z/ingress"}, true},
		{"one echo less", func(s *state.State) { s.Unregister("Dataplane/default/" + echo2) }, nil, []string{"echo.all/client", "echo.all/ingress", "echo.v/ingress", "echo.z/ingress"}, true},
		{"the same document again", func(s *state.State) { s.Register(sidecar("echo", "10.0.0.2"), true) }, []string{echo2}, nil, false},
		{"a new service", func(s *state.State) { s.Register(sidecar("db", "10.0.0.5"), true) }, []string{"db-10.0.0.5", in}, []string{"db.all/ingress", "db.v/ingress", "db.z/ingress"}, true},
		{"the ingress goes", func(s *state.State) { s.Unregister("ZoneIngress/in") }, nil, []string{"echo.all/ingress", "echo.v/ingress", "echo.z/ingress", "web.all/ingress", "web.v/ingress", "web.z/ingress"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := world(t)
			c.do(s)
			proxies, endpoints, d := settle(t, s)
			if !slices.Equal(proxies, c.proxies) {
				t.Errorf("proxies %v, want %v", proxies, c.proxies)
			}
			// The hashes of subsets say nothing to a reader, so only how many there are counts.
			if len(endpoints) != len(c.endpoints) {
				t.Errorf("endpoints %v, want %v", endpoints, c.endpoints)
			}
			for _, name := range c.endpoints {
				if strings.Contains(name, ".all/") && !slices.Contains(endpoints, name) {
					t.Errorf("endpoints %v, want %v", endpoints, c.endpoints)
				}
			}
			if d.Offer != c.offer {
				t.Errorf("offer changed: %v, want %v", d.Offer, c.offer)
			}
			if again := s.Take(); len(again.Proxies)+len(again.Endpoints) > 0 || again.Offer {
				t.Errorf("still dirty: %+v", again)
			}
		})
	}
}

func endpointsText(t *testing.T, s *state.State, name string) string {
	t.Helper()
	e, err := s.BuildEndpoints(name)
	if err != nil {
		t.Fatal(err)
	}
	if e == nil {
		return "none"
	}
	var out []string
	for _, l := range e.Localities {
		var hosts []string
		for _, p := range l.Endpoints {
			hosts = append(hosts, p.Address)
		}
		out = append(out, fmt.Sprintf("%s/%d %s", l.Zone, l.Priority, strings.Join(hosts, ",")))
	}
	return strings.Join(out, "; ")
}

func TestEndpointsOfBothViews(t *testing.T) {
	s := world(t)
	if got := endpointsText(t, s, "echo.all.default.mesh/client"); got != "east/0 10.0.0.2,10.0.0.3; west/1 10.1.0.1" {
		t.Error(got)
	}
	if got := endpointsText(t, s, "echo.all.default.mesh/ingress"); got != "east/0 10.0.0.2,10.0.0.3" {
		t.Error(got)
	}
	if got := s.Users("echo.all.default.mesh/client"); len(got) != 2 {
		t.Errorf("users %v, want web and the gateway", got)
	}
	s.Apply(nil, []resource.Key{key("ServiceAvailability", "west.echo")}, false)
	if got := endpointsText(t, s, "echo.all.default.mesh/client"); got != "east/0 10.0.0.2,10.0.0.3" {
		t.Error(got)
	}
}

func TestEndpointsFromDiskStayUntilTheirProxyIsBackOrGone(t *testing.T) {
	s := state.New("east", "")
	s.Register(sidecar("echo", "10.0.0.2"), false)
	s.Register(sidecar("echo", "10.0.0.3"), false)
	s.Register(sidecar("web", "10.0.0.1", "echo"), true)
	if proxies, _, _ := settle(t, s); len(proxies) != 1 {
		t.Fatalf("built %v, want web alone", proxies)
	}
	const name = "echo.all.default.mesh/client"
	if got := endpointsText(t, s, name); got != "east/0 10.0.0.2,10.0.0.3" {
		t.Fatal(got)
	}
	s.Register(sidecar("echo", "10.0.0.2"), true)
	if _, endpoints, _ := settle(t, s); len(endpoints) > 0 {
		t.Fatalf("a proxy that came back made %v dirty", endpoints)
	}
	if s.Register(sidecar("echo", "10.0.0.7"), false); !s.Unregister("Dataplane/default/echo-10.0.0.7") {
		t.Fatal("nothing to unregister")
	}
	s.Register(state.Proxy{ID: "Dataplane/default/echo-10.0.0.2", Mesh: "default", Dataplane: sidecar("x", "10.9.9.9").Dataplane}, false)
	s.Unregister("Dataplane/default/echo-10.0.0.3")
	if got := endpointsText(t, s, name); got != "east/0 10.0.0.2" {
		t.Fatal(got)
	}
}

func TestAProxyThatMayNotListenYetIsNoEndpoint(t *testing.T) {
	s := state.New("east", "")
	s.Register(sidecar("web", "10.0.0.1", "echo"), true)
	opening := func(address string) state.Proxy {
		p := sidecar("echo", address)
		p.Opening = true
		return p
	}
	s.Register(sidecar("echo", "10.0.0.2"), false)
	s.Register(opening("10.0.0.2"), true)
	s.Register(opening("10.0.0.3"), true)
	settle(t, s)
	const name = "echo.all.default.mesh/client"
	if got := endpointsText(t, s, name); got != "east/0 10.0.0.2" {
		t.Fatalf("%s, want the one that was known before alone", got)
	}
	if !s.Serve("Dataplane/default/echo-10.0.0.3") || s.Serve("Dataplane/default/echo-10.0.0.3") || s.Serve("Dataplane/default/echo-10.0.0.2") {
		t.Fatal("a proxy that was opening serves once, another never")
	}
	if _, endpoints, _ := settle(t, s); len(endpoints) == 0 {
		t.Fatal("serving made no endpoints dirty")
	}
	if got := endpointsText(t, s, name); got != "east/0 10.0.0.2,10.0.0.3" {
		t.Fatal(got)
	}
	ingress := state.Proxy{ID: "ZoneIngress/in", Name: "in", ZoneIngress: &meshv1.ZoneIngress{Networking: &meshv1.ZoneIngress_Networking{Address: "10.0.0.8", Port: 10001}}, Opening: true}
	offered := func() bool {
		s.Take()
		_, ok := s.Offer().Get(resource.Key{Kind: "ZoneIngress", Name: "east.in"})
		return ok
	}
	if s.Register(ingress, true); offered() {
		t.Fatal("an ingress that may not listen yet is offered to other zones")
	}
	if s.Serve("ZoneIngress/in"); !offered() {
		t.Fatal("an ingress that serves is not offered")
	}
}

func TestOffer(t *testing.T) {
	s := world(t)
	var got []string
	s.Offer().Each("", func(k resource.Key, r *kdsv1.Record) bool {
		res, err := resource.Unmarshal(k, r.GetPayload())
		if err != nil {
			t.Fatal(err)
		}
		text := k.String()
		if a, ok := res.Spec.(*federationv1.ServiceAvailability); ok {
			for _, set := range a.GetTagSets() {
				text += fmt.Sprintf(" %s=%d", set.GetTags()[resource.TagService], set.GetCount())
			}
		} else if z, ok := res.Spec.(*meshv1.ZoneIngress); ok {
			text += " " + z.GetZone()
		}
		got = append(got, text)
		return true
	})
	want := []string{"ServiceAvailability default/east.echo echo=2", "ServiceAvailability default/east.web web=1", "ZoneIngress east.in east"}
	if !slices.Equal(got, want) {
		t.Errorf("offer %q, want %q", got, want)
	}
	s.Unregister("Dataplane/default/web-10.0.0.1")
	if s.Take(); s.Offer().Len() != 2 {
		t.Error("a service without endpoints is still offered")
	}
}

// servicesOf are the clusters of a proxy that lead to services.
func servicesOf(b *state.Built) []string {
	var out []string
	for c := range b.Resources.Each(xds.TypeCluster) {
		if c.EndpointsName() != "" {
			out = append(out, c.Name)
		}
	}
	return out
}

func TestBadRecordKeepsTheLastGoodOne(t *testing.T) {
	s := world(t)
	bad := gatewayRoute("echo")
	bad.Conf.Http.Rules[0].Matches = []*meshv1.RequestMatch{{Path: &meshv1.PathMatch{Match: meshv1.MatchType_MATCH_TYPE_REGEX, Value: "("}}}
	unknown := kds.NewRecord(resource.Key{Kind: "FromTomorrow", Mesh: "default", Name: "x"}, []byte("?"))
	rejected := s.Apply([]*kdsv1.Record{rec(t, "MeshGatewayRoute", "echo", bad), unknown, rec(t, "Timeout", "t", timeout("web", "echo", "1"))}, nil, false)
	if len(rejected) != 2 || rejected[0].GetKey().GetKind() != "FromTomorrow" || rejected[1].GetKey().GetName() != "echo" || len(rejected[1].GetHash()) == 0 {
		t.Fatalf("rejected %v", rejected)
	}
	if proxies, _, _ := settle(t, s); !slices.Equal(proxies, []string{"web-10.0.0.1"}) {
		t.Errorf("built %v, want what the good record affects", proxies)
	}
	if got := s.Rejected(); len(got) != 2 {
		t.Errorf("status rejects %v", got)
	}
	b, err := s.BuildProxy("Dataplane/default/edge")
	if err != nil || len(servicesOf(b)) != 1 {
		t.Errorf("the last good route is gone: %v %v", b, err)
	}
	s.Apply([]*kdsv1.Record{rec(t, "MeshGatewayRoute", "echo", gatewayRoute("web"))}, []resource.Key{{Kind: "FromTomorrow", Mesh: "default", Name: "x"}}, false)
	if got := s.Rejected(); len(got) != 0 {
		t.Errorf("mended, but %v", got)
	}
}

func TestSnapshotRemovesWhatItDoesNotHold(t *testing.T) {
	s := world(t)
	s.Apply([]*kdsv1.Record{rec(t, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT)), rec(t, "MeshGateway", "edge", listeners(80))}, nil, true)
	settle(t, s)
	b, err := s.BuildProxy("Dataplane/default/edge")
	if err != nil || len(servicesOf(b)) != 0 || !slices.ContainsFunc(b.Resources.Listeners, func(l *xds.Resource) bool { return l.Name == "gateway:80" }) {
		t.Errorf("%+v %v", b, err)
	}
	if got := endpointsText(t, s, "echo.all.default.mesh/client"); got != "east/0 10.0.0.2,10.0.0.3" {
		t.Error(got)
	}
}

func TestProtocolIsKeptWhileAServiceIsAway(t *testing.T) {
	s := world(t)
	s.Apply(nil, []resource.Key{key("ServiceAvailability", "west.echo")}, false)
	s.Unregister("Dataplane/default/echo-10.0.0.2")
	s.Unregister("Dataplane/default/echo-10.0.0.3")
	settle(t, s)
	b, err := s.BuildProxy("Dataplane/default/web-10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	text, err := xds.Redacted(b.Resources.Clusters[0])
	if err != nil || !strings.Contains(string(text), `"httpProtocolOptions"`) {
		t.Errorf("cluster %s, %v", text, err)
	}
}
