package proxyir

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// filter adds what one filter does to a route. It is the one place that knows all filters; what says where a request goes
// (rewrite, redirect, mirror, directResponse) is action's.
func (b *builder) filter(f *meshv1.Filter, r *ir.Route) error {
	// Without what isn't known here it may let pass what it should not.
	if unknown := resource.Unknown(f); len(unknown) > 0 {
		return fmt.Errorf("a filter has what this version doesn't know: %s; upgrade the zone", unknown[0])
	}
	switch v := f.GetFilter().(type) {
	case *meshv1.Filter_RequestHeader:
		headerChange(&r.RequestHeaders, v.RequestHeader)
	case *meshv1.Filter_ResponseHeader:
		headerChange(&r.ResponseHeaders, v.ResponseHeader)
	case *meshv1.Filter_Cors:
		r.Filters.CORS = cors(v.Cors)
	case *meshv1.Filter_RateLimit:
		l, err := b.rateLimit(b.from, v.RateLimit)
		r.Filters.RateLimit = l
		return err
	case *meshv1.Filter_BodySize:
		n, err := resource.Bytes(v.BodySize.GetMax())
		r.Filters.MaxBody = n
		return err
	case *meshv1.Filter_Admission:
		r.Filters.Admission = b.admission(b.from, v.Admission)
	case *meshv1.Filter_Fault:
		r.Filters.Faults = faults(v.Fault)
	case *meshv1.Filter_Bandwidth:
		w, err := b.bandwidth(b.from, v.Bandwidth)
		r.Filters.Bandwidth = w
		return err
	case *meshv1.Filter_Compression:
		r.Filters.Compression = compression(v.Compression)
	case *meshv1.Filter_Transcode:
		var err error
		r.Filters.Transcode, err = b.transcode(v.Transcode)
		return err
	case *meshv1.Filter_Cache:
		r.Filters.Cache = cache(v.Cache)
	case *meshv1.Filter_GrpcWeb:
		r.Filters.GRPCWeb = &ir.GRPCWeb{}
	case *meshv1.Filter_ApiKey:
		return b.apiKey(v.ApiKey, r)
	case *meshv1.Filter_BasicAuth:
		return b.basicAuth(v.BasicAuth, r)
	case *meshv1.Filter_ExtAuth:
		return b.extAuth(v.ExtAuth, r)
	case *meshv1.Filter_ClientAddress:
		return clientAddress(v.ClientAddress, r)
	case *meshv1.Filter_Transform:
		return transform(&r.Filters, v.Transform)
	case *meshv1.Filter_Lua:
		r.Filters.Lua = lua(v.Lua)
	case *meshv1.Filter_Wasm:
		return b.wasm(&r.Filters, v.Wasm)
	case *meshv1.Filter_ExtProc:
		return b.extProc(&r.Filters, v.ExtProc)
	case *meshv1.Filter_Service:
		return b.transformService(&r.Filters, v.Service)
	case *meshv1.Filter_Jwt:
		jwt, err := b.jwt(v.Jwt)
		if err != nil {
			return err
		}
		r.Filters.JWT = jwt
	case *meshv1.Filter_Oidc:
		oidc, err := b.oidc(v.Oidc)
		if err != nil {
			return err
		}
		r.Filters.OIDC = oidc
	}
	return nil
}

// filters adds a list of them; the error names the one that fails. from tells where they stand: what counts is named for it, and
// counts together for all routes that are given the same.
func (b *builder) filters(from string, list []*meshv1.Filter, r *ir.Route) error {
	b.from = from
	for i, f := range list {
		if err := b.filter(f, r); err != nil {
			return fmt.Errorf("filter %d: %w", i, err)
		}
	}
	return nil
}

// attachment is what a listener or a policy adds to routes.
type attachment struct {
	// key is to blame.
	key resource.Key
	// matches are the requests it is for, any of them; none takes all.
	matches []*meshv1.RequestMatch
	// does holds the filters and header changes.
	does ir.Route
	// broken says that it can't be built, so that what it covers must not be reached.
	broken bool
}

// attachments builds a list of filters: their rules in order, then those for all requests, which count where no rule says more.
// Where one can't be built it is reported, and takes the place of all.
func (b *builder) attachments(key resource.Key, from string, list []*meshv1.Filter, cors *meshv1.Cors) []attachment {
	var out []attachment
	mark := len(b.order)
	fail := func(err error) []attachment {
		b.reject(key, mark, err)
		return []attachment{{key: key, broken: true}}
	}
	all := attachment{key: key}
	var plain []*meshv1.Filter
	for i, f := range list {
		rules := f.GetHttp()
		if rules == nil {
			plain = append(plain, f)
			continue
		}
		for n, rule := range rules.GetRules() {
			one := attachment{key: key, matches: rule.GetMatches()}
			if err := b.filters(fmt.Sprintf("%s/%d/%d", from, i, n), rule.GetFilters(), &one.does); err != nil {
				return fail(fmt.Errorf("filter %d: rule %d: %w", i, n, err))
			}
			out = append(out, one)
		}
	}
	if cors != nil {
		plain = append(plain, &meshv1.Filter{Filter: &meshv1.Filter_Cors{Cors: cors}})
	}
	if err := b.filters(from, plain, &all.does); err != nil {
		return fail(err)
	}
	if len(plain) > 0 {
		out = append(out, all)
	}
	b.tell(key)
	return out
}

