package state

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ingress"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// half is what one build gave for a proxy: all of it, or what comes into a sidecar, or what goes out. Replicas of a workload differ in
// their addresses alone, where requests come in, so they share the half by which they go out, and what was found for the other. It is immutable.
type half struct {
	resources *xds.Resources
	*findings
}

// goesOut marks a proxy of which something that goes out may have changed. What comes in is as it was, unless it leads somewhere, too.
func (s *State) goesOut(p *proxy) {
	if !p.workload.divides() || p.in == nil || len(p.in.needs)+len(p.in.externals) > 0 {
		s.touch(p)
		return
	}
	p.workload.out = nil
	s.dirty.proxies[p.ID] = struct{}{}
}

// touch marks a proxy of which anything may have changed.
func (s *State) touch(p *proxy) {
	p.in = nil
	if p.workload != nil {
		p.workload.out = nil
	}
	s.dirty.proxies[p.ID] = struct{}{}
}

// inputOf is all that a Dataplane is built from; wanted gathers the Secrets that are asked for.
func (s *State) inputOf(m *mesh, p *proxy, wanted set[string]) proxyir.Input {
	return proxyir.Input{
		Mesh: m.spec, MeshName: m.name, Zone: s.zone, Domain: m.bundle.GetDomain(), Name: p.Name, Dataplane: p.Dataplane, LogPipe: p.LogPipe, Modules: p.Modules, Refused: p.Refused,
		Policies: m.policies, Protocols: m.protocols(),
		HasSecret: func(name string) bool {
			cert, key, _ := strings.Cut(name, "+")
			for _, n := range []string{cert, key} {
				if n != "" {
					wanted[n] = struct{}{}
				}
			}
			return m.certificate(name) != nil
		},
		SecretData: func(name string) ([]byte, bool) {
			wanted[name] = struct{}{}
			v := m.secrets[name]
			if v == nil {
				return nil, false
			}
			return v.data, true
		},
		HasAuthorities: func(name string) bool { wanted[name] = struct{}{}; return m.authorities(name) != nil },
	}
}

// errWhole says that the halves of a sidecar can't be built apart.
var errWhole = errors.New("the halves are one")

// halves builds a sidecar in two, each of them only where something of it may have changed. The error says that it must be built
// whole, which also finds out what is wrong.
func (s *State) halves(m *mesh, p *proxy) ([]*half, error) {
	in, out := p.in, p.workload.out
	var err error
	if in == nil {
		if in, _, err = s.half(m, p, proxyir.Inbounds); err != nil {
			return nil, err
		}
	}
	if out == nil {
		shared := false
		if out, shared, err = s.half(m, p, proxyir.Outbounds); err != nil {
			return nil, err
		}
		if shared {
			p.workload.out = out
		}
	}
	p.in = in
	return []*half{in, out}, nil
}

// half builds one half; shared says that it is the same for all of the workload.
func (s *State) half(m *mesh, p *proxy, part proxyir.Part) (_ *half, shared bool, err error) {
	wanted := set[string]{}
	in := s.inputOf(m, p, wanted)
	in.Part = part
	result, err := proxyir.Sidecar(in)
	if err != nil {
		return nil, false, err
	}
	if result.Proxy.Template != nil {
		return nil, false, errWhole
	}
	var resources *xds.Resources
	before := 1
	if part == proxyir.Inbounds {
		before = 0
		result.Proxy.FormerJWT = p.former(requiredTokens(result.Proxy))
		if resources, err = xds.Build(result.Proxy); err == nil {
			s.built(resources)
		}
	} else {
		resources, err = s.memo.Build(result.Proxy, result.Personal)
	}
	if err != nil {
		return nil, false, err
	}
	h, err := s.halfOf(p, result, wanted, resources, p.had(before))
	return h, err == nil && !result.Personal, err
}

// halfOf is what was built of a proxy, which had other resources before or none.
func (s *State) halfOf(p *proxy, r *proxyir.Result, wanted set[string], resources, before *xds.Resources) (*half, error) {
	f := &findings{of: p.workload, secrets: r.Proxy.Secrets, wants: slices.Sorted(maps.Keys(wanted)), externals: r.Externals,
		rejected: r.Rejected, uses: r.Uses, tokens: requiredTokens(r.Proxy)}
	var err error
	if f.needs, err = s.needing(r.Destinations, ingress.ClientView); err != nil {
		return nil, fmt.Errorf("proxy %s: %w", p.ID, err)
	}
	s.interner.InternAll(resources, before)
	return &half{resources, f.shared()}, nil
}

