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
	name        string
	destination ingress.Destination
	// tags are those by which the destination is asked for.
	tags  map[string]string
	view  ingress.View
	users set[*group]
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
	if p.workload.divides() {
		if halves, err := s.halves(m, p); err == nil {
			if built, err := joined(halves); err == nil {
				s.keep(p, halves)
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
	s.keep(p, halves)
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
	needs, err := s.needing(destinations, ingress.IngressView)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", p.ID, err)
	}
	s.interner.InternAll(resources, p.had(0))
	s.adopt(p, []*half{{resources, &findings{secrets: out.Secrets, needs: needs}}})
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

// needing are the endpoints of destinations, by name and each once. Those that nobody needs yet are not among the state's.
func (s *State) needing(destinations []ingress.Destination, view ingress.View) ([]*endpoints, error) {
	needs := make([]*endpoints, 0, len(destinations))
	for _, d := range destinations {
		sni, err := d.SNI()
		if err != nil {
			return nil, err
		}
		name := ingress.EndpointsName(sni, view)
		e := s.endpoints[name]
		if e == nil {
			e = &endpoints{name: name, destination: d, tags: tagsOf(d), view: view, users: set[*group]{}}
		}
		needs = append(needs, e)
	}
	slices.SortFunc(needs, func(a, b *endpoints) int { return cmp.Compare(a.name, b.name) })
	return slices.CompactFunc(needs, func(a, b *endpoints) bool { return a.name == b.name }), nil
}

// Users lists the proxies that need endpoints, sorted.
func (s *State) Users(endpoints string) []string {
	e := s.endpoints[endpoints]
	if e == nil {
		return nil
	}
	var out []string
	for p := range everyone(e.users) {
		out = append(out, p.ID)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Needs lists the endpoints that a proxy needs, sorted.
func (s *State) Needs(id string) []string {
	p := s.proxies[id]
	if p == nil {
		return nil
	}
	var out []string
	for _, h := range p.halves {
		for _, e := range h.needs {
			out = append(out, e.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// BuildEndpoints builds shared endpoints by their name; nil where no proxy needs them any more.
func (s *State) BuildEndpoints(name string) (*ir.Endpoints, error) {
	e := s.endpoints[name]
	if e == nil {
		return nil, nil
	}
	m := s.mesh(e.destination.Mesh)
	v := m.service(e.destination.Service)
	in := ingress.Endpoints{Destination: e.destination, Zone: s.zone, MTLS: m.mtls(), Local: make([]ingress.Local, 0, len(v.local))}
	ids := slices.AppendSeq(make([]string, 0, len(v.local)), maps.Keys(v.local))
	slices.Sort(ids)
	for _, id := range ids {
		in.Local = append(in.Local, v.local[id]...)
	}
	if e.view == ingress.ClientView {
		in.Locality = policy.LocalityFor(m.policies["LocalityPolicy"].To(e.tags), m.name, s.zone, e.tags)
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
