package state

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
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
	Proxy     *ir.Proxy
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
	wanted := set[string]{}
	in := proxyir.Input{
		Mesh: m.spec, MeshName: m.name, Zone: s.zone, Domain: m.bundle.GetDomain(), Name: p.Name, Dataplane: p.Dataplane, LogPipe: p.LogPipe, Modules: p.Modules,
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
	build := proxyir.Sidecar
	if p.Dataplane.GetNetworking().GetGateway() != nil {
		build = proxyir.Gateway
	}
	result, err := build(in)
	if err != nil {
		return nil, err
	}
	current := requiredTokens(result.Proxy)
	former := p.formerJWT
	if !reflect.DeepEqual(current, p.jwt) {
		former = p.jwt
	}
	result.Proxy.FormerJWT = former
	resources, err := xds.Build(result.Proxy)
	if err != nil {
		if result, resources, err = withoutBad(build, in, result, err); err != nil {
			return nil, err
		}
		current = requiredTokens(result.Proxy)
	}

	s.unindex(m, p)
	p.jwt, p.formerJWT = current, former
	p.rejected, p.uses, p.secrets, p.destinations = result.Rejected, result.Uses, slices.Sorted(maps.Keys(wanted)), nil
	if delete(s.refusing, id); len(p.rejected) > 0 {
		s.refusing[id] = struct{}{}
	}
	for _, d := range result.Destinations {
		p.destinations = append(p.destinations, tagsOf(d))
	}
	p.destinations = append(p.destinations, result.Externals...)
	s.index(m, p)
	if err := s.needs(p, result.Destinations, ingress.ClientView); err != nil {
		return nil, err
	}
	return &Built{Proxy: result.Proxy, Resources: resources}, nil
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
	if err := s.needs(p, destinations, ingress.IngressView); err != nil {
		return nil, err
	}
	return &Built{Proxy: &out, Resources: resources}, nil
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

// needs says which endpoints a proxy needs from now on.
func (s *State) needs(p *proxy, destinations []ingress.Destination, view ingress.View) error {
	wanted := map[string]ingress.Destination{}
	for _, d := range destinations {
		sni, err := d.SNI()
		if err != nil {
			return fmt.Errorf("proxy %s: %w", p.ID, err)
		}
		wanted[ingress.EndpointsName(sni, view)] = d
	}
	for name, d := range wanted {
		if s.endpoints[name] == nil {
			s.endpoints[name] = &endpoints{destination: d, view: view, users: set[string]{}}
			s.mesh(d.Mesh).service(d.Service).names[name] = struct{}{}
			s.dirty.endpoints[name] = struct{}{}
		}
	}
	s.need(p, slices.Sorted(maps.Keys(wanted)))
	return nil
}

// need counts the users of endpoints; those without any become dirty, and BuildEndpoints tells that they are not wanted.
func (s *State) need(p *proxy, names []string) {
	for _, name := range names {
		s.endpoints[name].users[p.ID] = struct{}{}
	}
	for _, name := range p.needs {
		e := s.endpoints[name]
		if e == nil || slices.Contains(names, name) {
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
		in.Locality = policy.LocalityFor(m.policies["LocalityPolicy"], m.name, s.zone, tagsOf(e.destination))
		for _, zone := range slices.Sorted(maps.Keys(v.available)) {
			in.Available = append(in.Available, v.available[zone])
		}
		for _, key := range slices.SortedFunc(maps.Keys(s.remotes), resource.Key.Compare) {
			if r := s.remotes[key]; v.available[r.Zone] != nil {
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
