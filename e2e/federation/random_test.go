package federation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/fault"
	"github.com/zoneforge/zoneforge/e2e/history"
)

// fixedSteps are those of a run with a fixed seed, seedSteps those of a run with one that was asked for.
const fixedSteps, seedSteps = 30, 50

// fixedSeeds are those of a run without a seed of its own, as in CI: an etcd of global's own by the first, one apart by the second.
var fixedSeeds = []int64{2, 5}

// tenant is the mesh beside default: with the same names, and nothing in common.
const tenant = "tenant"

// meshes are both with mTLS, so that each has roots and identities of its own.
func meshes() (documents []map[string]any) {
	all := []any{map[string]any{"match": map[string]any{"kuma.io/service": "*"}}}
	for _, name := range []string{"default", tenant} {
		documents = append(documents, map[string]any{"type": "Mesh", "name": name, "mtls": map[string]any{"enabledBackend": "ca",
			"backends": []any{map[string]any{"name": "ca", "type": "builtin"}}}},
			map[string]any{"type": "TrafficPermission", "mesh": name, "name": "all", "sources": all, "destinations": all, "conf": map[string]any{"action": "ALLOW"}})
	}
	return documents
}

// pair are the two resources of one generation, that one change writes.
func pair(generation int) []map[string]any {
	all := []any{map[string]any{"match": map[string]any{"kuma.io/service": "*"}}}
	length := fmt.Sprintf("%dms", generation)
	return []map[string]any{
		{"type": "Timeout", "mesh": "default", "name": "pair", "sources": all, "destinations": all,
			"conf": map[string]any{"connectTimeout": length, "http": map[string]any{"requestTimeout": length}}},
		{"type": "Retry", "mesh": "default", "name": "pair", "sources": all, "destinations": all,
			"conf": map[string]any{"http": map[string]any{"numRetries": generation}}},
	}
}

// inMesh puts documents into another mesh.
func inMesh(mesh string, documents ...map[string]any) []map[string]any {
	for _, d := range documents {
		d["mesh"] = mesh
	}
	return documents
}

// breaker is a policy that is poisoned now and then.
func breaker(generation int) map[string]any {
	all := []any{map[string]any{"match": map[string]any{"kuma.io/service": "*"}}}
	return map[string]any{"type": "CircuitBreaker", "mesh": "default", "name": "breaker", "sources": all, "destinations": all,
		"conf": map[string]any{"thresholds": map[string]any{"maxConnections": generation}}}
}

// other is a resource that no proxy uses.
func other(n, generation int) map[string]any {
	r := pair(generation)[0]
	r["name"] = fmt.Sprintf("other-%d", n)
	r["destinations"] = []any{map[string]any{"match": map[string]any{"kuma.io/service": fmt.Sprintf("nobody-%d", n)}}}
	return r
}

// sidecar is the document of a proxy of a service that calls others.
func sidecar(name, service, address string, calls ...string) map[string]any {
	networking := map[string]any{"address": address, "inbound": []any{map[string]any{
		"port": 15006, "servicePort": 8080, "tags": map[string]any{"kuma.io/service": service, "kuma.io/protocol": "http"},
	}}}
	var out []any
	for i, c := range calls {
		out = append(out, map[string]any{"port": 15101 + i, "tags": map[string]any{"kuma.io/service": c}})
	}
	if out != nil {
		networking["outbound"] = out
	}
	return map[string]any{"type": "Dataplane", "mesh": "default", "name": name, "networking": networking}
}

func ingressOf(name, address string) map[string]any {
	return map[string]any{"type": "ZoneIngress", "name": name, "networking": map[string]any{
		"address": address, "port": 10001, "advertisedAddress": address, "advertisedPort": 10001,
	}}
}

// populate gives each zone an ingress, two backends of web and a caller, and the last zone the only backend of rare. It
// returns when all have what they need. flapping are those whose streams may end without leaving a service empty.
func (f *federation) populate(h *history.History) (callers, flapping []*proxy) {
	f.t.Helper()
	for _, name := range f.names {
		f.await(name+" to be in sync", patience, func() bool { return f.status(name).InSync }, func() any { return f.status(name) })
	}
	for i, name := range f.names {
		s, host := f.zones[name], func(n int) string { return fmt.Sprintf("10.0.%d.%d", i+1, n) }
		s.join(h, ingressOf("ingress", fmt.Sprintf("10.200.%d.1", i+1)))
		s.join(h, sidecar("web-1", "web", host(11)))
		flapping = append(flapping, s.join(h, sidecar("web-2", "web", host(12))))
		if i == len(f.names)-1 {
			s.join(h, sidecar("rare-1", "rare", host(13)))
		}
		c := s.join(h, sidecar("caller", "caller", host(20), "web", "rare"))
		callers, flapping = append(callers, c), append(flapping, c)
	}
	for _, c := range callers {
		f.await(c.id+" to see all endpoints", patience, func() bool {
			return len(h.Endpoints(c.id, "web")) >= 2+len(f.names)-1 && len(h.Endpoints(c.id, "rare")) == 1
		}, func() any {
			return fmt.Sprint(h.Endpoints(c.id, "web"), h.Endpoints(c.id, "rare"), h.Troubles(), f.status(c.site.name))
		})
	}
	return callers, flapping
}

