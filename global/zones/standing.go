package zones

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Standing is how a zone stands with the roots of a mesh that has several, named by their SHA-256 fingerprints.
type Standing struct {
	Zone string
	// Problem is why nothing is known of it; all else is empty then.
	Problem string
	// Trusted are the roots that each proxy trusts that is not behind, at all replicas, and Used those above certificates that are in
	// use at any.
	Trusted, Used [][sha256.Size]byte
	// Behind counts proxies that have not acknowledged what is newest, and Waiting names some.
	Behind  int
	Waiting []string
	// Idle says that no proxy has roots of the mesh, so that no connection was made by them.
	Idle bool
}

// Standings are those of all enabled Zones, ordered by name.
func (r *Registry) Standings(mesh string) []Standing {
	snap := r.cfg.Store.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	names := r.enabledLocked(snap)
	out := make([]Standing, 0, len(names))
	for _, name := range names {
		out = append(out, r.zones[name].standing(name, mesh))
	}
	return out
}

// standing is the zone's; a nil zone was never seen.
func (z *zone) standing(name, mesh string) Standing {
	out := Standing{Zone: name}
	if z == nil {
		out.Problem = "it was not connected since global started"
		return out
	}
	out.Idle = true
	trusted, used, replicas := map[[sha256.Size]byte]int{}, map[[sha256.Size]byte]bool{}, 0
	for _, rep := range z.sorted() {
		if !rep.connected() {
			continue
		}
		replicas++
		i := slices.IndexFunc(rep.status.GetTrust(), func(t *kdsv1.Status_Trust) bool { return t.GetMesh() == mesh })
		if i < 0 {
			return Standing{Zone: name, Problem: fmt.Sprintf("its replica %s, of version %s, has not said which roots it trusts", rep.name, rep.version)}
		}
		t := rep.status.GetTrust()[i]
		for print := range prints(t.GetTrusted()) {
			trusted[print]++
		}
		maps.Copy(used, prints(t.GetUsed()))
		out.Behind += int(t.GetBehind())
		out.Idle = out.Idle && t.Proxies != nil && t.GetProxies() == 0
		out.Waiting = append(out.Waiting, t.GetWaiting()...)
	}
	if replicas == 0 {
		out.Idle = false
		out.Problem = "it is not connected"
		for _, rep := range z.current() {
			out.Problem = "it is not connected since " + rep.since.UTC().Format(time.RFC3339)
		}
		return out
	}
	maps.DeleteFunc(trusted, func(_ [sha256.Size]byte, n int) bool { return n < replicas })
	out.Trusted, out.Used = slices.Collect(maps.Keys(trusted)), slices.Collect(maps.Keys(used))
	return out
}

// prints are fingerprints that have the length of one.
func prints(in [][]byte) map[[sha256.Size]byte]bool {
	out := map[[sha256.Size]byte]bool{}
	for _, b := range in {
		if len(b) == sha256.Size {
			out[[sha256.Size]byte(b)] = true
		}
	}
	return out
}

func boundTrust(in []*kdsv1.Status_Trust) []*kdsv1.Status_Trust {
	in = bound(in, maxTrust)
	for _, t := range in {
		t.Trusted, t.Used, t.Waiting = bound(t.GetTrusted(), maxNames), bound(t.GetUsed(), maxNames), bound(t.GetWaiting(), maxNames)
		for i, name := range t.GetWaiting() {
			t.Waiting[i] = text(name)
		}
	}
	return in
}
