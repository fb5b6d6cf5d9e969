package state

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// endpoints are those of a destination in a view, shared by all proxies that need them.
type endpoints struct {
	destination ingress.Destination
	view        ingress.View
	users       set[string]
}

// Built is what a proxy is to be configured with, but for endpoints and the bytes of secrets.
type Built struct {
	// Secrets are the names of those that it is given, sorted.
	Secrets   []string
	Resources *xds.Resources
}

// BuildProxy builds a live proxy. A policy that can't be used costs itself only: see Rejected. It fails where the proxy itself
// can't be used, and when it is not there (ErrUnknown); the endpoints that it needed before are kept then.
func (s *State) BuildProxy(id string) (*Built, error) {
	p := s.proxies[id]
	if p == nil || !p.live {
		return nil, fmt.Errorf("proxy %s: %w", id, ErrUnknown)
	}
	if p.ZoneIngress != nil {
		return s.buildIngress(p)
	}
	m := s.mesh(p.Mesh)
	if p.workload != nil {
		if halves, err := s.halves(m, p); err == nil {
			if built, err := joined(halves); err == nil {
				s.keep(m, p, halves)
				p.asked(halves)
				return built, nil
			}
		}
	}
	p.in = nil
	whole, err := s.whole(m, p)
	if err != nil {
		return nil, err
	}
	halves := []*half{whole}
	s.keep(m, p, halves)
	p.asked(halves)
	return joined(halves)
}

// whole builds a Dataplane in one.
func (s *State) whole(m *mesh, p *proxy) (*half, error) {
	wanted := set[string]{}
	in := s.inputOf(m, p, wanted)
	gateway := p.Dataplane.GetNetworking().GetGateway() != nil
	build := proxyir.Sidecar
	if gateway {
		build = proxyir.Gateway
	}
	result, err := build(in)
	if err != nil {
		return nil, err
	}
	result.Proxy.FormerJWT = p.former(requiredTokens(result.Proxy))
	var resources *xds.Resources
	if gateway {
		resources, err = s.memo.Build(result.Proxy, false)
	} else if resources, err = xds.Build(result.Proxy); err == nil {
		s.built(resources)
	}
	if err != nil {
		if result, resources, err = withoutBad(build, in, result, err); err != nil {
			return nil, err
		}
		s.built(resources)
	}
	return s.halfOf(p, result, wanted, resources, p.had(0))
}

// tagsOf are the tags that a destination is asked for by.
func tagsOf(d ingress.Destination) map[string]string {
	tags := make(map[string]string, len(d.Subset)+1)
	maps.Copy(tags, d.Subset)
	tags[resource.TagService] = d.Service
	return tags
}

// ErrUnknown says that a proxy is not registered, or has no stream.
var ErrUnknown = errors.New("not a live proxy")

// buildIngress offers each service that is there, with its subsets.
func (s *State) buildIngress(p *proxy) (*Built, error) {
	var destinations []ingress.Destination
	for _, name := range slices.Sorted(maps.Keys(s.meshes)) {
		m := s.meshes[name]
		if !m.mtls() {
			continue
		}
		for _, service := range slices.Sorted(maps.Keys(m.services)) {
			destinations = append(destinations, m.offered(service, s.zone)...)
		}
	}
	out, err := ingress.Proxy(p.Name, p.ZoneIngress, destinations)
	if err != nil {
		return nil, err
	}
	resources, err := xds.Build(&out)
	if err != nil {
		return nil, err
	}
	s.built(resources)
	h := &half{resources: resources, secrets: out.Secrets}
	if err := h.needing(destinations, ingress.IngressView); err != nil {
		return nil, fmt.Errorf("proxy %s: %w", p.ID, err)
	}
	s.interner.InternAll(resources, p.had(0))
	p.halves = []*half{h}
	s.need(p, p.halves)
	return joined(p.halves)
}

