package state

import (
	"cmp"
	"maps"
	"slices"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// Proxy is what a proxy presents; exactly one of Dataplane and ZoneIngress is set.
type Proxy struct {
	ID          string
	Mesh        string
	Name        string
	Dataplane   *meshv1.Dataplane
	ZoneIngress *meshv1.ZoneIngress
	// LogPipe is the file from which its launcher takes access logs; empty where it takes none.
	LogPipe string
	// Modules are the WebAssembly modules that its launcher found, each its name, a space and its SHA-256, sorted.
	Modules []string
	// Refused are the names of modules that its Envoy refused with their configuration, sorted.
	Refused []string
	// Opening says that the proxy may not listen yet, so its endpoints are offered to nobody until Serve. A proxy whose
	// endpoints are offered already keeps them.
	Opening bool
}

// proxy is a proxy of the zone: live while it has a stream, else known from disk or about to go, which keeps its endpoints only.
type proxy struct {
	Proxy
	live bool
	// workload is what a live Dataplane has in common with others; nil for all other proxies.
	workload *workload
	// in is the half of a sidecar by which requests come in; nil until it is built, and again when something changed that may be part
	// of it.
	in *half
	// The rest is of the last build.
	halves []*half
	// jwt are the tokens that its routes ask for, formerJWT those of before the last change of that.
	jwt, formerJWT []*ir.JWT
}

// Register adds a proxy or replaces one of the same ID, and takes its document over: parts that are equal to those of others are shared. One
// that is not live gives its endpoints only, and never replaces a live one; what it presents is the same as before, or the proxy was
// restarted with another document.
func (s *State) Register(in Proxy, live bool) {
	old := s.proxies[in.ID]
	if old != nil && old.live && !live {
		return
	}
	if old != nil && !old.Opening {
		in.Opening = false
	}
	p := &proxy{Proxy: in, live: live}
	s.proxies[in.ID] = p
	delete(s.refusing, in.ID) // until it is built
	if in.ZoneIngress != nil {
		if old != nil {
			s.adopt(p, old.halves)
			s.adopt(old, nil)
		}
		s.dirty.offer[serviceKey{service: in.ID}] = struct{}{}
		if live {
			s.ingresses[in.ID] = struct{}{}
			s.dirty.proxies[in.ID] = struct{}{}
		}
		return
	}
	m := s.mesh(in.Mesh)
	locals := p.locals()
	if old != nil {
		for _, i := range old.Dataplane.GetNetworking().GetInbound() {
			if name := i.GetTags()[resource.TagService]; locals[name] == nil {
				s.setLocal(m, name, in.ID, nil)
			}
		}
		p.jwt, p.formerJWT = old.jwt, old.formerJWT
	}
	for _, name := range slices.Sorted(maps.Keys(locals)) {
		s.setLocal(m, name, in.ID, locals[name])
	}
	if live {
		s.join(m, p)
		s.dirty.proxies[in.ID] = struct{}{}
	}
	if old != nil {
		s.succeed(p, old)
	}
}

// succeed leaves a proxy what the last build of its predecessor found until it is built itself, so that shared endpoints don't come and go
// between.
func (s *State) succeed(p, old *proxy) {
	var halves []*half
	for _, h := range old.halves {
		f := *h.findings
		f.group, f.of = group{}, p.workload
		halves = append(halves, &half{h.resources, f.shared()})
	}
	s.adopt(p, halves)
	s.adopt(old, nil)
	s.leave(old)
}

// Serve offers the endpoints of a proxy that was opening. It reports whether it was.
func (s *State) Serve(id string) bool {
	p := s.proxies[id]
	if p == nil || !p.Opening {
		return false
	}
	p.Opening = false
	if p.ZoneIngress != nil {
		s.dirty.offer[serviceKey{service: id}] = struct{}{}
		return true
	}
	m, locals := s.mesh(p.Mesh), p.locals()
	for _, name := range slices.Sorted(maps.Keys(locals)) {
		s.setLocal(m, name, id, locals[name])
	}
	return true
}

// locals are the endpoints that the proxy offers, by service: none while it is opening.
func (p *proxy) locals() map[string][]ingress.Local {
	out := map[string][]ingress.Local{}
	if p.Opening {
		return out
	}
	n := p.Dataplane.GetNetworking()
	for _, i := range n.GetInbound() {
		name := i.GetTags()[resource.TagService]
		out[name] = append(out[name], ingress.Local{Address: cmp.Or(i.GetAddress(), n.GetAddress()), Port: i.GetPort(), Tags: i.GetTags()})
	}
	return out
}

// Unregister removes a proxy with its endpoints. It reports whether there was one.
func (s *State) Unregister(id string) bool {
	p := s.proxies[id]
	if p == nil {
		return false
	}
	delete(s.proxies, id)
	delete(s.dirty.proxies, id)
	delete(s.refusing, id)
	s.adopt(p, nil)
	s.leave(p)
	if p.ZoneIngress != nil {
		delete(s.ingresses, id)
		s.dirty.offer[serviceKey{service: id}] = struct{}{}
		return true
	}
	m := s.mesh(p.Mesh)
	for _, i := range p.Dataplane.GetNetworking().GetInbound() {
		s.setLocal(m, i.GetTags()[resource.TagService], id, nil)
	}
	return true
}

// Live tells whether a proxy is registered as live.
func (s *State) Live(id string) bool { p := s.proxies[id]; return p != nil && p.live }

// Proxy returns what a registered proxy presents.
func (s *State) Proxy(id string) (Proxy, bool) {
	p := s.proxies[id]
	if p == nil {
		return Proxy{}, false
	}
	return p.Proxy, true
}

// Proxies lists the registered proxies by ID; with live set, only those that are.
func (s *State) Proxies(live bool) []string {
	var out []string
	for id, p := range s.proxies {
		if p.live || !live {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Uses lists the policies that a proxy was last built from.
func (s *State) Uses(id string) []proxyir.Use {
	if p := s.proxies[id]; p != nil {
		return p.uses()
	}
	return nil
}

func (s *State) inZone(tags map[string]string) map[string]string {
	out := make(map[string]string, len(tags)+1)
	maps.Copy(out, tags)
	out[resource.TagZone] = s.zone
	return out
}

// RejectedBy lists the policies that were left out of a proxy.
func (s *State) RejectedBy(id string) []proxyir.Rejected {
	if p := s.proxies[id]; p != nil {
		return p.rejected()
	}
	return nil
}
