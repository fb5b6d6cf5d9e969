package federation_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/e2e/history"
)

// currentEpoch is global's.
func (f *federation) currentEpoch() string {
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

// settle heals, makes last changes and waits until they are acknowledged everywhere; then it looks at what everybody holds.
func (w *walk) settle() {
	w.t.Helper()
	w.rest.Heal()
	if w.etcd != nil {
		w.db.Heal()
	}
	for _, s := range w.zones {
		s.kds.Heal()
		s.xds.Heal()
	}
	// Changes of the same time as a fault may still be under way.
	w.await("a change to go through", patience, func() bool { return w.lastBreaker() == nil }, func() any { return w.lastBreaker() })
	if g := w.next(tenant); w.commitBy(w.direct, tenant, "pair", g, inMesh(tenant, pair(g)...)) != nil {
		w.t.Fatalf("generation %d was not taken after the end of faults", g)
	}
	g := w.next("default")
	for unbearable(g) {
		g = w.next("default")
	}
	if err := w.commitBy(w.direct, "default", "pair", g, pair(g)); err != nil {
		w.t.Fatal(err)
	}
	last := w.h.Attempts[len(w.h.Attempts)-1].Answer
	w.h.Converged = w.live(last.Change, patience, w.names...)
	w.t.Logf("the last change is live everywhere %s after the end of faults", w.h.Converged.Round(time.Millisecond))
	w.sample()
	w.collect(last.Change)
}

// lastBreaker is one that every proxy takes.
func (w *walk) lastBreaker() error {
	g := w.next("default")
	for unbearable(g) {
		g = w.next("default")
	}
	return w.commitBy(w.direct, "default", "breaker", g, []map[string]any{breaker(g)})
}

// collect reads what is there at the end, and stops the federation to look at its disks.
func (w *walk) collect(last int64) {
	w.t.Helper()
	for before := int64(0); ; {
		var page struct{ Items []history.Written }
		code, text, err := w.direct(http.MethodGet, fmt.Sprintf("/v1/changes?limit=200&before=%d", before), nil)
		if err == nil && code == http.StatusOK {
			err = json.Unmarshal(text, &page)
		}
		if err != nil || code != http.StatusOK {
			w.t.Fatalf("history: %d %s %v", code, text, err)
		}
		w.h.Changes = append(w.h.Changes, page.Items...)
		if len(page.Items) < 200 {
			break
		}
		before = page.Items[len(page.Items)-1].Change
	}
	for _, a := range w.h.Attempts {
		w.h.Final[a.Resource] = w.found(a.Resource)
	}
	zones := map[string]history.Ended{}
	for _, name := range w.names {
		s := w.status(name)
		e := history.Ended{Zone: name}
		for _, r := range s.Rejected {
			e.Rejected = append(e.Rejected, r.Kind+"/"+r.Mesh+"/"+r.Name)
		}
		slices.Sort(e.Rejected)
		// It was live everywhere; a stream that a busy machine let end says nothing of it.
		w.live(last, patience, name)
		e.Live = true
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
		e.Held, e.Wanted = positions[name][0], positions[name][1]
		w.h.End(e)
	}
}

// found is the generation of a policy at global, by its mesh and name; 0 when there is none.
func (w *walk) found(key string) int {
	w.t.Helper()
	mesh, name, _ := strings.Cut(key, "/")
	plural := "timeouts"
	if name == "breaker" {
		plural = "circuit-breakers"
	}
	code, text, err := w.direct(http.MethodGet, fmt.Sprintf("/v1/meshes/%s/%s/%s", mesh, plural, name), nil)
	if err == nil && code == http.StatusNotFound {
		return 0
	}
	var r map[string]any
	if err == nil && code == http.StatusOK {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || code != http.StatusOK {
		w.t.Fatalf("%s: %d %s %v", key, code, text, err)
	}
	g, err := lengthOf(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// lengthOf is the generation that a document of a policy holds.
func lengthOf(document map[string]any) (int, error) {
	text, err := json.Marshal(document)
	if err != nil {
		return 0, err
	}
	var r struct {
		Conf struct {
			ConnectTimeout string
			Thresholds     struct{ MaxConnections int }
		}
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return 0, err
	}
	if n := r.Conf.Thresholds.MaxConnections; n != 0 {
		return generation(n), nil
	}
	d, err := time.ParseDuration(r.Conf.ConnectTimeout)
	return generationOf(d), err
}