// populateTenant gives each zone a backend and a caller in the other mesh, with the names of the first.
func (f *federation) populateTenant(h *history.History) (flapping []*proxy) {
	f.t.Helper()
	var callers []*proxy
	for i, name := range f.names {
		s, host := f.zones[name], func(n int) string { return fmt.Sprintf("10.10%d.0.%d", i+1, n) }
		s.join(h, inMesh(tenant, sidecar("web-1", "web", host(11)))[0])
		callers = append(callers, s.join(h, inMesh(tenant, sidecar("caller", "caller", host(20), "web"))[0]))
	}
	for _, c := range callers {
		f.await(c.id+" to see all endpoints", patience, func() bool { return len(h.Endpoints(c.id, "web")) >= len(f.names) }, func() any {
			return fmt.Sprint(h.Endpoints(c.id, "web"), h.Troubles(), f.status(c.site.name))
		})
	}
	return callers
}

// walk is a random run.
type walk struct {
	*federation
	h    *history.History
	rnd  *rand.Rand
	sent int
	// generation is the newest of each mesh.
	generation map[string]int
	flapping   []*proxy
	// guests are proxies that joined in the middle, by zone.
	guests map[string]*proxy
	epoch  string
	// poisoned says that the breaker may be one that no zone can use.
	poisoned bool
	// damaged is when the disk of a zone was last, by zone.
	damaged map[string]time.Time
}

// TestFederationUnderFaults changes resources under random faults, heals, and judges what happened.
func TestFederationUnderFaults(t *testing.T) {
	seeds, steps, err := history.Asked(fixedSeeds, fixedSteps, seedSteps)
	if err != nil {
		t.Fatal(err)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { underFaults(t, seed, steps) })
	}
}

