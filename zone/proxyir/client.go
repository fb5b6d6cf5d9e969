package proxyir

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// clientHeader names who the request came through; the last of its elements is the peer, as the proxy found it in its certificate.
const clientHeader = "x-forwarded-client-cert"

// byClient gives the routes of a workload what RateLimits and FaultInjections ask for by client. A route is split where clients
// differ, for each of the two kinds: the first of the routes that a request matches is that of its client by both.
func (b *builder) byClient(routes []ir.Route, tags map[string]string) []ir.Route {
	service := tags[resource.TagService]
	in := policy.Identities{Mesh: b.MeshName, Domain: b.Domain}
	for _, c := range policy.Clients(b.Policies["FaultInjection"], in, tags) {
		for _, r := range c.Policies[:1] {
			b.use(r, "requests to %s", service)
		}
	}
	routes = eachClient(routes, policy.Clients(b.Policies["FaultInjection"], in, tags), func(r ir.Route, c policy.Client) []ir.Route {
		// Nothing is inherited: the most specific one holds alone.
		spec, _ := c.Policies[0].Spec.(*meshv1.FaultInjection)
		if r.Filters.Faults == nil {
			r.Filters.Faults = faults(spec.GetConf().GetHttp()...)
		}
		return []ir.Route{r}
	})
	return eachClient(routes, policy.Clients(b.Policies["RateLimit"], in, tags), func(r ir.Route, c policy.Client) []ir.Route {
		return b.guard(r, b.fromRateLimits(c.Policies, fmt.Sprintf("requests to %s", service)))
	})
}

// eachClient makes of each route one for each kind of client, in their order, and one for all others.
func eachClient(routes []ir.Route, clients []policy.Client, make func(ir.Route, policy.Client) []ir.Route) []ir.Route {
	var out []ir.Route
	for _, r := range routes {
		rest := true
		for _, c := range clients {
			of := r
			if c.Any {
				rest = false
			} else {
				of.Match.Headers = append(slices.Clone(r.Match.Headers), clientMatch(c.ID))
			}
			out = append(out, make(of, c)...)
		}
		if rest {
			out = append(out, r)
		}
	}
	return out
}

// clientMatch compares the peer's identity. What comes before the last comma is what the peer says of others.
func clientMatch(id ir.TextMatch) ir.ValueMatch {
	expression := strings.NewReplacer(`[^/]`, `[^/,;]`, `[^./]`, `[^./,;]`).Replace(strings.TrimSuffix(strings.TrimPrefix(id.Value, "^"), "$"))
	if id.Kind == ir.TextExact {
		expression = regexp.QuoteMeta(id.Value)
	}
	return ir.ValueMatch{Name: clientHeader, TextMatch: ir.TextMatch{Kind: ir.TextRegex, Value: `(?:.*,)?(?:[^,]*;)?URI=` + expression + `(?:;[^,]*)?`}}
}

// notForTCP reports the policies for requests that select an inbound which speaks plain TCP.
func (b *builder) notForTCP(tags map[string]string) {
	in := policy.Identities{Mesh: b.MeshName, Domain: b.Domain}
	for _, kind := range []string{"FaultInjection", "RateLimit"} {
		for _, c := range policy.Clients(b.Policies[kind], in, tags) {
			for _, r := range c.Policies {
				b.reject(r.Key, len(b.order), fmt.Errorf("%s speaks tcp, and a %s is for HTTP: give its inbound the tag %s, or select others",
					tags[resource.TagService], kind, resource.TagProtocol))
			}
		}
	}
}
