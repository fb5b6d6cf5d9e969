package proxyir_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

func limitRule(requests uint32, matches ...*meshv1.RequestMatch) *meshv1.RateLimit_Rule {
	return &meshv1.RateLimit_Rule{Matches: matches, Requests: requests, Interval: durationpb.New(time.Second)}
}

// limitsOf tells which limit each route of a table has.
func limitsOf(p *ir.Proxy, table string) string {
	var out strings.Builder
	for _, c := range p.Routes {
		for _, h := range c.VirtualHosts {
			for _, r := range h.Routes {
				if l := r.Filters.PolicyLimit; c.Name == table && l != nil {
					fmt.Fprintf(&out, "%s %s %s:", h.Name, r.Name, l.Name)
					for _, m := range r.Match.Headers {
						fmt.Fprintf(&out, " %s~%s", m.Name, m.Value)
					}
					out.WriteByte('\n')
				}
			}
		}
	}
	return out.String()
}

// TestRateLimitsOfAGateway holds that the first rule that matches counts, those of the more specific RateLimit first, and that
// routes which share a limit are given the same.
func TestRateLimitsOfAGateway(t *testing.T) {
	in := gatewayInput()
	in.Policies["MeshGateway"] = policy.NewList(res("MeshGateway", "g", &meshv1.MeshGateway{Selectors: sel(service("edge")), Conf: &meshv1.MeshGateway_Conf{
		Listeners: []*meshv1.MeshGateway_Listener{{Port: 80, Protocol: meshv1.MeshGateway_PROTOCOL_HTTP}}}}))
	for _, name := range []string{"regex", "api", "other"} {
		in.Policies["MeshGatewayRoute"].Delete(name)
	}
	prefix := meshv1.MatchType_MATCH_TYPE_PREFIX
	in.Policies["RateLimit"] = policy.NewList(
		res("RateLimit", "all", &meshv1.RateLimit{Selectors: sel(service("*")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{limitRule(5)}}}),
		res("RateLimit", "edge", &meshv1.RateLimit{Selectors: sel(service("edge")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{
			limitRule(1, path(prefix, "/a/b/c")), limitRule(2, path(prefix, "/a/b")),
		}}}),
		res("RateLimit", "other", &meshv1.RateLimit{Selectors: sel(service("shop")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{limitRule(9)}}}),
	)
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	want := `* exact/0/0 default/RateLimit/all/0:
* long/0/0 default/RateLimit/edge/0: :path~/a/b/c(?:[/?].*)?
* long/0/0 default/RateLimit/edge/1:
* get/0/0 default/RateLimit/edge/0: :path~/a/b/c(?:[/?].*)?
* get/0/0 default/RateLimit/edge/1: :path~/a/b(?:[/?].*)?
* get/0/0 default/RateLimit/all/0:
* short/0/0 default/RateLimit/edge/0: :path~/a/b/c(?:[/?].*)?
* short/0/0 default/RateLimit/edge/1: :path~/a/b(?:[/?].*)?
* short/0/0 default/RateLimit/all/0:
`
	if got := limitsOf(p, "gateway:80"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestLimitsAndFaultsOfAWorkload holds that both kinds tell clients apart, that plaintext proves nobody, and that an inbound which
// speaks TCP, or a service that is none, costs the policy alone.
func TestLimitsAndFaultsOfAWorkload(t *testing.T) {
	policies := sidecarPolicies()
	every := sel(service("*"))
	abort := &meshv1.FaultInjection_Conf{Http: []*meshv1.Fault{{Abort: &meshv1.Fault_Abort{HttpStatus: 500}}}}
	policies["RateLimit"] = []*resource.Resource{
		res("RateLimit", "all", &meshv1.RateLimit{Sources: every, Destinations: sel(service("web")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{limitRule(9)}}}),
		res("RateLimit", "edge", &meshv1.RateLimit{Sources: sel(service("edge")), Destinations: sel(service("web")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{limitRule(1)}}}),
		res("RateLimit", "tcp", &meshv1.RateLimit{Sources: every, Destinations: sel(service("db")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{limitRule(1)}}}),
		res("RateLimit", "unbuilt", &meshv1.RateLimit{Sources: sel(service("shop")), Destinations: sel(service("web")), Conf: &meshv1.RateLimit_Conf{Http: []*meshv1.RateLimit_Rule{
			{Requests: 1, Interval: durationpb.New(time.Second), Shared: &meshv1.SharedLimit{Service: &meshv1.Target{}}},
		}}}),
	}
	policies["FaultInjection"] = []*resource.Resource{
		res("FaultInjection", "edge", &meshv1.FaultInjection{Sources: sel(tags{resource.TagZone: "west"}), Destinations: sel(service("web")), Conf: abort}),
	}
	r, err := proxyir.Sidecar(input(mesh(meshv1.Mesh_MODE_PERMISSIVE), sidecar(), policies))
	if err != nil {
		t.Fatal(err)
	}
	var rejected []string
	for _, r := range r.Rejected {
		rejected = append(rejected, r.Key.Name+": "+r.Reason)
	}
	if got := strings.Join(rejected, "\n"); !strings.Contains(got, "tcp: db speaks tcp, and a RateLimit is for HTTP") || !strings.Contains(got, "unbuilt: http rule 0: rate limit: service: ") || len(rejected) != 2 {
		t.Errorf("rejected:\n%s", got)
	}
	var got []string
	for _, c := range r.Proxy.Routes {
		for _, h := range c.VirtualHosts {
			for _, route := range h.Routes {
				if strings.HasPrefix(c.Name, "inbound:10.0.0.1:80:") {
					limit := ""
					if l := route.Filters.PolicyLimit; l != nil {
						limit = l.Name
					}
					got = append(got, fmt.Sprintf("%s %d headers, faults %d, limit %s", c.Name, len(route.Match.Headers), len(route.Filters.Faults), limit))
				}
			}
		}
	}
	var want []string
	for _, kind := range []string{"mtls", "plaintext"} {
		for _, w := range []string{"2 headers, faults 1, limit default/RateLimit/edge/0", "2 headers, faults 1, limit default/RateLimit/all/0", "1 headers, faults 1, limit default/RateLimit/all/0",
			"1 headers, faults 0, limit default/RateLimit/edge/0", "1 headers, faults 0, limit default/RateLimit/all/0", "0 headers, faults 0, limit default/RateLimit/all/0"} {
			want = append(want, "inbound:10.0.0.1:80:"+kind+" "+w)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