func underFaults(t *testing.T, seed int64, steps int) {
	t.Logf("seed %d; again: %s", seed, history.Again(seed, steps, "e2e/federation", "TestFederationUnderFaults"))
	w := &walk{h: history.New(), rnd: rand.New(rand.NewPCG(uint64(seed), 0)), generation: map[string]int{"default": firstGeneration, tenant: firstOfTenant},
		guests: map[string]*proxy{}, damaged: map[string]time.Time{}}
	t.Cleanup(func() {
		log := ""
		if w.federation != nil {
			log = w.lines.String()
		}
		dir, err := w.h.Leave(w.h.Run("federation", seed, !t.Failed()), map[string]string{"log.txt": log})
		if err != nil {
			t.Error(err)
		}
		if dir != "" {
			t.Logf("what happened is in %s", dir)
		}
	})
	w.federation = startWith(t, w.rnd.IntN(2) == 1, "east", "north", "west")
	w.h.Bad, w.h.Vanishing = w.spoil(), []string{"caller", "picky"}
	w.mustChange("meshes", meshes()...)
	for mesh, generation := range w.generation {
		if err := w.commitBy(w.direct, mesh, "pair", generation, inMesh(mesh, pair(generation)...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.commitBy(w.direct, "default", "breaker", firstGeneration, []map[string]any{breaker(firstGeneration)}); err != nil {
		t.Fatal(err)
	}
	_, w.flapping = w.populate(w.h)
	w.flapping = append(w.flapping, w.populateTenant(w.h)...)
	s := w.zones[w.names[0]]
	document := sidecar("picky", "picky", "10.1.0.30", "web", "rare")
	w.flapping = append(w.flapping, s.joinAs(&proxy{history: w.h, document: document, token: s.tokenFor(document), picky: true}))
	w.epoch = w.currentEpoch()
	for i := range steps {
		what, err := w.step()
		w.h.Note("step %d: %s", i, what)
		if err != nil {
			t.Fatal(err)
		}
		w.sample()
		<-time.After(time.Duration(w.rnd.IntN(200)) * time.Millisecond)
	}
	w.settle()
	w.judge()
}

func (w *walk) judge() {
	w.t.Helper()
	broken := w.h.Judge()
	for _, g := range history.Guarantees {
		for _, b := range broken[g.Name][:min(len(broken[g.Name]), 10)] {
			w.t.Errorf("%s: %s", g.Name, b)
		}
		if n := len(broken[g.Name]); n > 10 {
			w.t.Errorf("%s: and %d more", g.Name, n-10)
		}
	}
}

// next is a new generation of a mesh.
func (w *walk) next(mesh string) int {
	w.generation[mesh]++
	return w.generation[mesh]
}

// step does one thing, chosen by the seed alone.
func (w *walk) step() (what string, err error) {
	name := w.names[w.rnd.IntN(len(w.names))]
	s := w.zones[name]
	n := w.rnd.IntN(1 << 20)
	mesh := "default"
	switch dice := w.rnd.IntN(100); {
	case dice < 32:
		if n%4 == 0 {
			mesh = tenant
		}
		g := w.next(mesh)
		what = fmt.Sprintf("pair of generation %d in mesh %s", g, mesh)
		err = w.commit(mesh, "pair", g, inMesh(mesh, pair(g)...))
	case dice < 37:
		g := w.next(mesh)
		what = fmt.Sprintf("breaker of generation %d", g)
		if err = w.commit(mesh, "breaker", g, []map[string]any{breaker(g)}); err == nil {
			w.poisoned = false
		}
	case dice < 43:
		g, key := w.next(mesh), fmt.Sprintf("other-%d", n%3)
		what = fmt.Sprintf("%s of generation %d", key, g)
		err = w.commit(mesh, key, g, []map[string]any{other(n%3, g)})
	case dice < 46:
		key := fmt.Sprintf("other-%d", n%3)
		what = key + " is deleted"
		err = w.commit(mesh, key, 0, nil, map[string]any{"kind": "Timeout", "mesh": mesh, "name": key})
	case dice < 48:
		what, err = w.rollBack(fmt.Sprintf("other-%d", n%3))
	case dice < 53:
		// The answer, the request or both are lost.
		g := w.next(mesh)
		what = fmt.Sprintf("pair of generation %d, cut after %d ms", g, n%20)
		w.h.Fault("REST: drop")
		cut := time.AfterFunc(time.Duration(n%20)*time.Millisecond, w.rest.Drop)
		err = w.commit(mesh, "pair", g, pair(g))
		cut.Stop()
	case dice < 56:
		what = "the breaker is poisoned"
		w.h.Fault("poisoned record")
		w.poisoned = true
		err = w.poison()
	case dice < 68:
		f := fault.Faults[n%len(fault.Faults)]
		what = fmt.Sprintf("%s of KDS of %s", f, name)
		w.h.Fault("KDS: " + f)
		err = s.kds.Do(f)
	case dice < 71:
		// Streams of proxies are slow or stand still; their end would be that of the backends.
		f := []string{"pause", "limit"}[n%2]
		what = fmt.Sprintf("%s of xDS of %s", f, name)
		w.h.Fault("xDS: " + f)
		err = s.xds.Do(f)
	case dice < 78:
		what = "KDS and xDS of " + name + " heal"
		s.kds.Heal()
		s.xds.Heal()
	case dice < 86:
		p := w.flapping[n%len(w.flapping)]
		what = "the stream of " + p.id + " ends"
		w.h.Fault("proxy: end of its stream")
		p.flap()
	case dice < 89:
		what = w.guest(s, n)
	case dice < 92:
		what, err = w.etcdFault(n)
	case dice < 96:
		what = "zone " + name + " starts again"
		s.running.stop()
		// What was good of a poisoned record is only there.
		if n%3 == 0 && !w.poisoned {
			what += " on a damaged disk"
			w.h.Fault("zone: start on a damaged disk")
			s.damage(n / 3)
			w.damaged[name] = time.Now()
		} else {
			w.h.Fault("zone: start")
		}
		s.start()
	default:
		what = "global starts again"
		w.h.Fault("global: start")
		w.federation.global.stop()
		w.startGlobal()
	}
	if errors.Is(err, errUnknown) {
		return what + ": " + err.Error(), nil
	}
	return what, err
}

// guest joins a zone as a backend beside others, or leaves it for good.
func (w *walk) guest(s *site, n int) string {
	if p := w.guests[s.name]; p != nil {
		p.stop()
		w.h.Gone(p.id)
		delete(w.guests, s.name)
		w.h.Fault("proxy: leaves")
		return p.id + " leaves"
	}
	p := s.join(w.h, sidecar(fmt.Sprintf("guest-%d", n), "web", fmt.Sprintf("10.1.%d.%d", 1+n%200, 1+n/200%200)))
	w.guests[s.name] = p
	w.h.Fault("proxy: joins")
	return p.id + " joins"
}

// etcdFault is for an etcd apart; the next step finds it healed, or global's connections gone.
func (w *walk) etcdFault(n int) (what string, err error) {
	if w.etcd == nil {
		w.h.Fault("global: start")
		w.federation.global.stop()
		w.startGlobal()
		return "global starts again", nil
	}
	switch n % 3 {
	case 0:
		w.h.Fault("etcd: compaction")
		return "etcd is compacted", w.compact()
	case 1:
		w.h.Fault("etcd: drop")
		w.db.Drop()
		return "the connections to etcd end", nil
	default:
		w.h.Fault("etcd: pause")
		g := w.next("default")
		w.db.Pause()
		time.AfterFunc(time.Duration(n%1000)*time.Millisecond, w.db.Heal)
		return fmt.Sprintf("etcd stands still for %d ms, and a pair of generation %d comes", n%1000, g), w.commit("default", "pair", g, pair(g))
	}
}

// rollBack puts back what stood before the newest acknowledged change of a resource.
func (w *walk) rollBack(key string) (what string, err error) {
	last := history.Attempt{}
	for _, a := range w.h.Attempts {
		if a.Acked && !a.Same && a.Resource == "default/"+key {
			last = a
		}
	}
	what = fmt.Sprintf("change %d of %s is rolled back", last.Answer.Change, key)
	if !last.Acked {
		return "nothing of " + key + " to roll back", nil
	}
	var entry struct {
		Keys []struct {
			Before map[string]any
		}
	}
	code, text, err := w.direct(http.MethodGet, fmt.Sprintf("/v1/changes/%d", last.Answer.Change), nil)
	if err == nil && code == http.StatusOK {
		err = json.Unmarshal(text, &entry)
	}
	if err != nil || code != http.StatusOK || len(entry.Keys) != 1 {
		return what, fmt.Errorf("change %d: %d %s %w", last.Answer.Change, code, text, err)
	}
	before := entry.Keys[0].Before
	if len(before) == 0 {
		return what, w.commit("default", key, 0, nil, map[string]any{"kind": "Timeout", "mesh": "default", "name": key})
	}
	g, err := lengthOf(before)
	if err != nil {
		return what, err
	}
	return what, w.commit("default", key, g, []map[string]any{before})
}

// commit posts a change of a resource and records what is known of it. What isn't there can't be deleted, which is no failure.
func (w *walk) commit(mesh, name string, generation int, resources []map[string]any, deletes ...map[string]any) error {
	return w.commitBy(w.api, mesh, name, generation, resources, deletes...)
}

// commitBy posts it by api or, where no fault may have a part in it, direct.
func (w *walk) commitBy(ask asks, mesh, name string, generation int, resources []map[string]any, deletes ...map[string]any) error {
	w.sent++
	a := history.Attempt{Message: fmt.Sprintf("change %d of the walk", w.sent), Resource: mesh + "/" + name, Generation: generation}
	out, err := changeBy(ask, a.Message, resources, deletes...)
	a.Acked, a.Same, a.Answer = err == nil, err == nil && out.Change == 0, out
	w.h.Attempted(a)
	if len(deletes) > 0 && errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// sample asks global and the zones themselves where they stand, and each zone for what it has of one mesh.
func (w *walk) sample() {
	for i, name := range w.names {
		// A zone that lost its disk begins from nothing, and what global says of its last life tells nothing.
		if s := w.status(name); s.Connected && s.Since.After(w.damaged[name]) {
			w.h.Sampled(history.Sample{Zone: name + " (by global)", Epoch: fmt.Sprint(w.epoch, w.damaged[name].UnixNano()), Revision: s.Revision})
		}
		mesh := []string{"default", tenant}[(w.sent+i)%2]
		code, text, err := w.direct(http.MethodGet, fmt.Sprintf("/v1/zones/%s/dataplanes?mesh=%s", name, mesh), nil)
		if err == nil && code == http.StatusOK {
			w.owns(name, mesh, text)
		}
		code, text, err = w.direct(http.MethodGet, fmt.Sprintf("/v1/zones/%s/dataplanes/%s/caller?config=true", name, mesh), nil)
		if err == nil && code == http.StatusOK {
			w.owns(name, mesh, text)
		}
	}
}

// owns records what a zone's answer about a mesh speaks of.
func (w *walk) owns(zone, mesh string, answer []byte) {
	for _, what := range mentioned(string(answer)) {
		w.h.Owns(history.Owned{By: "an answer of " + zone, Mesh: mesh, What: what})
	}
}
