package state

import (
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// group is live proxies that stand in indexes together, as the same is true of each of them: a service has twenty proxies as a rule, and
// each of these names thirty others.
type group struct {
	members set[*proxy]
}

func (g *group) add(p *proxy) {
	if g.members == nil {
		g.members = set[*proxy]{}
	}
	g.members[p] = struct{}{}
}

// index finds groups by a name.
type index map[string]set[*group]

func (x index) add(key string, g *group) {
	if x[key] == nil {
		x[key] = set[*group]{}
	}
	x[key][g] = struct{}{}
}

func (x index) remove(key string, g *group) {
	delete(x[key], g)
	if len(x[key]) == 0 {
		delete(x, key)
	}
}

func (x index) holds(key string, g *group) bool { _, ok := x[key][g]; return ok }

// everyone is the proxies of groups.
func everyone(groups set[*group]) iter.Seq[*proxy] {
	return func(yield func(*proxy) bool) {
		for g := range groups {
			for p := range g.members {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// count is how many proxies groups have.
func count(groups set[*group]) (n int) {
	for g := range groups {
		n += len(g.members)
	}
	return n
}

// workload is what live Dataplanes have in common that differ in their addresses alone. One that has no like is a workload by itself.
type workload struct {
	group
	key  [sha256.Size]byte
	mesh *mesh
	// inbounds and source hold tags with the zone's; source are those by which policies know a proxy as a client.
	inbounds []map[string]string
	source   map[string]string
	// outbounds are the documents'.
	outbounds []*meshv1.Dataplane_Outbound
	gateway   bool
	// found are the findings that some of them have.
	found []*findings
	// out is nil until it is built, and again when something changed that may be part of it; always for those that are built whole.
	out *half
}

// divides says whether its proxies are built in two halves, of which they share one.
func (w *workload) divides() bool { return w != nil && !w.gateway && len(w.outbounds) > 0 }

// workloadOf is a digest of all that the outgoing half of a sidecar is built from, besides policies and what is known of its mesh.
func workloadOf(p *proxy) [sha256.Size]byte {
	n := p.Dataplane.GetNetworking()
	b := fmt.Appendf(nil, "%q %q %q %q", p.Mesh, p.LogPipe, p.Modules, p.Refused)
	if g := n.GetGateway(); g != nil {
		b = appendTags(append(b, "\n="...), g.GetTags())
	}
	for _, i := range n.GetInbound() {
		b = appendTags(append(b, "\n<"...), i.GetTags())
	}
	for _, o := range n.GetOutbound() {
		b = strconv.AppendQuote(append(b, "\n>"...), o.GetAddress())
		b = append(strconv.AppendUint(append(b, ' '), uint64(o.GetPort()), 10), ' ')
		b = appendTags(b, o.GetTags())
	}
	return sha256.Sum256(b)
}

// join lets a live proxy share what it has in common with others: also its document's outbounds, which are most of that.
func (s *State) join(m *mesh, p *proxy) {
	n := p.Dataplane.GetNetworking()
	key := workloadOf(p)
	w := s.workloads[key]
	if w == nil {
		w = &workload{key: key, mesh: m, outbounds: n.GetOutbound(), gateway: n.GetGateway() != nil}
		for _, i := range n.GetInbound() {
			w.inbounds = append(w.inbounds, s.inZone(i.GetTags()))
		}
		switch {
		case w.gateway:
			w.source = s.inZone(n.GetGateway().GetTags())
		case len(w.inbounds) > 0:
			w.source = w.inbounds[0]
		default:
			w.source = s.inZone(nil)
		}
		s.workloads[key] = w
		w.index()
	}
	w.add(p)
	p.workload = w
	if n != nil {
		n.Outbound = w.outbounds
	}
}

func (s *State) leave(p *proxy) {
	w := p.workload
	if w == nil {
		return
	}
	if delete(w.members, p); len(w.members) == 0 {
		delete(s.workloads, w.key)
		w.unindex()
	}
	p.workload = nil
}

func (w *workload) index() {
	w.mesh.live[&w.group] = struct{}{}
	if w.gateway {
		w.mesh.gateways[&w.group] = struct{}{}
	}
	w.mesh.bySource.add(w.source[resource.TagService], &w.group)
	for _, tags := range w.inbounds {
		w.mesh.byInbound.add(tags[resource.TagService], &w.group)
	}
	for _, o := range w.outbounds {
		w.mesh.byDestination.add(o.GetTags()[resource.TagService], &w.group)
	}
}

func (w *workload) unindex() {
	delete(w.mesh.live, &w.group)
	delete(w.mesh.gateways, &w.group)
	w.mesh.bySource.remove(w.source[resource.TagService], &w.group)
	for _, tags := range w.inbounds {
		w.mesh.byInbound.remove(tags[resource.TagService], &w.group)
	}
	for _, o := range w.outbounds {
		w.mesh.byDestination.remove(o.GetTags()[resource.TagService], &w.group)
	}
}

// findings are what a build found besides resources: the same for all proxies of a workload as a rule, which share them. They are immutable.
type findings struct {
	group
	// of is nil for those of an ingress.
	of *workload
	// secrets are those that Envoy is given, wants the Secrets of the mesh that decided on the build, there or not.
	secrets, wants []string
	// needs are sorted by name, externals are the tags of destinations outside the mesh.
	needs     []*endpoints
	externals []map[string]string
	rejected  []proxyir.Rejected
	uses      []proxyir.Use
	// tokens are those that routes ask for.
	tokens []*ir.JWT
}

// shared are findings of a workload that say the same, those given where there are none.
func (f *findings) shared() *findings {
	if f.of == nil {
		return f
	}
	for _, g := range f.of.found {
		if slices.Equal(f.secrets, g.secrets) && slices.Equal(f.wants, g.wants) &&
			slices.EqualFunc(f.needs, g.needs, func(a, b *endpoints) bool { return a.name == b.name }) &&
			slices.EqualFunc(f.externals, g.externals, func(a, b map[string]string) bool { return maps.Equal(a, b) }) &&
			slices.Equal(f.rejected, g.rejected) && slices.Equal(f.uses, g.uses) && reflect.DeepEqual(f.tokens, g.tokens) {
			return g
		}
	}
	return f
}

// destinations are the tags of all that they lead to.
func (f *findings) destinations(each func(tags map[string]string) bool) {
	for _, e := range f.needs {
		if e.view == ingress.ClientView && !each(e.tags) {
			return
		}
	}
	for _, tags := range f.externals {
		if !each(tags) {
			return
		}
	}
}

// adopt puts what was built of a proxy in the place of what was built before; either may be nothing. Endpoints that nobody needs any more become
// dirty, and BuildEndpoints tells that they are not wanted.
func (s *State) adopt(p *proxy, halves []*half) {
	for _, h := range halves {
		if len(h.members) == 0 {
			s.enter(h.findings)
		}
		h.add(p)
	}
	for _, h := range p.halves {
		if slices.ContainsFunc(halves, func(now *half) bool { return now.findings == h.findings }) {
			continue
		}
		if delete(h.members, p); len(h.members) == 0 {
			s.exit(h.findings)
		}
	}
	p.halves = halves
}

// enter puts findings into indexes; what their workload leads to anyway is there.
func (s *State) enter(f *findings) {
	for i, e := range f.needs {
		if known := s.endpoints[e.name]; known != nil {
			e, f.needs[i] = known, known
		} else {
			s.endpoints[e.name] = e
			s.mesh(e.destination.Mesh).service(e.destination.Service).names[e.name] = struct{}{}
			s.markOne(e.name)
		}
		e.users[&f.group] = struct{}{}
	}
	if f.of == nil {
		return
	}
	f.of.found = append(f.of.found, f)
	m := f.of.mesh
	for tags := range f.destinations {
		if service := tags[resource.TagService]; !m.byDestination.holds(service, &f.of.group) {
			m.byDestination.add(service, &f.group)
		}
	}
	for _, name := range f.wants {
		m.bySecret.add(name, &f.group)
	}
}

func (s *State) exit(f *findings) {
	for _, e := range f.needs {
		if delete(e.users, &f.group); len(e.users) == 0 {
			delete(s.endpoints, e.name)
			delete(s.mesh(e.destination.Mesh).service(e.destination.Service).names, e.name)
			s.markOne(e.name)
		}
	}
	if f.of == nil {
		return
	}
	f.of.found = slices.DeleteFunc(f.of.found, func(g *findings) bool { return f == g })
	m := f.of.mesh
	for tags := range f.destinations {
		m.byDestination.remove(tags[resource.TagService], &f.group)
	}
	for _, name := range f.wants {
		m.bySecret.remove(name, &f.group)
	}
}
