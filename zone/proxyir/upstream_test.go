package proxyir_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

func balancer(header string) *meshv1.LoadBalancer {
	return &meshv1.LoadBalancer{Algorithm: &meshv1.LoadBalancer_Maglev_{Maglev: &meshv1.LoadBalancer_Maglev{}},
		HashPolicies: []*meshv1.LoadBalancer_HashPolicy{{Policy: &meshv1.LoadBalancer_HashPolicy_Header{Header: &meshv1.LoadBalancer_Header{Name: header}}}}}
}

// endpointPolicies hold for every client and every service, and more specific ones for echo.
func endpointPolicies() map[string][]*resource.Resource {
	every := sel(tags{resource.TagService: "*"})
	limit := func(n uint32) *meshv1.CircuitBreaker_Conf {
		return &meshv1.CircuitBreaker_Conf{Thresholds: &meshv1.CircuitBreaker_Thresholds{MaxRequests: proto.Uint32(n), MaxRetries: proto.Uint32(1)}}
	}
	return map[string][]*resource.Resource{
		"TrafficRoute": {
			res("TrafficRoute", "any", &meshv1.TrafficRoute{Sources: every, Destinations: every, Conf: &meshv1.TrafficRoute_Conf{
				LoadBalancer: &meshv1.LoadBalancer{Algorithm: &meshv1.LoadBalancer_Random_{Random: &meshv1.LoadBalancer_Random{}}}}}),
			res("TrafficRoute", "echo", &meshv1.TrafficRoute{Sources: every, Destinations: sel(service("echo")), Conf: &meshv1.TrafficRoute_Conf{LoadBalancer: balancer("x-user")}}),
		},
		"CircuitBreaker": {
			res("CircuitBreaker", "any", &meshv1.CircuitBreaker{Sources: every, Destinations: every, Conf: limit(10)}),
			res("CircuitBreaker", "v2", &meshv1.CircuitBreaker{Sources: every, Destinations: sel(tags{resource.TagService: "echo", "version": "2"}), Conf: limit(2)}),
		},
		"HealthCheck": {
			res("HealthCheck", "any", &meshv1.HealthCheck{Sources: every, Destinations: every, Conf: &meshv1.HealthCheck_Conf{
				Http: &meshv1.HealthCheck_Http{Path: "/health"}, Grpc: &meshv1.HealthCheck_Grpc{}}}),
		},
		"Retry": {
			res("Retry", "echo", &meshv1.Retry{Sources: every, Destinations: sel(service("echo")), Conf: &meshv1.Retry_Conf{Budget: &meshv1.Retry_Budget{}}}),
		},
	}
}

func clustersOf(p *ir.Proxy) map[string]ir.Cluster {
	out := map[string]ir.Cluster{}
	for _, c := range p.Clusters {
		if c.EndpointsName != "" {
			out[c.EndpointsName] = c
		}
	}
	return out
}

// The policies for a cluster are those for its destination, whatever leads to it.
func TestEndpointPoliciesOfSidecar(t *testing.T) {
	r, err := proxyir.Sidecar(input(mesh(meshv1.Mesh_MODE_STRICT), sidecar(), endpointPolicies()))
	p, _ := accepted(t, r, err)
	clusters := clustersOf(p)
	echo, grpc, raw := clusters["echo.all.default.mesh/client"], clusters["grpc.all.default.mesh/client"], clusters["raw.all.default.mesh/client"]
	if echo.LoadBalancer == nil || echo.LoadBalancer.Algorithm != ir.Maglev || grpc.LoadBalancer == nil || grpc.LoadBalancer.Algorithm != ir.RandomPick {
		t.Errorf("echo is balanced by %+v, grpc by %+v", echo.LoadBalancer, grpc.LoadBalancer)
	}
	if *echo.Limits.Requests != 10 || echo.Limits.Retries != nil || echo.Limits.RetryBudget == nil || *raw.Limits.Retries != 1 || raw.Limits.RetryBudget != nil {
		t.Errorf("limits of echo are %+v, of raw %+v", echo.Limits, raw.Limits)
	}
	if echo.HealthCheck.HTTP == nil || grpc.HealthCheck.GRPC == nil || raw.HealthCheck.HTTP != nil || raw.HealthCheck.TCP != nil {
		t.Errorf("checks are %+v, %+v and %+v", echo.HealthCheck, grpc.HealthCheck, raw.HealthCheck)
	}
	for _, c := range p.Clusters {
		if c.Static != nil && (c.LoadBalancer != nil || c.HealthCheck != nil || c.Outlier != nil || c.Limits != (ir.Limits{})) {
			t.Errorf("%s leads to the workload and is not a connection of the mesh: %+v", c.Name, c)
		}
	}
	for _, config := range p.Routes {
		for _, route := range config.VirtualHosts[0].Routes {
			var want []ir.HashPolicy
			if config.Name == "outbound:127.0.0.1:9000" {
				want = []ir.HashPolicy{{Header: "x-user"}}
			}
			if !reflect.DeepEqual(route.Forward.Hash, want) {
				t.Errorf("%s hashes %+v, want %+v", config.Name, route.Forward.Hash, want)
			}
		}
	}
}

