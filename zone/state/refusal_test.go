package state

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// What Envoy's own rules refuse is found among the policies, and the rest of the proxy is built without it.
func TestPolicyThatEnvoyWouldRefuseCostsItselfOnly(t *testing.T) {
	key := func(name string) resource.Key {
		return resource.Key{Kind: "MeshGatewayRoute", Mesh: "default", Name: name}
	}
	permission := resource.Key{Kind: "TrafficPermission", Mesh: "default", Name: "p"}
	build := func(in proxyir.Input) (*proxyir.Result, error) {
		out := &proxyir.Result{Proxy: &ir.Proxy{Name: "p"}}
		for name, address := range map[string]string{"good": "10.0.0.1", "bad": "not-an-address", "worse": ""} {
			if in.Closed[key(name)] && name == "bad" {
				address = "10.0.0.2"
			}
			if !in.Without[key(name)] {
				out.Uses = append(out.Uses, proxyir.Use{Key: key(name), Why: "test"})
				out.Proxy.Clusters = append(out.Proxy.Clusters, ir.Cluster{Name: name, Protocol: ir.HTTP1, ConnectTimeout: 1e9, Static: &ir.Endpoint{Address: address, Port: 80}})
			}
		}
		out.Uses = append(out.Uses, proxyir.Use{Key: permission, Why: "test"})
		if in.Without[permission] {
			return nil, errors.New("a permission must never be left out")
		}
		return out, nil
	}
	first, err := build(proxyir.Input{})
	if err != nil {
		t.Fatal(err)
	}
	_, why := xds.Build(first.Proxy)
	if why == nil {
		t.Fatal("nothing is wrong")
	}
	result, resources, err := withoutBad(build, proxyir.Input{}, first, why)
	if err != nil {
		t.Fatal(err)
	}
	// What is closed keeps its place where that helps.
	if len(resources.Clusters) != 2 || resources.Clusters[0].Name != "bad" || resources.Clusters[1].Name != "good" {
		t.Errorf("clusters %v", resources.Clusters)
	}
	if len(result.Rejected) != 2 || result.Rejected[0].Key != key("bad") || result.Rejected[1].Key != key("worse") ||
		!strings.Contains(result.Rejected[0].Reason, "not-an-address") {
		t.Errorf("rejected %v", result.Rejected)
	}

	// Where the proxy is wrong by itself, its own error is told.
	hopeless := func(proxyir.Input) (*proxyir.Result, error) {
		return &proxyir.Result{Proxy: &ir.Proxy{Clusters: []ir.Cluster{{Name: "own", Static: &ir.Endpoint{}}}}, Uses: first.Uses}, nil
	}
	if _, _, err := withoutBad(hopeless, proxyir.Input{}, first, why); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// Each policy that passed its checks, but is nothing for Envoy, is told by its own name, whatever it stands beside, and takes nothing
// with it: what it would have guarded is closed, and all the rest is as if it weren't there.
func TestEachRefusedPolicyIsBlamedItself(t *testing.T) {
	edge := map[string]string{"kuma.io/service": "edge"}
	selectors := []*meshv1.Selector{{Match: edge}}
	every := []*meshv1.Selector{{Match: map[string]string{"kuma.io/service": "*"}}}
	res := func(kind, name string, spec proto.Message) *resource.Resource {
		return &resource.Resource{Key: resource.Key{Kind: kind, Mesh: "default", Name: name}, Spec: spec}
	}
	// Envoy refuses that a pseudo header is written.
	sets := func(name string) []*meshv1.Filter {
		return []*meshv1.Filter{{Filter: &meshv1.Filter_ResponseHeader{ResponseHeader: &meshv1.HeaderChange{Set: []*meshv1.HeaderValue{{Name: name, Value: "v"}}}}}}
	}
	route := func(name, path string, filters []*meshv1.Filter) *resource.Resource {
		return res("MeshGatewayRoute", name, &meshv1.MeshGatewayRoute{Selectors: selectors, Conf: &meshv1.MeshGatewayRoute_Conf{Http: &meshv1.MeshGatewayRoute_Http{
			Rules: []*meshv1.MeshGatewayRoute_Rule{{
				Matches:  []*meshv1.RequestMatch{{Path: &meshv1.PathMatch{Match: meshv1.MatchType_MATCH_TYPE_PREFIX, Value: path}}},
				Filters:  filters,
				Backends: []*meshv1.MeshGatewayRoute_Backend{{Destination: map[string]string{"kuma.io/service": "echo"}}},
			}}}}})
	}
	gateway := func(filters []*meshv1.Filter, second uint32) *resource.Resource {
		return res("MeshGateway", "edge", &meshv1.MeshGateway{Selectors: selectors, Conf: &meshv1.MeshGateway_Conf{Listeners: []*meshv1.MeshGateway_Listener{
			{Port: 80, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP, Filters: filters}, {Port: second, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}})
	}
	limit := func(name string, requests uint32) *resource.Resource {
		return res("RateLimit", name, &meshv1.RateLimit{Selectors: selectors, Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{{
			Requests: requests, Interval: durationpb.New(time.Second), RateLimitHeaders: true}}}})
	}
	attached := func(name, route string, filters []*meshv1.Filter) *resource.Resource {
		return res("FilterPolicy", name, &meshv1.FilterPolicy{Selectors: selectors, Routes: []string{route}, Conf: &meshv1.FilterPolicy_Conf{Filters: filters}})
	}
	breaker := func(most uint32) *resource.Resource {
		return res("CircuitBreaker", "breaker", &meshv1.CircuitBreaker{Sources: every, Destinations: every, Conf: &meshv1.CircuitBreaker_Conf{
			MaxEjectionPercent: &most, Detectors: &meshv1.CircuitBreaker_Detectors{TotalErrors: &meshv1.CircuitBreaker_Consecutive{}}}})
	}
	const bad = ":bad"
	good := []*resource.Resource{gateway(sets("x-listener"), 81), route("a", "/a", sets("x-a")), route("b", "/b", sets("x-b")), attached("pa", "a", sets("x-pa")), limit("limit", 5), breaker(50)}
	// say tells what each port and path answers with: open, closed, or nothing.
	say := func(p *ir.Proxy) string {
		var out []string
		for _, l := range p.Listeners {
			for _, table := range p.Routes {
				if table.Name != l.Name {
					continue
				}
				for _, r := range table.VirtualHosts[0].Routes {
					switch {
					case r.Name == "not-found":
					case r.Direct != nil:
						out = append(out, fmt.Sprintf("%d%s %d", l.Port, r.Match.Path.Value, r.Direct.Status))
					default:
						out = append(out, fmt.Sprintf("%d%s", l.Port, r.Match.Path.Value))
					}
				}
			}
		}
		return strings.Join(out, ", ")
	}
	for _, c := range []struct {
		name  string
		with  []*resource.Resource
		says  string
		blame []string
	}{
		{"nothing bad", nil, "80/a, 80/b, 81/a, 81/b", nil},
		{"a route", []*resource.Resource{route("a", "/a", sets(bad))}, "80/a 503, 80/b, 81/a 503, 81/b", []string{"MeshGatewayRoute a"}},
		{"the filters of a listener", []*resource.Resource{gateway(sets(bad), 81)}, "80/a 503, 80/b 503, 81/a, 81/b", []string{"MeshGateway edge"}},
		{"a listener", []*resource.Resource{gateway(sets("x-listener"), 70000)}, "80/a, 80/b", []string{"MeshGateway edge"}},
		{"a limit", []*resource.Resource{limit("limit", 0)}, "80/a, 80/b, 81/a, 81/b", []string{"RateLimit limit"}},
		{"a policy for a route", []*resource.Resource{attached("pa", "a", sets(bad))}, "80/a 503, 80/b, 81/a 503, 81/b", []string{"FilterPolicy pa"}},
		{"a policy for connections", []*resource.Resource{breaker(101)}, "80/a, 80/b, 81/a, 81/b", []string{"CircuitBreaker breaker"}},
		{"all at once", []*resource.Resource{gateway(sets(bad), 70000), route("a", "/a", sets(bad)), attached("pa", "a", sets(bad)), limit("limit", 0), breaker(101)},
			"80/a 503, 80/b 503", []string{"CircuitBreaker breaker", "FilterPolicy pa", "MeshGateway edge", "MeshGateway edge", "MeshGatewayRoute a", "RateLimit limit"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			policies := policy.ByKind{}
			for _, r := range good {
				if i := slices.IndexFunc(c.with, func(other *resource.Resource) bool { return other.Key == r.Key }); i >= 0 {
					r = c.with[i]
				}
				policies.Put(r)
			}
			in := proxyir.Input{MeshName: "default", Zone: "east", Domain: "mesh.example.com", Name: "edge", Policies: policies, Protocols: map[string]string{"echo": "http"},
				Dataplane: &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "10.0.0.1", Gateway: &meshv1.Dataplane_Gateway{Tags: edge}}}}
			result, err := proxyir.Gateway(in)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = xds.Build(result.Proxy); (err != nil) != (c.with != nil) {
				t.Fatalf("it builds with %v", err)
			}
			if err != nil {
				if result, _, err = withoutBad(proxyir.Gateway, in, result, err); err != nil {
					t.Fatal(err)
				}
			}
			var blame []string
			for _, r := range result.Rejected {
				blame = append(blame, r.Key.Kind+" "+r.Key.Name)
			}
			if got := say(result.Proxy); got != c.says || !reflect.DeepEqual(blame, c.blame) {
				t.Errorf("answers %s, and blames %v, want %s and %v: %v", got, blame, c.says, c.blame, result.Rejected)
			}
		})
	}
}