// had are the resources of a half as it was built last, nil for none.
func (p *proxy) had(half int) *xds.Resources {
	if half < len(p.halves) {
		return p.halves[half].resources
	}
	return nil
}

func (m *mesh) offered(name, zone string) []ingress.Destination {
	v := m.services[name]
	if len(v.tagSets) == 0 {
		return nil
	}
	out := []ingress.Destination{{Mesh: m.name, Service: name}, {Mesh: m.name, Service: name, Subset: map[string]string{resource.TagZone: zone}}}
	for _, tag := range v.singles() {
		if k, value, ok := strings.Cut(tag, "\x00"); ok {
			out = append(out, ingress.Destination{Mesh: m.name, Service: name, Subset: map[string]string{k: value}})
		}
	}
	for _, sni := range slices.Sorted(maps.Keys(v.subsets)) {
		out = append(out, v.subsets[sni].destination)
	}
	return out
}

// need counts the users of the endpoints of halves, which may be none. Those without any become dirty, and BuildEndpoints tells that
// they are not wanted.
func (s *State) need(p *proxy, halves []*half) {
	names := together(halves, func(h *half) []string { return h.needed }, cmp.Compare[string])
	if slices.Equal(names, p.needs) {
		return
	}
	for _, h := range halves {
		for _, n := range h.needs {
			e := s.endpoints[n.name]
			if e == nil {
				e = &endpoints{destination: n.destination, view: n.view, users: set[string]{}}
				s.endpoints[n.name] = e
				s.mesh(n.destination.Mesh).service(n.destination.Service).names[n.name] = struct{}{}
				s.dirty.endpoints[n.name] = struct{}{}
			}
			e.users[p.ID] = struct{}{}
		}
	}
	for _, name := range p.needs {
		e := s.endpoints[name]
		if _, still := slices.BinarySearch(names, name); e == nil || still {
			continue
		}
		if delete(e.users, p.ID); len(e.users) == 0 {
			delete(s.endpoints, name)
			delete(s.mesh(e.destination.Mesh).service(e.destination.Service).names, name)
			s.dirty.endpoints[name] = struct{}{}
		}
	}
	p.needs = names
}

// Users lists the proxies that need endpoints, sorted.
func (s *State) Users(endpoints string) []string {
	e := s.endpoints[endpoints]
	if e == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(e.users))
}

// Needs lists the endpoints that a proxy needs, sorted.
func (s *State) Needs(id string) []string {
	if p := s.proxies[id]; p != nil {
		return p.needs
	}
	return nil
}

// BuildEndpoints builds shared endpoints by their name; nil where no proxy needs them any more.
func (s *State) BuildEndpoints(name string) (*ir.Endpoints, error) {
	e := s.endpoints[name]
	if e == nil {
		return nil, nil
	}
	m := s.mesh(e.destination.Mesh)
	v := m.service(e.destination.Service)
	in := ingress.Endpoints{Destination: e.destination, Zone: s.zone, MTLS: m.mtls()}
	for _, id := range slices.Sorted(maps.Keys(v.local)) {
		in.Local = append(in.Local, v.local[id]...)
	}
	if e.view == ingress.ClientView {
		tags := tagsOf(e.destination)
		in.Locality = policy.LocalityFor(m.policies["LocalityPolicy"].To(tags), m.name, s.zone, tags)
		for _, zone := range slices.Sorted(maps.Keys(v.available)) {
			in.Available = append(in.Available, v.available[zone])
		}
		for _, key := range slices.SortedFunc(maps.Keys(s.remotes), resource.Key.Compare) {
			if r := s.remotes[key]; v.available[r.Zone] != nil && !slices.Contains(in.Ingresses, r) {
				in.Ingresses = append(in.Ingresses, r)
			}
		}
	}
	out, err := in.Build(e.view)
	if err != nil {
		return nil, fmt.Errorf("endpoints %s: %w", name, err)
	}
	return &out, nil
}
