package server

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zoneforge/zoneforge/xds"
)

// TestStreamAtRestHoldsWhatItsSnapshotHolds: what a proxy has is kept once, with what it should have, and one proxy's changes are no other's.
func TestStreamAtRestHoldsWhatItsSnapshotHolds(t *testing.T) {
	f := newFleet(t, 3, 5)
	before := slices.Clone(f.resources.Routes)
	rests := func(id ProxyID) bool {
		st := f.s.proxies[id].stream
		st.turn.Lock()
		defer st.turn.Unlock()
		if !st.session.calm {
			return false
		}
		for i := range st.session.subs {
			sub := &st.session.subs[i]
			if sub.typeURL() != xds.TypeEndpoint && (sub.open != nil || sub.due != nil || sub.table.like != st.session.want) {
				t.Errorf("%s: %s: open %v, due %v, a table of its own %v", id, sub.typeURL(), sub.open != nil, sub.due != nil, sub.table.like == nil)
			}
		}
		return true
	}
	all := []ProxyID{"Dataplane/default/p0", "Dataplane/default/p1", "Dataplane/default/p2"}
	for _, id := range all {
		if !rests(id) {
			t.Errorf("%s has something to do", id)
		}
	}
	if n := len(f.s.watchers.all); n != 1 {
		t.Errorf("%d audiences of proxies with the same endpoints", n)
	}
	other := &xds.Resources{Clusters: f.resources.Clusters, Listeners: f.resources.Listeners,
		Routes: append([]*xds.Resource{routeTo(t, "route:10000", f.clusters[1])}, f.resources.Routes[1:]...)}
	done := f.waiter.until(2, func(p Progress) bool { return p.Acked >= 2 })
	f.s.SetProxy(all[0], 2, f.resources, nil)
	f.s.SetProxy(all[1], 2, other, nil)
	<-done
	for _, id := range all {
		if !rests(id) {
			t.Errorf("%s has something to do after the change", id)
		}
	}
	if !slices.Equal(f.resources.Routes, before) {
		t.Error("one proxy's change shows in the resources of the others")
	}
}

// TestTableAgainstMap compares a table with a map under random changes, and that nothing that was lent is changed.
func TestTableAgainstMap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	var list []*xds.Resource
	for i := range 12 {
		list = append(list, &xds.Resource{TypeURL: xds.TypeRoute, Name: fmt.Sprintf("r%02d", i), Version: "1"})
	}
	lent := slices.Clone(list)
	snap := newSnapshot(1, &xds.Resources{Routes: list[:4], Shared: &xds.Resources{Routes: list[4:]}}, nil, nil)
	got := table{kind: uint8(indexOf(xds.TypeRoute))}
	want := map[string]row{}
	for step := range 5000 {
		var names []string
		for _, r := range list {
			if random.IntN(4) == 0 {
				names = append(names, r.Name)
			}
		}
		asked, has := random.IntN(2) == 0, random.IntN(3)
		got.change(names, func(r *row) {
			r.asked = asked
			switch has {
			case 0:
				r.set(nil)
			case 1:
				r.set(list[slices.IndexFunc(list, func(x *xds.Resource) bool { return x.Name == r.name() })])
			}
			want[r.name()] = *r
			if !r.says() {
				delete(want, r.name())
			}
		})
		got.rest(snap)
		if random.IntN(50) == 0 { // all of it at once, so that it may rest
			for _, r := range list {
				got.change([]string{r.Name}, func(now *row) { *now = row{r, asked} })
				want[r.Name] = row{r, asked}
			}
			if got.rest(snap); got.like == nil {
				t.Fatalf("step %d: it has all of a list, and holds it itself", step)
			}
		}
		n := 0
		var order []string
		for r := range got.rows {
			order = append(order, r.name())
			if of := got.of(r.name()); of != r {
				t.Fatalf("step %d: %s is found as %v, want %v", step, r.name(), of, r)
			}
			if w, ok := want[r.name()]; !ok || w.asked != r.asked || w.has() != r.has() {
				t.Fatalf("step %d: %s is %v, asked %v, want %v, asked %v", step, r.name(), r.has(), r.asked, w.is, w.asked)
			}
			n++
		}
		if n != len(want) || !slices.IsSorted(order) {
			t.Fatalf("step %d: %d rows, want %d, sorted", step, n, len(want))
		}
		if !slices.Equal(list, lent) {
			t.Fatalf("step %d: what was lent was changed", step)
		}
	}
}
