package federation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/fault"
)

const (
	seedVariable  = "ZONEFORGE_SEED"
	stepsVariable = "ZONEFORGE_STEPS"
	defaultSteps  = 50
)

func number(t *testing.T, variable string, otherwise int64) int64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
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
func (f *federation) populate(h *history) (callers, flapping []*proxy) {
	f.t.Helper()
	for _, name := range f.names {
		f.await(name+" to be in sync", patience, func() bool { return f.status(name).InSync }, func() any { return f.status(name) })
	}
	for i, name := range f.names {
		s, host := f.zones[name], func(n int) string { return fmt.Sprintf("10.0.%d.%d", i+1, n) }
		s.join(h, ingressOf("ingress", host(1)))
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
			return len(h.newest(c.id, "web")) >= 2+len(f.names)-1 && len(h.newest(c.id, "rare")) == 1
		}, func() any {
			return fmt.Sprint(h.newest(c.id, "web"), h.newest(c.id, "rare"), h.troubles, f.status(c.site.name))
		})
	}
	return callers, flapping
}

// walk is a random run.
type walk struct {
	*federation
	h          *history
	rnd        *rand.Rand
	generation int
	sent       int
	flapping   []*proxy
	epoch      string
}

// TestFederationUnderFaults changes resources under random faults, heals, and judges what happened.
func TestFederationUnderFaults(t *testing.T) {
	seed := number(t, seedVariable, time.Now().UnixNano())
	steps := int(number(t, stepsVariable, defaultSteps))
	t.Logf("seed %d; again: %s=%d %s=%d go test ./e2e/federation -run TestFederationUnderFaults -count 1", seed, seedVariable, seed, stepsVariable, steps)
	f := start(t, "east", "north", "west")
	w := &walk{federation: f, h: newHistory(), rnd: rand.New(rand.NewPCG(uint64(seed), 0)), generation: firstGeneration}
	w.h.bad, w.h.vanishing = f.spoil(), []string{"caller"}
	if err := w.commit("pair", w.generation, pair(w.generation)); err != nil {
		t.Fatal(err)
	}
	_, w.flapping = f.populate(w.h)
	w.epoch = f.epoch()
	var done []string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was done:\n%s", strings.Join(done, "\n"))
		}
	})
	began := time.Now()
	for i := range steps {
		what, err := w.step()
		done = append(done, fmt.Sprintf("%3d %6.2fs %s", i, time.Since(began).Seconds(), what))
		if err != nil {
			t.Fatal(err)
		}
		w.sample()
		<-time.After(time.Duration(w.rnd.IntN(200)) * time.Millisecond)
	}
	w.settle()
	w.h.judge(t)
}

// step does one thing, chosen by the seed alone.
func (w *walk) step() (what string, err error) {
	name := w.names[w.rnd.IntN(len(w.names))]
	s := w.zones[name]
	n := w.rnd.IntN(1 << 20)
	switch dice := w.rnd.IntN(100); {
	case dice < 40:
		w.generation++
		err = w.commit("pair", w.generation, pair(w.generation))
		what = fmt.Sprintf("pair of generation %d", w.generation)
	case dice < 50:
		w.generation++
		key := fmt.Sprintf("other-%d", n%3)
		err = w.commit(key, w.generation, []map[string]any{other(n%3, w.generation)})
		what = fmt.Sprintf("%s of generation %d", key, w.generation)
	case dice < 55:
		// The answer, the request or both are lost.
		w.generation++
		cut := time.AfterFunc(time.Duration(n%20)*time.Millisecond, w.rest.Drop)
		err = w.commit("pair", w.generation, pair(w.generation))
		cut.Stop()
		what = fmt.Sprintf("pair of generation %d, cut after %d ms", w.generation, n%20)
	case dice < 70:
		f := fault.Faults[n%len(fault.Faults)]
		what = fmt.Sprintf("%s of KDS of %s", f, name)
		err = s.kds.Do(f)
	case dice < 73:
		// Streams of proxies are slow or stand still; their end would be that of the backends.
		f := []string{"pause", "limit"}[n%2]
		what = fmt.Sprintf("%s of xDS of %s", f, name)
		err = s.xds.Do(f)
	case dice < 81:
		what = "KDS and xDS of " + name + " heal"
		s.kds.Heal()
		s.xds.Heal()
	case dice < 92:
		p := w.flapping[n%len(w.flapping)]
		what = "the stream of " + p.id + " ends"
		p.flap()
	case dice < 96:
		what = "zone " + name + " starts again"
		s.running.stop()
		s.start()
	default:
		what = "global starts again"
		w.federation.global.stop()
		w.startGlobal()
	}
	if errors.Is(err, errUnknown) {
		return what + ": " + err.Error(), nil
	}
	return what, err
}

