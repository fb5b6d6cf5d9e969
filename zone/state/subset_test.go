package state_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
)

// A subset is offered to other zones by whatever policy sends requests to it, also where it is a filter that asks it, and no longer
// than that.
func TestSubsetsThatPoliciesSendRequestsTo(t *testing.T) {
	subset := tags{resource.TagService: "echo", "version": "1", "tier": "auth"}
	ask := &meshv1.Filter{Filter: &meshv1.Filter_ExtAuth{ExtAuth: &meshv1.ExtAuth{Service: &meshv1.ExtAuth_Http_{Http: &meshv1.ExtAuth_Http{Target: &meshv1.Target{Destination: subset}}}}}}
	nested := &meshv1.Filter{Filter: &meshv1.Filter_Http{Http: &meshv1.HttpRules{Rules: []*meshv1.HttpRules_Rule{{Filters: []*meshv1.Filter{ask}}}}}}
	listener := listeners(80)
	listener.Conf.Listeners[0].Filters = []*meshv1.Filter{ask}
	mirrored := gatewayRoute("echo")
	mirrored.Conf.Http.Rules[0].Filters = []*meshv1.Filter{{Filter: &meshv1.Filter_Mirror{Mirror: &meshv1.Mirror{Destination: subset}}}}
	for _, c := range []struct {
		name, kind, policy string
		spec               proto.Message
	}{
		{"a policy of filters", "FilterPolicy", "p", &meshv1.FilterPolicy{Selectors: sel(service("edge")), Conf: &meshv1.FilterPolicy_Conf{Filters: []*meshv1.Filter{ask}}}},
		{"a filter with conditions", "FilterPolicy", "p", &meshv1.FilterPolicy{Selectors: sel(service("edge")), Conf: &meshv1.FilterPolicy_Conf{Filters: []*meshv1.Filter{nested}}}},
		{"a listener", "MeshGateway", "other", listener},
		{"a limit that is shared", "RateLimit", "l", &meshv1.RateLimit{Selectors: sel(service("edge")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{{
			Requests: 1, Interval: durationpb.New(1e9), Shared: &meshv1.SharedLimit{Service: &meshv1.Target{Destination: subset}}}}}}},
		{"a mirror", "MeshGatewayRoute", "m", mirrored},
		{"a route of connections", "MeshGatewayRoute", "m", &meshv1.MeshGatewayRoute{Selectors: sel(service("edge")), Conf: &meshv1.MeshGatewayRoute_Conf{Tcp: &meshv1.MeshGatewayRoute_Tcp{
			Rules: []*meshv1.MeshGatewayRoute_TcpRule{{Backends: []*meshv1.MeshGatewayRoute_Backend{{Destination: subset}}}}}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := world(t)
			offered := func() int {
				settle(t, s)
				b, err := s.BuildProxy("ZoneIngress/in")
				if err != nil {
					t.Fatal(err)
				}
				return len(slices.Collect(b.Resources.Each(xds.TypeCluster)))
			}
			before := offered()
			if rejected := s.Apply([]*kdsv1.Record{rec(t, c.kind, c.policy, c.spec)}, nil, false); len(rejected) > 0 {
				t.Fatal(rejected)
			}
			if got := offered(); got != before+1 {
				t.Errorf("the ingress offers %d, want one more than %d", got, before)
			}
			if s.Apply(nil, []resource.Key{key(c.kind, c.policy)}, false); offered() != before {
				t.Errorf("the ingress offers %d, want %d as before", offered(), before)
			}
		})
	}
}
