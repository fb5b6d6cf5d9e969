package proxyir_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// guardedGateway has a rule for /guarded with a filter, before one for everything without.
func guardedGateway(filter *meshv1.Filter, secrets map[string]string) proxyir.Input {
	rule := func(path string, filters ...*meshv1.Filter) *meshv1.MeshGatewayRoute_Rule {
		return &meshv1.MeshGatewayRoute_Rule{
			Matches:  []*meshv1.RequestMatch{{Path: &meshv1.PathMatch{Match: meshv1.MatchType_MATCH_TYPE_PREFIX, Value: path}}},
			Filters:  filters,
			Backends: []*meshv1.MeshGatewayRoute_Backend{{Destination: service("echo")}},
		}
	}
	in := input(nil, &meshv1.Dataplane_Networking{Gateway: &meshv1.Dataplane_Gateway{Tags: service("edge")}}, map[string][]*resource.Resource{
		"MeshGateway": {res("MeshGateway", "edge", &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{
			Listeners: []*meshv1.MeshGateway_Listener{{Port: 80, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}})},
		"MeshGatewayRoute": {res("MeshGatewayRoute", "r", &meshv1.MeshGatewayRoute{Selectors: sel(service("edge")), Conf: &meshv1.MeshGatewayRoute_Conf{
			Http: &meshv1.MeshGatewayRoute_Http{Rules: []*meshv1.MeshGatewayRoute_Rule{rule("/guarded", filter), rule("/")}}}})},
	})
	in.SecretData = func(name string) ([]byte, bool) {
		text, ok := secrets[name]
		return []byte(text), ok
	}
	return in
}

func guardedRoutes(t *testing.T, filter *meshv1.Filter, secrets map[string]string) (guarded, open ir.Route, rejected []proxyir.Rejected) {
	t.Helper()
	r, err := proxyir.Gateway(guardedGateway(filter, secrets))
	p, _ := accepted(t, r, err)
	for _, route := range p.Routes[0].VirtualHosts[0].Routes {
		switch route.Match.Path.Value {
		case "/guarded":
			guarded = route
		case "/":
			if route.Forward != nil {
				open = route
			}
		}
	}
	return guarded, open, r.Rejected
}

// TestRuleThatCannotBeGuardedIsClosed holds that a request for a rule whose filter can't be built never falls to a wider rule.
func TestRuleThatCannotBeGuardedIsClosed(t *testing.T) {
	keys := func(secrets ...string) *meshv1.Filter {
		k := &meshv1.ApiKey{}
		for _, name := range secrets {
			k.Credentials = append(k.Credentials, &meshv1.SecretReference{Secret: name})
		}
		return &meshv1.Filter{Filter: &meshv1.Filter_ApiKey{ApiKey: k}}
	}
	users := &meshv1.Filter{Filter: &meshv1.Filter_BasicAuth{BasicAuth: &meshv1.BasicAuth{Secret: "users"}}}
	asks := &meshv1.Filter{Filter: &meshv1.Filter_ExtAuth{ExtAuth: &meshv1.ExtAuth{Service: &meshv1.ExtAuth_Grpc_{Grpc: &meshv1.ExtAuth_Grpc{Target: &meshv1.Target{Destination: service("echo")}}}}}}
	for _, c := range []struct {
		name    string
		filter  *meshv1.Filter
		secrets map[string]string
		reason  string
	}{
		{"no keys", keys("a"), nil, "rule 0: filter 0: apiKey: Secret default/a is not there; apply it"},
		{"bad keys", keys("a"), map[string]string{"a": "hush"}, "rule 0: filter 0: apiKey: Secret default/a: it is no mapping of clients to keys"},
		{"one key of two Secrets", keys("a", "b"), map[string]string{"a": "x: hush\n", "b": "y: hush\n"},
			"apiKey: client y of Secret default/b has the key of client x of Secret default/a: give each its own"},
		{"no users", users, nil, "basicAuth: Secret default/users is not there"},
		{"bcrypt", users, map[string]string{"users": "ann:$2y$hush"}, "basicAuth: Secret default/users: line 1: the password of user ann is hashed by bcrypt"},
		{"gRPC to HTTP/1", asks, nil, "extAuth: service echo has no kuma.io/protocol grpc or http2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			guarded, open, rejected := guardedRoutes(t, c.filter, c.secrets)
			if guarded.Direct == nil || guarded.Direct.Status != 503 {
				t.Errorf("the rule does %+v, want 503", guarded)
			}
			if open.Forward == nil {
				t.Error("the other rule is gone")
			}
			if len(rejected) != 1 || rejected[0].Key.Name != "r" || !strings.Contains(rejected[0].Reason, c.reason) || strings.Contains(rejected[0].Reason, "hush") {
				t.Errorf("rejected %v, want %q", rejected, c.reason)
			}
		})
	}
}