// filterPolicies are the FilterPolicies for a proxy or listener with these tags, the most specific first.
func (b *builder) filterPolicies(tags map[string]string) []*resource.Resource {
	return policy.AllMatching(b.Policies["FilterPolicy"].Of(tags), b.MeshName, tags)
}

// fromPolicy builds a FilterPolicy once for all the routes that it is for.
func (b *builder) fromPolicy(r *resource.Resource) []attachment {
	if made, ok := b.attached[r.Key]; ok {
		return made
	}
	spec, _ := r.Spec.(*meshv1.FilterPolicy)
	made := []attachment{{key: r.Key, broken: true}}
	if !b.Closed[r.Key] {
		made = b.attachments(r.Key, "FilterPolicy/"+r.Name, spec.GetConf().GetFilters(), nil)
	}
	b.attached[r.Key] = made
	return made
}

// policyCovers tells whether a FilterPolicy takes a rule of a MeshGatewayRoute, or of no route, whose first backend has these tags.
func policyCovers(r *resource.Resource, route string, backend map[string]string) bool {
	spec, ok := r.Spec.(*meshv1.FilterPolicy)
	if !ok || len(spec.GetRoutes()) > 0 && !slices.Contains(spec.GetRoutes(), route) {
		return false
	}
	if len(spec.GetDestinations()) == 0 {
		return true
	}
	_, matches := policy.Best(spec.GetDestinations(), backend)
	return matches
}

// guard is attach, but for a route that becomes too many: it is answered with 503, and those whose conditions cut it are told.
func (b *builder) guard(route ir.Route, list []attachment) []ir.Route {
	list = b.keepPath(route, list)
	routes, err := attach(route, list)
	if err == nil {
		return routes
	}
	for _, a := range list {
		if len(a.matches) > 0 {
			b.reject(a.key, len(b.order), fmt.Errorf("route %s: %w", route.Name, err))
		}
	}
	return []ir.Route{add(route, route.Match, attachment{broken: true})}
}

// guarded gives the route of a workload what FilterPolicies for its inbound add. Those for routes are for gateways alone.
func (b *builder) guarded(route ir.Route, tags map[string]string) []ir.Route {
	var list []attachment
	for _, r := range b.filterPolicies(tags) {
		if policyCovers(r, "", tags) {
			b.use(r, "requests to %s", tags[resource.TagService])
			list = append(list, b.fromPolicy(r)...)
		}
	}
	return b.guard(route, list)
}

// attach gives a route what attachments add, the nearest first: of each type of filter the first one counts, and header changes
// add up, those from farther away first. Where an attachment is for some requests only, the route is split. What a broken
// attachment covers is answered with 503.
func attach(route ir.Route, list []attachment) ([]ir.Route, error) {
	routes := []ir.Route{route}
	for _, a := range list {
		matches := a.matches
		if len(matches) == 0 {
			matches = []*meshv1.RequestMatch{{}}
		}
		var next []ir.Route
		for _, r := range routes {
			// Or rules of which the first one decides would cut each part that has been decided on once more.
			if !a.addsTo(r) {
				next = append(next, r)
				continue
			}
			rest := true
			for _, m := range matches {
				inside, relation := narrow(r.Match, m)
				if relation == disjoint {
					continue
				}
				next = append(next, add(r, inside, a))
				if relation == whole {
					rest = false
					break
				}
			}
			if rest {
				next = append(next, r)
			}
		}
		if routes = next; len(routes) > maxSplit {
			return nil, fmt.Errorf("conditions of filters cut the route into more than %d parts: match less finely", maxSplit)
		}
	}
	return routes, nil
}

// addsTo tells whether a route would be another with it.
func (a attachment) addsTo(r ir.Route) bool {
	if a.broken || !reflect.DeepEqual(a.does.RequestHeaders, ir.HeaderChange{}) || !reflect.DeepEqual(a.does.ResponseHeaders, ir.HeaderChange{}) {
		return true
	}
	has, more := reflect.ValueOf(r.Filters), reflect.ValueOf(a.does.Filters)
	for i := range has.NumField() {
		if has.Field(i).IsZero() && !more.Field(i).IsZero() {
			return true
		}
	}
	return false
}

// add gives a route that matches as said what it doesn't have yet.
func add(r ir.Route, match ir.RouteMatch, a attachment) ir.Route {
	r.Match = match
	if a.broken {
		return closed(r.Name, match)
	}
	r.RequestHeaders = farther(a.does.RequestHeaders, r.RequestHeaders)
	r.ResponseHeaders = farther(a.does.ResponseHeaders, r.ResponseHeaders)
	has, more := reflect.ValueOf(&r.Filters).Elem(), reflect.ValueOf(a.does.Filters)
	for i := range has.NumField() {
		if has.Field(i).IsZero() {
			has.Field(i).Set(more.Field(i))
		}
	}
	return r
}

// closed answers what must not be reached, as what guards it can't be built.
func closed(name string, match ir.RouteMatch) ir.Route {
	return ir.Route{Name: name, Match: match, Direct: &ir.DirectResponse{Status: 503, Body: "a policy of this route can't be used\n"}}
}

// farther puts changes from farther away before those that are there, so that the nearer ones have the last word.
func farther(far, near ir.HeaderChange) ir.HeaderChange {
	return ir.HeaderChange{
		Set: slices.Concat(far.Set, near.Set), Add: slices.Concat(far.Add, near.Add), Remove: slices.Concat(far.Remove, near.Remove),
	}
}

// maxSplit bounds how many routes one may become.
const maxSplit = 128
