package proxyir

import (
	"fmt"
	"maps"
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

// tagsHeader holds the tags of a client that no certificate proves. Its own proxy writes it, over what the client sent, where a
// destination has a policy that asks for it; so a client may only lie about itself where nobody asks.
const tagsHeader = "x-zoneforge-source-tags"

// clientKinds are the kinds that a workload's proxy enforces by client.
var clientKinds = []string{"FaultInjection", "RateLimit"}

// byClient gives the routes of a workload what RateLimits and FaultInjections ask for by client. A route is split where clients
// differ, for each of the two kinds: the first of the routes that a request matches is that of its client by both.
func (b *builder) byClient(routes []ir.Route, tags map[string]string) []ir.Route {
	service := tags[resource.TagService]
	in := policy.Identities{Mesh: b.MeshName, Domain: b.Domain}
	faulty, limited := policy.Clients(b.Policies["FaultInjection"].To(tags), in, tags), policy.Clients(b.Policies["RateLimit"].To(tags), in, tags)
	for _, c := range faulty {
		b.use(c.Policies[0], "requests to %s", service)
	}
	routes = eachClient(routes, faulty, func(r ir.Route, c policy.Client) []ir.Route {
		// Nothing is inherited: the most specific one holds alone.
		spec, _ := c.Policies[0].Spec.(*meshv1.FaultInjection)
		if r.Filters.Faults == nil {
			r.Filters.Faults = faults(spec.GetConf().GetHttp()...)
		}
		return []ir.Route{r}
	})
	routes = eachClient(routes, limited, func(r ir.Route, c policy.Client) []ir.Route {
		return b.guard(r, b.fromRateLimits(c.Policies, fmt.Sprintf("requests to %s", service)))
	})
	if slices.ContainsFunc(slices.Concat(faulty, limited), func(c policy.Client) bool { return len(c.Tags) > 0 }) {
		for i := range routes {
			routes[i].RequestHeaders.Remove = append(slices.Clone(routes[i].RequestHeaders.Remove), tagsHeader)
		}
	}
	return routes
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
				of.Match.Headers = slices.Concat(r.Match.Headers, []ir.ValueMatch{clientMatch(c.ID)}, tagMatches(c.Tags))
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

// tagMatches compare the tags that the client's proxy has said.
func tagMatches(tags map[string]string) []ir.ValueMatch {
	var out []ir.ValueMatch
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		value := regexp.QuoteMeta(tags[k])
		if tags[k] == resource.AnyValue {
			value = "[^&]*"
		}
		out = append(out, ir.ValueMatch{Name: tagsHeader, TextMatch: ir.TextMatch{Kind: ir.TextRegex, Value: `.*&` + regexp.QuoteMeta(k) + `=` + value + `&.*`}})
	}
	return out
}

// sayTags has the proxy say its own tags to the services with a policy that asks for them.
func (b *builder) sayTags() {
	asking := func(service string) bool {
		for _, kind := range clientKinds {
			for _, r := range b.Policies[kind].To(map[string]string{resource.TagService: service}) {
				if spec, ok := r.Spec.(policy.ConnectionPolicy); ok && r.Mesh == b.MeshName && policy.AsksTags(spec) &&
					slices.ContainsFunc(spec.GetDestinations(), func(s *meshv1.Selector) bool {
						name := s.GetMatch()[resource.TagService]
						return name == "" || name == resource.AnyValue || name == service
					}) {
					return true
				}
			}
		}
		return false
	}
	clusters := map[string]bool{}
	for name, d := range b.destinations {
		clusters[name] = asking(d.Service)
	}
	said := ir.Header{Name: tagsHeader, Value: policy.TagsText(b.source)}
	for _, table := range b.proxy.Routes {
		for _, host := range table.VirtualHosts {
			for i := range host.Routes {
				r := &host.Routes[i]
				if r.Forward != nil && slices.ContainsFunc(r.Forward.Clusters, func(c ir.WeightedCluster) bool { return clusters[c.Cluster] }) {
					r.RequestHeaders.Set = append(slices.Clone(r.RequestHeaders.Set), said)
				}
			}
		}
	}
}

// notForTCP reports the policies for requests that select an inbound which speaks plain TCP.
func (b *builder) notForTCP(tags map[string]string) {
	in := policy.Identities{Mesh: b.MeshName, Domain: b.Domain}
	for _, kind := range clientKinds {
		for _, c := range policy.Clients(b.Policies[kind].To(tags), in, tags) {
			for _, r := range c.Policies {
				b.reject(r.Key, len(b.order), fmt.Errorf("%s speaks tcp, and a %s is for HTTP: give its inbound the tag %s, or select others",
					tags[resource.TagService], kind, resource.TagProtocol))
			}
		}
	}
}