// joined is all that halves are together; errWhole when they have different resources of one name.
func joined(halves []*half) (*Built, error) {
	if len(halves) == 1 {
		return &Built{Secrets: halves[0].secrets, Resources: halves[0].resources}, nil
	}
	in, out := halves[0], halves[1]
	secrets := together(halves, func(h *half) []string { return h.secrets }, cmp.Compare[string])
	built := &Built{Secrets: secrets, Resources: &xds.Resources{
		Listeners: in.resources.Listeners, Routes: in.resources.Routes, Clusters: in.resources.Clusters, Extensions: in.resources.Extensions, Shared: out.resources,
	}}
	for _, typeURL := range []string{xds.TypeListener, xds.TypeRoute, xds.TypeCluster, xds.TypeExtension} {
		a, b := built.Resources.Lists(typeURL)
		for _, r := range a {
			at, both := slices.BinarySearchFunc(b, r.Name, func(r *xds.Resource, name string) int { return cmp.Compare(r.Name, name) })
			if both && b[at].Version != r.Version {
				return nil, errWhole
			}
		}
	}
	return built, nil
}

// keep puts what was built in the place of what was built before.
func (s *State) keep(p *proxy, halves []*half) {
	s.adopt(p, halves)
	delete(s.refusing, p.ID)
	for _, h := range halves {
		if len(h.rejected) > 0 {
			s.refusing[p.ID] = struct{}{}
		}
	}
}

// destinations are the tags of all that a proxy leads to.
func (p *proxy) destinations(each func(tags map[string]string) bool) {
	for _, h := range p.halves {
		for tags := range h.destinations {
			if !each(tags) {
				return
			}
		}
	}
}

// leadsTo tells whether selectors match a destination of the proxy.
func (p *proxy) leadsTo(selectors []*meshv1.Selector) bool {
	for tags := range p.destinations {
		if matches(selectors, tags) {
			return true
		}
	}
	return false
}

func (p *proxy) rejected() []proxyir.Rejected {
	return together(p.halves, func(h *half) []proxyir.Rejected { return h.rejected }, func(x, y proxyir.Rejected) int {
		return cmp.Or(x.Key.Compare(y.Key), cmp.Compare(x.Reason, y.Reason))
	})
}

func (p *proxy) uses() []proxyir.Use {
	return together(p.halves, func(h *half) []proxyir.Use { return h.uses }, func(x, y proxyir.Use) int {
		return cmp.Or(x.Key.Compare(y.Key), cmp.Compare(x.Why, y.Why))
	})
}

// together are the values of halves, each once and in order, as each half has its own: the slice of a half that has all of them.
func together[T comparable](halves []*half, of func(*half) []T, compare func(T, T) int) []T {
	var all []T
	for _, h := range halves {
		switch list := of(h); {
		case len(all) == 0:
			all = list[:len(list):len(list)]
		default:
			all = append(all, list...)
		}
	}
	if len(halves) < 2 || len(all) == len(of(halves[0])) || len(all) == len(of(halves[1])) {
		return all // that of one half, which all proxies with it share
	}
	slices.SortStableFunc(all, compare)
	all = slices.Compact(all)
	for _, h := range halves {
		if list := of(h); len(list) == len(all) { // it has all that the other has
			return list
		}
	}
	return all
}

// Tidy forgets the resources that no proxy has.
func (s *State) Tidy() {
	used := map[*xds.Resource]bool{}
	look := func(h *half) {
		for _, list := range [][]*xds.Resource{h.resources.Listeners, h.resources.Routes, h.resources.Clusters, h.resources.Extensions} {
			for _, r := range list {
				used[r] = true
			}
		}
	}
	seen := map[*half]bool{}
	for _, p := range s.proxies {
		for _, h := range p.halves {
			if !seen[h] {
				seen[h] = true
				look(h)
			}
		}
	}
	is := func(r *xds.Resource) bool { return used[r] }
	s.interner.Keep(is)
	s.memo.Keep(is)
}