func TestAccessFilters(t *testing.T) {
	guarded, _, rejected := guardedRoutes(t, &meshv1.Filter{Filter: &meshv1.Filter_ApiKey{ApiKey: &meshv1.ApiKey{
		Credentials: []*meshv1.SecretReference{{Secret: "a"}, {Secret: "b"}}}}}, map[string]string{"a": "x: [k2, k1]\n", "b": "x: k3\n"})
	want := &ir.APIKey{Keys: []ir.ClientKey{{Client: "x", Key: "k2"}, {Client: "x", Key: "k1"}, {Client: "x", Key: "k3"}}, Places: []ir.KeyPlace{{Header: "x-api-key"}}, Hide: true}
	if len(rejected) > 0 || !reflect.DeepEqual(guarded.Filters.APIKey, want) {
		t.Errorf("api key: %v, rejected %v", guarded.Filters.APIKey, rejected)
	}

	guarded, _, rejected = guardedRoutes(t, &meshv1.Filter{Filter: &meshv1.Filter_ExtAuth{ExtAuth: &meshv1.ExtAuth{Service: &meshv1.ExtAuth_Http_{Http: &meshv1.ExtAuth_Http{
		Target: &meshv1.Target{Url: "http://authz.example.com"}, RequestHeaders: []string{"X-Tenant"}, BackendHeaders: []string{"Authorization", "x-tenant", "X-Subject"}}}}}}, nil)
	e := guarded.Filters.ExtAuth
	if len(rejected) > 0 || e == nil || e.Timeout != 1e9 || e.FailOpen || !reflect.DeepEqual(e.RequestHeaders, []string{"x-tenant"}) || !reflect.DeepEqual(e.HTTP.UnseenHeaders, []string{"x-subject"}) {
		t.Errorf("external authorization: %+v, rejected %v", e, rejected)
	}

	guarded, _, _ = guardedRoutes(t, &meshv1.Filter{Filter: &meshv1.Filter_ClientAddress{ClientAddress: &meshv1.ClientAddress{Allow: []string{"10.0.0.0/8", "2001:db8::1"}}}}, nil)
	if got := guarded.Filters.ClientAddress; got == nil || !reflect.DeepEqual(got.Allow, []ir.AddressRange{{Address: "10.0.0.0", Bits: 8}, {Address: "2001:db8::1", Bits: 128}}) {
		t.Errorf("client address: %+v", got)
	}
}

// TestServiceThatNobodyHasIsTold holds that a policy which calls such a service is in force all the same.
func TestServiceThatNobodyHasIsTold(t *testing.T) {
	asks := func(name string) *meshv1.Filter {
		return &meshv1.Filter{Filter: &meshv1.Filter_ExtAuth{ExtAuth: &meshv1.ExtAuth{Service: &meshv1.ExtAuth_Http_{Http: &meshv1.ExtAuth_Http{Target: &meshv1.Target{Destination: service(name)}}}}}}
	}
	const want = `service "ghost" is no ExternalService, and no service of mesh default that says kuma.io/protocol: start or apply it, or mend its name`
	guarded, _, rejected := guardedRoutes(t, asks("ghost"), nil)
	if guarded.Filters.ExtAuth == nil || len(rejected) != 1 || rejected[0].Key.Name != "r" || rejected[0].Reason != want {
		t.Errorf("in force: %+v, told %v", guarded.Filters.ExtAuth, rejected)
	}
	if _, _, rejected = guardedRoutes(t, asks("echo"), nil); len(rejected) > 0 {
		t.Errorf("told %v of a service that is there", rejected)
	}

	in := guardedGateway(asks("echo"), nil)
	limit := limitRule(1)
	limit.Shared = &meshv1.SharedLimit{Service: &meshv1.Target{Destination: service("ghost")}}
	in.Policies.Put(res("RateLimit", "all", &meshv1.RateLimit{Selectors: sel(service("*")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{limit}}}))
	r, err := proxyir.Gateway(in)
	accepted(t, r, err)
	if len(r.Rejected) != 1 || r.Rejected[0].Key.Name != "all" || r.Rejected[0].Reason != want {
		t.Errorf("told %v of a limit's service", r.Rejected)
	}
}
