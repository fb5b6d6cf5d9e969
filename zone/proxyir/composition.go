package proxyir

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/composition"
	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// composer names the cluster of the composer beside a gateway's Envoy, and the listener and routes by which its calls come back.
const composer = "composer"

// composerGrace is how much longer than a composition its route waits, so that the composer is the one to say what took too long.
const composerGrace = time.Second

// compositions are the routes of a listener that lead to the composer. One that can't be built answers with 503, as its requests could
// fall to a wider rule otherwise.
func (b *builder) compositions(l *meshv1.MeshGateway_Listener, own string, tags map[string]string) ([]entry, error) {
	var out []entry
	for _, r := range policy.AllMatching(b.Policies["Composition"].Of(tags), b.MeshName, tags) {
		spec, ok := r.Spec.(*meshv1.Composition)
		if !ok {
			continue
		}
		hostnames := hostnamesWithin(own, spec.GetConf().GetHostnames())
		if len(hostnames) == 0 {
			continue
		}
		mark := len(b.order)
		e, calls, err := b.composition(r.Name, spec.GetConf())
		if errors.Is(err, errIdentity) {
			return nil, err
		}
		if err != nil {
			b.reject(r.Key, mark, err)
			if e.route.Match.Path.Kind == "" {
				continue
			}
			e.route, calls = closed(e.route.Name, e.route.Match), nil
		}
		if b.Closed[r.Key] {
			b.takeBack(mark)
			e.route, calls = closed(e.route.Name, e.route.Match), nil
		}
		b.tell(r.Key)
		b.use(r, "listener %d %s", l.GetPort(), own)
		e.hostnames = hostnames
		out = append(out, e)
		for _, route := range calls {
			if !slices.ContainsFunc(b.composed, func(has ir.Route) bool { return has.Name == route.Name }) {
				b.composed = append(b.composed, route)
			}
		}
	}
	return out, nil
}

// composition is the route to the composer with the plan in its headers, and those of its calls. With an error the entry tells its
// place, where that is known.
func (b *builder) composition(name string, conf *meshv1.Composition_Conf) (entry, []ir.Route, error) {
	plan := resource.Plan(name, conf)
	expression, exact, err := composition.PathExpression(plan.Path)
	if err != nil {
		return entry{}, nil, err
	}
	// Before all prefixes, as a path with its number of segments is more specific.
	e := entry{from: name, first: true, conditions: 1}
	e.route = ir.Route{Name: "composition/" + name, Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathRegex, Value: expression},
		Method: &ir.TextMatch{Kind: ir.TextExact, Value: "GET"}}}
	if exact {
		e.route.Match.Path.Kind = ir.PathExact
	}
	if conf.GetMethod() != "" {
		e.route.Match.Method.Value = strings.ToUpper(conf.GetMethod())
	}
	encoded, err := composition.Encode(plan)
	if err != nil {
		return e, nil, err
	}
	if err := b.filters("Composition/"+name, conf.GetFilters(), &e.route); err != nil {
		return e, nil, err
	}
	for _, h := range composition.Pieces(encoded) {
		e.route.RequestHeaders.Set = append(e.route.RequestHeaders.Set, ir.Header{Name: h.Name, Value: h.Value})
	}
	e.route.Forward = &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: composer, Weight: 1}}, Timeout: plan.Timeout + composerGrace}
	var calls []ir.Route
	var errs []error
	for i, call := range conf.GetCalls() {
		to, err := b.cluster(call.GetDestination())
		if err != nil {
			errs = append(errs, fmt.Errorf("call %s: %w", plan.Calls[i].Name, err))
			continue
		}
		id := name + "/" + plan.Calls[i].Name
		calls = append(calls, ir.Route{
			Name: id, Match: ir.RouteMatch{Path: anyPath.Path, Headers: []ir.ValueMatch{{Name: composition.CallHeader, TextMatch: ir.TextMatch{Kind: ir.TextExact, Value: id}}}},
			RequestHeaders: ir.HeaderChange{Remove: []string{composition.CallHeader}},
			Forward:        b.forward([]ir.WeightedCluster{{Cluster: to, Weight: 1}}, call.GetDestination()),
		})
	}
	return e, calls, errors.Join(errs...)
}

// composes adds what compositions need beside their routes, once a gateway.
func (b *builder) composes() {
	if !b.takesHTTP() {
		return
	}
	slices.SortFunc(b.composed, func(x, y ir.Route) int { return strings.Compare(x.Name, y.Name) })
	b.clusters[composer] = ir.Cluster{Name: composer, Protocol: ir.HTTP1, ConnectTimeout: policy.DefaultConnectTimeout, Static: &ir.Endpoint{Pipe: composition.Socket}}
	b.proxy.Listeners = append(b.proxy.Listeners, ir.Listener{Name: composer, Pipe: composition.BackSocket, Direction: ir.Outbound, Tags: b.source,
		Chains: []ir.FilterChain{{Name: composer, HTTP: &ir.HTTPConnection{StatPrefix: composer, RouteConfig: composer}}}})
	routes := append(slices.Clone(b.composed), ir.Route{Name: "not-found", Match: anyPath, Direct: &ir.DirectResponse{Status: 404}})
	b.proxy.Routes = append(b.proxy.Routes, ir.RouteConfig{Name: composer, Behind: true, VirtualHosts: []ir.VirtualHost{{Name: "calls", Domains: []string{"*"}, Routes: routes}}})
}