// commit posts a change of a resource and records what is known of it.
func (w *walk) commit(key string, generation int, resources []map[string]any) error {
	w.sent++
	a := attempt{message: fmt.Sprintf("change %d of the walk", w.sent), resource: key, generation: generation}
	out, err := w.change(a.message, resources)
	a.acked, a.answer = err == nil, out
	w.h.attempted(a)
	return err
}

// sample asks global and the zones themselves where they stand.
func (w *walk) sample() {
	for _, name := range w.names {
		if s := w.status(name); s.Connected {
			w.h.sampled(sample{name + " (by global)", w.epoch, s.Revision})
		}
	}
}

func (f *federation) epoch() string {
	f.t.Helper()
	var v struct{ Epoch string }
	code, text, err := f.direct(http.MethodGet, "/v1/version", nil)
	if err == nil && code == http.StatusOK {
		err = json.Unmarshal(text, &v)
	}
	if err != nil || v.Epoch == "" {
		f.t.Fatalf("version: %d %s %v", code, text, err)
	}
	return v.Epoch
}

// settle heals, makes a last change and waits until it is acknowledged everywhere; then it looks at what everybody holds.
func (w *walk) settle() {
	w.t.Helper()
	w.rest.Heal()
	for _, s := range w.zones {
		s.kds.Heal()
		s.xds.Heal()
	}
	w.generation++
	if err := w.commit("pair", w.generation, pair(w.generation)); err != nil {
		w.t.Fatal(err)
	}
	last := w.h.attempts[len(w.h.attempts)-1].answer
	took := w.live(last.Change, patience, w.names...)
	w.t.Logf("the last change is live everywhere %s after the end of faults", took.Round(time.Millisecond))
	w.sample()
	w.collect(last.Change)
}

// collect reads what is there at the end, and stops the federation to look at its disks.
func (w *walk) collect(last int64) {
	w.t.Helper()
	for before := int64(0); ; {
		var page struct{ Items []written }
		code, text, err := w.direct(http.MethodGet, fmt.Sprintf("/v1/changes?limit=200&before=%d", before), nil)
		if err == nil && code == http.StatusOK {
			err = json.Unmarshal(text, &page)
		}
		if err != nil || code != http.StatusOK {
			w.t.Fatalf("history: %d %s %v", code, text, err)
		}
		w.h.changes = append(w.h.changes, page.Items...)
		if len(page.Items) < 200 {
			break
		}
		before = page.Items[len(page.Items)-1].Change
	}
	for _, a := range w.h.attempts {
		w.h.final[a.resource] = w.found(a.resource)
	}
	zones := map[string]ended{}
	for _, name := range w.names {
		s := w.status(name)
		e := ended{zone: name}
		for _, r := range s.Rejected {
			e.rejected = append(e.rejected, r.Kind+"/"+r.Mesh+"/"+r.Name)
		}
		slices.Sort(e.rejected)
		for _, z := range w.receipt(last).Zones {
			e.live = e.live || z.Zone == name && z.Live
		}
		w.await(name+" to be in sync", patience, func() bool { return w.status(name).InSync }, func() any { return w.status(name) })
		zones[name] = e
	}
	w.federation.global.stop()
	for _, name := range w.names {
		w.zones[name].running.stop()
	}
	positions := w.positions()
	for _, name := range w.names {
		e := zones[name]
		e.held, e.wanted = positions[name][0], positions[name][1]
		w.h.zones = append(w.h.zones, e)
	}
}

// found is the generation of a Timeout at global; 0 when there is none.
func (w *walk) found(name string) int {
	w.t.Helper()
	code, text, err := w.direct(http.MethodGet, "/v1/meshes/default/timeouts/"+name, nil)
	if err == nil && code == http.StatusNotFound {
		return 0
	}
	var r struct {
		Conf struct{ ConnectTimeout string }
	}
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || code != http.StatusOK {
		w.t.Fatalf("%s: %d %s %v", name, code, text, err)
	}
	d, err := time.ParseDuration(r.Conf.ConnectTimeout)
	if err != nil {
		w.t.Fatal(err)
	}
	return generationOf(d)
}
