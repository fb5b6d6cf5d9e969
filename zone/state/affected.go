package state

import (
	"iter"
	"maps"
	"slices"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// policyChanged puts a policy into its mesh and marks the proxies that the old or the new version can affect.
func (s *State) policyChanged(m *mesh, key resource.Key, old, next *resource.Resource) {
	if next != nil {
		m.policies.Put(next)
	} else {
		m.policies.Delete(key)
	}
	if key.Kind == "LocalityPolicy" {
		s.astray = nil
	}
	for _, r := range []*resource.Resource{old, next} {
		if r != nil {
			s.affects(m, r)
		}
	}
	s.subsetsChanged(m, old, -1)
	s.subsetsChanged(m, next, +1)
}

func (s *State) affects(m *mesh, r *resource.Resource) {
	switch v := r.Spec.(type) {
	case *meshv1.MeshGateway:
		s.markIf(everyone(m.gateways), func(p *proxy) bool { return matches(v.GetSelectors(), p.workload.source) })
	case *meshv1.MeshGatewayRoute:
		s.markIf(everyone(m.gateways), func(p *proxy) bool { return s.routeReaches(m, v, p) })
	case *meshv1.Composition:
		s.markIf(everyone(m.gateways), func(p *proxy) bool { return s.routeReaches(m, v, p) })
	case *meshv1.FilterPolicy:
		s.markIf(everyone(m.gateways), func(p *proxy) bool { return s.routeReaches(m, v, p) })
		s.inboundsOf(m, v.GetSelectors())
	case *meshv1.RateLimit:
		s.markIf(everyone(m.gateways), func(p *proxy) bool { return s.routeReaches(m, v, p) })
		s.byClientOf(m, v)
	case *meshv1.FaultInjection:
		s.byClientOf(m, v)
	case *meshv1.ExternalService:
		m.spoken = nil
		s.externalAffects(m, v.GetTags())
	case *meshv1.TrafficPermission:
		if !m.mtls() {
			return
		}
		for _, r := range m.policies["ExternalService"].All() {
			if tags := spec[*meshv1.ExternalService](r).GetTags(); matches(v.GetDestinations(), tags) {
				s.externalAffects(m, tags)
			}
		}
		if tags := proxyir.ScraperTags(m.spec); tags != nil && matches(v.GetDestinations(), s.inZone(tags)) {
			s.mark(everyone(m.live))
			return
		}
		s.inboundsOf(m, v.GetDestinations())
	case *meshv1.TrafficLog:
		s.each(m.bySource, m, v.GetSources(), (*State).touch, func(p *proxy) bool { return matches(v.GetSources(), p.workload.source) })
	case *meshv1.TrafficTrace:
		s.selected(m, v.GetSelectors())
	case *meshv1.ProxyTemplate:
		s.selected(m, v.GetSelectors())
	case *meshv1.TrafficRoute:
		// It may balance load, or hide one that does, for clients that it doesn't route: hence destinations too.
		s.connections(m, v)
	case *meshv1.Timeout:
		s.connections(m, v)
	case *meshv1.Retry:
		s.connections(m, v)
	case *meshv1.CircuitBreaker:
		s.connections(m, v)
	case *meshv1.HealthCheck:
		s.connections(m, v)
	case *meshv1.LocalityPolicy:
		s.localities(m, v)
	}
}

// externalAffects marks the proxies that reach a service outside the mesh, and those that left something out, as that may be the
// reason.
func (s *State) externalAffects(m *mesh, tags map[string]string) {
	s.mark(everyone(m.byDestination[tags[resource.TagService]]))
	s.mark(s.refusers(m))
}

// localities marks the endpoints that a policy can order anew, and the proxies that are told that it holds for them.
func (s *State) localities(m *mesh, v *meshv1.LocalityPolicy) {
	names, exact := policy.Services(v.GetDestinations())
	if !exact {
		names = slices.Collect(maps.Keys(m.services))
	}
	for _, name := range names {
		known := m.services[name]
		if known == nil {
			continue
		}
		for endpoints := range known.names {
			if e := s.endpoints[endpoints]; e != nil && e.view == ingress.ClientView && matches(v.GetDestinations(), e.tags) {
				s.markOne(endpoints)
			}
		}
	}
	s.each(m.byDestination, m, v.GetDestinations(), (*State).goesOut, func(p *proxy) bool { return p.leadsTo(v.GetDestinations()) })
}

// connections marks the clients with a connection that a policy matches. They are looked for at the end that fewer proxies have: a
// service may have many clients of which a policy names few.
func (s *State) connections(m *mesh, v policy.ConnectionPolicy) {
	fits := func(p *proxy) bool {
		return matches(v.GetSources(), p.workload.source) &&
			(slices.ContainsFunc(p.workload.outbounds, func(o *meshv1.Dataplane_Outbound) bool { return matches(v.GetDestinations(), o.GetTags()) }) || p.leadsTo(v.GetDestinations()))
	}
	if among(m.byDestination, m, v.GetDestinations()) < among(m.bySource, m, v.GetSources()) {
		s.each(m.byDestination, m, v.GetDestinations(), (*State).goesOut, fits)
		return
	}
	s.each(m.bySource, m, v.GetSources(), (*State).goesOut, fits)
}

// among counts the proxies that each has to look at.
func among(x index, m *mesh, selectors []*meshv1.Selector) (n int) {
	names, exact := policy.Services(selectors)
	if !exact {
		return count(m.live)
	}
	for _, name := range names {
		n += count(x[name])
	}
	return n
}

// inboundsOf marks the workloads with an inbound that a policy selects.
func (s *State) inboundsOf(m *mesh, selectors []*meshv1.Selector) {
	if len(selectors) == 0 {
		return
	}
	s.each(m.byInbound, m, selectors, (*State).touch, func(p *proxy) bool {
		return slices.ContainsFunc(p.workload.inbounds, func(t map[string]string) bool { return matches(selectors, t) })
	})
}

// byClientOf marks the workloads that tell their clients apart by a policy, and where clients' proxies must say their tags for it,
// these too.
func (s *State) byClientOf(m *mesh, v policy.ConnectionPolicy) {
	s.inboundsOf(m, v.GetDestinations())
	if !policy.AsksTags(v) {
		return
	}
	names, exact := policy.Services(v.GetDestinations())
	if !exact {
		s.mark(everyone(m.live))
		return
	}
	for _, name := range names {
		s.mark(everyone(m.byDestination[name]))
	}
}

// selected marks the proxies that selectors of whole proxies match, by what they are as clients or by what they offer.
func (s *State) selected(m *mesh, selectors []*meshv1.Selector) {
	fits := func(p *proxy) bool { return p.knownBy(selectors) }
	names, exact := policy.Services(selectors)
	if !exact {
		s.markIf(everyone(m.live), fits)
		return
	}
	for _, name := range names {
		s.markIf(everyone(m.bySource[name]), fits)
		s.markIf(everyone(m.byInbound[name]), fits)
	}
}

// each marks the proxies that fit, looking only at those of the services that the selectors name, where all of them do.
func (s *State) each(x index, m *mesh, selectors []*meshv1.Selector, mark func(*State, *proxy), fits func(*proxy) bool) {
	look := func(groups set[*group]) {
		for p := range everyone(groups) {
			if s.work.Examined++; fits(p) {
				mark(s, p)
			}
		}
	}
	names, exact := policy.Services(selectors)
	if !exact {
		look(m.live)
		return
	}
	for _, name := range names {
		look(x[name])
	}
}

func (s *State) markIf(proxies iter.Seq[*proxy], fits func(*proxy) bool) {
	for p := range proxies {
		if s.work.Examined++; fits(p) {
			s.touch(p)
		}
	}
}

func anyone(*proxy) bool { return true }

func (s *State) mark(proxies iter.Seq[*proxy]) { s.markIf(proxies, anyone) }

// refusers are the proxies of a mesh that leave something out.
func (s *State) refusers(m *mesh) iter.Seq[*proxy] {
	return func(yield func(*proxy) bool) {
		for id := range s.refusing {
			if p := s.proxies[id]; p.Mesh == m.name && !yield(p) {
				return
			}
		}
	}
}

// knownBy tells whether selectors of whole proxies match one: its gateway, or any of its inbounds.
func (p *proxy) knownBy(selectors []*meshv1.Selector) bool {
	return matches(selectors, p.workload.source) || slices.ContainsFunc(p.workload.inbounds, func(t map[string]string) bool { return matches(selectors, t) })
}

func matches(selectors []*meshv1.Selector, tags map[string]string) bool {
	_, ok := policy.Best(selectors, tags)
	return ok
}

// routeReaches tells whether a policy selects a gateway or one of its listeners.
func (s *State) routeReaches(m *mesh, v policy.DataplanePolicy, p *proxy) bool {
	if matches(v.GetSelectors(), p.workload.source) {
		return true
	}
	gateway := spec[*meshv1.MeshGateway](policy.MostSpecific(m.policies["MeshGateway"].Of(p.workload.source), m.name, p.workload.source))
	for _, l := range gateway.GetConf().GetListeners() {
		tags := s.inZone(p.workload.source)
		for k, value := range l.GetTags() {
			tags[k] = value
		}
		if matches(v.GetSelectors(), tags) {
			return true
		}
	}
	return false
}

// subsetsChanged counts the subsets that a policy sends requests to, which ingresses have to offer.
func (s *State) subsetsChanged(m *mesh, r *resource.Resource, by int) {
	if r == nil {
		return
	}
	for _, t := range resource.Destinations(r) {
		if len(t) < 2 || t[resource.TagService] == "" || t[resource.TagService] == resource.AnyValue {
			continue
		}
		d := ingress.Destination{Mesh: m.name, Service: t[resource.TagService], Subset: map[string]string{}}
		for k, value := range t {
			if k != resource.TagService {
				d.Subset[k] = value
			}
		}
		sni, err := d.SNI()
		if err != nil {
			continue
		}
		v := m.service(d.Service)
		if v.subsets[sni] == nil {
			v.subsets[sni] = &subset{destination: d}
		}
		before := v.subsets[sni].count
		v.subsets[sni].count += by
		after := v.subsets[sni].count
		if after <= 0 {
			delete(v.subsets, sni)
		}
		if (before > 0) != (after > 0) && len(v.tagSets) > 0 {
			s.dirty.ingresses = true
		}
	}
}
