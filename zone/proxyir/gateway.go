package proxyir

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Gateway builds a builtin gateway. The most specific MeshGateway gives it its listeners; without one it has none. Every
// MeshGatewayRoute that matches the gateway or a listener adds its rules. It fails only where the gateway has no identity.
//
// A hostname belongs to the most specific listener of its port that covers it. Within a hostname, requests are matched against
// exact paths, then prefixes, the longest first, then regexes; among equals those with more conditions come first, then by the
// route's name, and then in the order that the route gives. What nothing matches is answered with 404. Timeouts and retries
// are those for the first backend of a rule.
func Gateway(in Input) (*Result, error) {
	n := in.Dataplane.GetNetworking()
	b := newBuilder(in, ir.Gateway, n.GetGateway().GetTags())
	var conf *meshv1.MeshGateway_Conf
	r := policy.MostSpecific(b.Policies["MeshGateway"].Of(b.source), in.MeshName, b.source)
	if r != nil {
		if spec, ok := r.Spec.(*meshv1.MeshGateway); ok {
			conf = spec.GetConf()
			b.use(r, "listeners of this gateway")
		}
	}
	ports := map[uint32][]*meshv1.MeshGateway_Listener{}
	for _, l := range conf.GetListeners() {
		ports[l.GetPort()] = append(ports[l.GetPort()], l)
	}
	var errs []error
	for _, port := range slices.Sorted(maps.Keys(ports)) {
		if in.Ports[port] == PortAbsent {
			continue
		}
		if err := b.port(r.Key, port, ports[port]); err != nil {
			errs = append(errs, fmt.Errorf("dataplane %s/%s: gateway port %d: %w", in.MeshName, in.Name, port, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return b.finish(), nil
}

// entry is a route of the proxy with what decides its place.
type entry struct {
	route      ir.Route
	from       string
	rule       int
	conditions int
	hostnames  []string
	// backend holds the tags of the rule's first one.
	backend map[string]string
	// first puts it right behind the exact paths.
	first bool
}

// hosts makes the virtual hosts of one listener. As Envoy looks into one virtual host alone, a hostname also holds the routes of
// wider hostnames.
func (b *builder) hosts(gateway resource.Key, l *meshv1.MeshGateway_Listener, all []*meshv1.MeshGateway_Listener) ([]ir.VirtualHost, error) {
	tags := maps.Clone(b.source)
	maps.Copy(tags, l.GetTags())
	own := hostname(l.GetHostname())
	domains := map[string]bool{own: true}
	var entries []entry
	for _, r := range policy.AllMatching(b.Policies["MeshGatewayRoute"].Of(tags), b.MeshName, tags) {
		spec, ok := r.Spec.(*meshv1.MeshGatewayRoute)
		if !ok || spec.GetConf().GetHttp() == nil {
			continue
		}
		hostnames := hostnamesWithin(own, spec.GetConf().GetHttp().GetHostnames())
		if len(hostnames) == 0 {
			continue
		}
		var more []entry
		for i, rule := range spec.GetConf().GetHttp().GetRules() {
			made, err := b.rule(r.Key, i, rule)
			if err != nil {
				return nil, err
			}
			b.tell(r.Key)
			more = append(more, made...)
		}
		b.use(r, "listener %d %s", l.GetPort(), own)
		for _, h := range hostnames {
			domains[h] = true
		}
		for _, e := range more {
			e.hostnames = hostnames
			entries = append(entries, e)
		}
	}
	composed, err := b.compositions(l, own, tags)
	if err != nil {
		return nil, err
	}
	for _, e := range composed {
		entries = append(entries, e)
		for _, h := range e.hostnames {
			domains[h] = true
		}
	}
	slices.SortStableFunc(entries, compareEntries)
	attached := b.attach(gateway, l, tags, entries)
	var out []ir.VirtualHost
	for _, domain := range slices.Sorted(maps.Keys(domains)) {
		if owner(domain, all) != own {
			continue
		}
		host := ir.VirtualHost{Name: domain, Domains: []string{domain}}
		for i, e := range entries {
			if slices.ContainsFunc(e.hostnames, func(h string) bool { return covers(h, domain) }) {
				host.Routes = append(host.Routes, attached[i]...)
			}
		}
		host.Routes = withLogins(b.partLogins(domain, host.Routes))
		host.Routes = append(host.Routes, ir.Route{Name: "not-found", Match: anyPath, Direct: &ir.DirectResponse{Status: 404}})
		out = append(out, host)
	}
	return out, nil
}

// hostnamesWithin are the hostnames of a route as far as they are those of its listener; all of the listener's where it names none.
func hostnamesWithin(own string, names []string) []string {
	if len(names) == 0 {
		return []string{own}
	}
	var out []string
	for _, h := range names {
		h = hostname(h)
		switch {
		case covers(own, h):
			out = append(out, h)
		case covers(h, own):
			out = append(out, own)
		}
	}
	return out
}

// attach gives the routes of a listener the filters of policies and of the listener: those of policies for one route come before the
// listener's, and these before those of policies for the whole gateway.
func (b *builder) attach(gateway resource.Key, l *meshv1.MeshGateway_Listener, tags map[string]string, entries []entry) [][]ir.Route {
	policies := b.filterPolicies(tags)
	own := b.ofListener(gateway, l)
	limits := b.gatewayLimits(tags, fmt.Sprintf("listener %d %s", l.GetPort(), hostname(l.GetHostname())))
	out := make([][]ir.Route, len(entries))
	for i, e := range entries {
		var near, far []attachment
		for _, r := range policies {
			if !policyCovers(r, e.from, e.backend) {
				continue
			}
			b.use(r, "route %s", e.from)
			if spec, _ := r.Spec.(*meshv1.FilterPolicy); len(spec.GetRoutes())+len(spec.GetDestinations()) > 0 {
				near = append(near, b.fromPolicy(r)...)
			} else {
				far = append(far, b.fromPolicy(r)...)
			}
		}
		out[i] = b.guard(e.route, slices.Concat(near, own, far, limits))
	}
	return out
}

// ofListener builds the filters of a listener.
func (b *builder) ofListener(gateway resource.Key, l *meshv1.MeshGateway_Listener) []attachment {
	switch b.Ports[l.GetPort()] {
	case PortWithoutFilters:
		return nil
	case PortClosed:
		return []attachment{{key: gateway, broken: true}}
	}
	return b.attachments(gateway, fmt.Sprintf("MeshGateway/%s/%d/%s", gateway.Name, l.GetPort(), hostname(l.GetHostname())), l.GetFilters(), l.GetCors())
}

// compareEntries is negative where x is tried before y.
func compareEntries(x, y entry) int {
	place := map[ir.PathKind]int{ir.PathExact: 0, ir.PathSegments: 1, ir.PathRegex: 2}
	p, q := x.route.Match.Path, y.route.Match.Path
	longest := 0
	if p.Kind == ir.PathSegments && q.Kind == ir.PathSegments {
		longest = cmp.Compare(len(strings.TrimRight(q.Value, "/")), len(strings.TrimRight(p.Value, "/")))
	}
	before := func(e entry) int {
		if e.first && e.route.Match.Path.Kind != ir.PathExact {
			return 0
		}
		return 2*place[e.route.Match.Path.Kind] - 1
	}
	return cmp.Or(cmp.Compare(before(x), before(y)), longest, cmp.Compare(y.conditions, x.conditions),
		cmp.Compare(x.from, y.from), cmp.Compare(x.rule, y.rule))
}

// rule makes the routes of a rule. One that can't be built answers with 503: left out, its requests could fall to a wider rule
// that asks for nothing. It fails only where the gateway has no identity.
func (b *builder) rule(key resource.Key, index int, rule *meshv1.MeshGatewayRoute_Rule) ([]entry, error) {
	from, mark := key.Name, len(b.order)
	base, err := closed("", anyPath), error(nil)
	if !b.Closed[key] {
		base, err = b.ruleRoute(fmt.Sprintf("MeshGatewayRoute/%s/%d", from, index), rule)
	}
	if errors.Is(err, errIdentity) {
		return nil, err
	}
	if err != nil {
		b.reject(key, mark, fmt.Errorf("rule %d: %w", index, err))
		base = closed("", anyPath)
	}
	matches := rule.GetMatches()
	if len(matches) == 0 {
		matches = []*meshv1.RequestMatch{{}}
	}
	var out []entry
	for i, m := range matches {
		e := entry{route: base, from: from, rule: index, conditions: len(m.GetHeaders()) + len(m.GetQueryParameters())}
		if len(rule.GetBackends()) > 0 {
			e.backend = rule.GetBackends()[0].GetDestination()
		}
		e.route.Name = fmt.Sprintf("%s/%d/%d", from, index, i)
		e.route.Match = requestMatch(m)
		if m.GetMethod() != "" {
			e.conditions++
		}
		out = append(out, e)
	}
	return out, nil
}

// ruleRoute is what a rule does with the requests that it matches.
func (b *builder) ruleRoute(from string, rule *meshv1.MeshGatewayRoute_Rule) (ir.Route, error) {
	route, err := b.action(rule)
	if err != nil {
		return ir.Route{}, err
	}
	route.Filters.CORS = cors(rule.GetCors())
	return route, b.filters(from, rule.GetFilters(), &route)
}

// requestMatch takes every path where none is said.
func requestMatch(m *meshv1.RequestMatch) ir.RouteMatch {
	out := ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathSegments, Value: "/"}, Headers: values(m.GetHeaders()), Query: values(m.GetQueryParameters())}
	if p := m.GetPath(); p != nil {
		out.Path.Value = p.GetValue()
		switch p.GetMatch() {
		case meshv1.MatchType_MATCH_TYPE_EXACT:
			out.Path.Kind = ir.PathExact
		case meshv1.MatchType_MATCH_TYPE_REGEX:
			out.Path.Kind = ir.PathRegex
		}
	}
	if m.GetMethod() != "" {
		out.Method = &ir.TextMatch{Kind: ir.TextExact, Value: m.GetMethod()}
	}
	return out
}

func values(list []*meshv1.ValueMatch) []ir.ValueMatch {
	var out []ir.ValueMatch
	for _, v := range list {
		kind := ir.TextExact
		switch v.GetMatch() {
		case meshv1.MatchType_MATCH_TYPE_PREFIX:
			kind = ir.TextPrefix
		case meshv1.MatchType_MATCH_TYPE_REGEX:
			kind = ir.TextRegex
		case meshv1.MatchType_MATCH_TYPE_PRESENT:
			kind = ir.TextPresent
		case meshv1.MatchType_MATCH_TYPE_ABSENT:
			kind = ir.TextAbsent
		}
		out = append(out, ir.ValueMatch{Name: v.GetName(), TextMatch: ir.TextMatch{Kind: kind, Value: v.GetValue()}})
	}
	return out
}

func cors(c *meshv1.Cors) *ir.CORS {
	if c == nil {
		return nil
	}
	out := &ir.CORS{Methods: c.GetAllowMethods(), Headers: c.GetAllowHeaders(), ExposeHeaders: c.GetExposeHeaders(), Credentials: c.GetAllowCredentials()}
	for _, o := range c.GetAllowOrigins() {
		out.Origins = append(out.Origins, text(o))
	}
	if c.MaxAge != nil {
		age := time.Duration(c.GetMaxAge()) * time.Second
		out.MaxAge = &age
	}
	return out
}