func TestEndpointPoliciesOfGateway(t *testing.T) {
	policies := endpointPolicies()
	policies["MeshGateway"] = []*resource.Resource{res("MeshGateway", "edge", &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{
		Listeners: []*meshv1.MeshGateway_Listener{{Port: 80, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}})}
	policies["MeshGatewayRoute"] = []*resource.Resource{res("MeshGatewayRoute", "r", &meshv1.MeshGatewayRoute{Selectors: sel(service("edge")), Conf: &meshv1.MeshGatewayRoute_Conf{
		Http: &meshv1.MeshGatewayRoute_Http{Rules: []*meshv1.MeshGatewayRoute_Rule{{Backends: []*meshv1.MeshGatewayRoute_Backend{
			{Destination: service("grpc")}, {Destination: tags{resource.TagService: "echo", "version": "2"}}}}}}}})}
	in := input(nil, &meshv1.Dataplane_Networking{Gateway: &meshv1.Dataplane_Gateway{Tags: service("edge")}}, policies)
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	for _, c := range facing(p).Clusters {
		if c.HealthCheck == nil || c.LoadBalancer == nil {
			t.Errorf("%s has health check %+v and load balancer %+v", c.Name, c.HealthCheck, c.LoadBalancer)
		}
		if want := map[string]uint32{"grpc.all.default.mesh": 10}[c.Name]; *c.Limits.Requests != max(want, 2) {
			t.Errorf("%s takes %d requests", c.Name, *c.Limits.Requests)
		}
	}
	if got := p.Routes[0].VirtualHosts[0].Routes[0].Forward.Hash; !reflect.DeepEqual(got, []ir.HashPolicy{{Header: "x-user"}}) {
		t.Errorf("the rule hashes %+v, want what its second backend is balanced by", got)
	}
	var uses []string
	for _, u := range r.Uses {
		uses = append(uses, u.Key.Kind+" "+u.Key.Name+": "+u.Why)
	}
	for _, want := range []string{"CircuitBreaker v2: connections to echo version=2", "TrafficRoute any: load balancing over grpc", "HealthCheck any: connections to grpc"} {
		if !slices.Contains(uses, want) {
			t.Errorf("uses are %q, want %q among them", uses, want)
		}
	}
}

// A route for any service leads to the one that was asked for, or to a subset of it.
func TestRouteToTheServiceThatWasAskedFor(t *testing.T) {
	every, any := sel(tags{resource.TagService: "*"}), tags{resource.TagService: "*"}
	route := func(to ...tags) map[string][]*resource.Resource {
		conf := &meshv1.TrafficRoute_Conf{}
		for _, destination := range to {
			conf.Split = append(conf.Split, &meshv1.TrafficRoute_Split{Weight: 1, Destination: destination})
		}
		return map[string][]*resource.Resource{"TrafficRoute": {res("TrafficRoute", "all", &meshv1.TrafficRoute{Sources: every, Destinations: every, Conf: conf})}}
	}
	r, err := proxyir.Sidecar(input(nil, sidecar(), route(any, tags{resource.TagService: "*", "version": "1"}, service("web"))))
	p, destinations := accepted(t, r, err)
	var got []string
	for _, d := range destinations {
		text := d.Service
		if v := d.Subset["version"]; v != "" {
			text += "/" + v
		}
		got = append(got, text)
	}
	slices.Sort(got)
	if want := []string{"echo", "echo/1", "grpc", "grpc/1", "raw", "raw/1", "web"}; !slices.Equal(got, want) {
		t.Errorf("outbounds lead to %v, want %v", got, want)
	}
	for _, l := range p.Listeners {
		for _, chain := range l.Chains {
			if chain.TCP != nil && l.Direction == ir.Outbound && (len(chain.TCP.Clusters) != 3 || !chain.TCP.HashSource) {
				t.Errorf("%s leads to %+v", l.Name, chain.TCP)
			}
		}
	}
}

// What a Timeout says of gRPC holds for destinations that speak it, whose calls are bound by nothing that isn't said.
func TestTimeoutsOfGRPC(t *testing.T) {
	every := sel(tags{resource.TagService: "*"})
	for name, c := range map[string]struct {
		conf *meshv1.Timeout_Conf
		want ir.Forward
	}{
		"no policy": {nil, ir.Forward{IdleTimeout: policy.DefaultStreamIdleTimeout}},
		"streams": {&meshv1.Timeout_Conf{Grpc: &meshv1.Timeout_Grpc{StreamIdleTimeout: durationpb.New(time.Second), MaxStreamDuration: durationpb.New(time.Minute)}},
			ir.Forward{IdleTimeout: time.Second, MaxDuration: time.Minute}},
		"requests": {&meshv1.Timeout_Conf{Http: &meshv1.Timeout_Http{RequestTimeout: durationpb.New(time.Second)}},
			ir.Forward{Timeout: time.Second, IdleTimeout: policy.DefaultStreamIdleTimeout}},
	} {
		policies := map[string][]*resource.Resource{}
		if c.conf != nil {
			policies["Timeout"] = []*resource.Resource{res("Timeout", "t", &meshv1.Timeout{Sources: every, Destinations: every, Conf: c.conf})}
		}
		r, err := proxyir.Sidecar(input(nil, sidecar(), policies))
		p, _ := accepted(t, r, err)
		for _, config := range p.Routes {
			got := config.VirtualHosts[0].Routes[0].Forward
			same := got.Timeout == c.want.Timeout && got.IdleTimeout == c.want.IdleTimeout && got.MaxDuration == c.want.MaxDuration
			if grpc := config.Name == "outbound:127.0.0.1:9002"; grpc && !same || name == "no policy" && config.Name == "outbound:127.0.0.1:9000" && got.Timeout != policy.DefaultRequestTimeout {
				t.Errorf("%s: %s is bound by %s, %s and %s", name, config.Name, got.Timeout, got.IdleTimeout, got.MaxDuration)
			} else if !grpc && name == "streams" && same {
				t.Errorf("%s is bound by what is said of gRPC", config.Name)
			}
		}
	}
}
