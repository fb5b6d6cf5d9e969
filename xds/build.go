package xds

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
)

// Build translates all of a proxy but endpoints and secrets. It reports everything that is wrong at once, each error naming
// the listener, route or cluster; with any error there are no resources, so that no proxy is given half of its
// configuration, such as a route without its authorization. It keeps no reference to p and is safe for concurrent use.
func Build(p *ir.Proxy) (*Resources, error) { return (*Memo)(nil).Build(p, false) }

// Build is the function Build for a proxy of which others may have parts; personal says that its listeners are of no other, so that they
// are not remembered. It must not be called at the same time as the Memo's other methods.
func (m *Memo) Build(p *ir.Proxy, personal bool) (*Resources, error) {
	if p == nil {
		return nil, errors.New("proxy is nil")
	}
	names := namesOf(p)
	var out Resources
	proxies, problem := tcpProxies(p.Listeners, names)
	err := [5]error{4: problem}
	out.Listeners, err[0] = each("listener", p.Listeners, func(l *ir.Listener) (string, *Resource, error) {
		r, err := made(m, personal, TypeListener, l, names, nil, func() (*Resource, error) { return listener(l, names) })
		return l.Name, r, err
	})
	out.Routes, err[1] = each("routes", p.Routes, func(c *ir.RouteConfig) (string, *Resource, error) {
		r, err := made(m, false, TypeRoute, c, names, nil, func() (*Resource, error) { return routeConfig(c, names) })
		return c.Name, r, err
	})
	out.Clusters, err[2] = each("cluster", p.Clusters, func(c *ir.Cluster) (string, *Resource, error) {
		r, err := made(m, false, TypeCluster, c, names, names.certificate(c), func() (*Resource, error) { return cluster(c) })
		return c.Name, r, err
	})
	out.Extensions, err[3] = each("authorization", p.Authorizations, func(a *ir.NamedAuthorization) (string, *Resource, error) {
		r, err := extension(a)
		if err == nil {
			r.personalize(names.own)
		}
		return a.Name, r, err
	})
	filters, inFilters := discoveredFilters(p)
	if err := errors.Join(append(err[:], inFilters)...); err != nil {
		return nil, err
	}
	out.Extensions = slices.Concat(out.Extensions, proxies, filters)
	slices.SortFunc(out.Extensions, func(a, b *Resource) int { return cmp.Compare(a.Name, b.Name) })
	m.count(out.Extensions...)
	if p.Template != nil {
		if err := applyTemplate(p, names, &out); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// each builds a resource of each value and sorts them by name, since values may come in any order.
func each[T any](what string, values []T, build func(*T) (string, *Resource, error)) ([]*Resource, error) {
	var out []*Resource
	var errs []error
	seen := map[string]bool{}
	for i := range values {
		name, r, err := build(&values[i])
		if seen[name] {
			errs = append(errs, fmt.Errorf("%s %q: there are two of this name: rename one", what, name))
		}
		seen[name] = true
		if err != nil {
			errs = append(errs, inEach(err, fmt.Sprintf("%s %q", what, name)))
			continue
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *Resource) int { return cmp.Compare(a.Name, b.Name) })
	return out, errors.Join(errs...)
}

// inEach says where an error is, for each one if several are joined, so that every line stands on its own.
func inEach(err error, where string) error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", where, err)
	}
	var errs []error
	for _, one := range joined.Unwrap() {
		errs = append(errs, inEach(one, where))
	}
	return errors.Join(errs...)
}
