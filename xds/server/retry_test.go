package server

import (
	"testing"

	"github.com/zoneforge/zoneforge/xds"
)

// A port that was in use may be free later, which no change of the configuration would tell.
func TestRefusedListenerIsTriedAgain(t *testing.T) {
	d, rs := started(t)
	two := alike(rs)
	two.Listeners = []*xds.Resource{rs.Listeners[0], plainListener(t, "more", "")}
	const busy = "cannot bind more: Address already in use"
	refused := func() {
		t.Helper()
		if p := d.s.Progress(); len(p.Nacks) != 1 || p.Nacks[0].Message != busy || p.Acked == d.rev {
			t.Fatalf("the refusal doesn't stand: %+v", p)
		}
	}
	d.set(two)
	d.expect("L+more")
	if retriable, _ := d.s.Retriable(); retriable {
		t.Fatal("what is under way is to be tried again")
	}
	d.nack("L", busy)
	d.expect()
	for range 2 {
		refused()
		if retriable, pending := d.s.Retriable(); !retriable || pending {
			t.Fatalf("to be tried again: %v, pending %v", retriable, pending)
		}
		d.s.Retry()
		d.expect("L+more")
		refused()
		if retriable, pending := d.s.Retriable(); retriable || !pending {
			t.Fatalf("to be tried again: %v, pending %v", retriable, pending)
		}
		d.s.Retry() // one at a time
		d.expect()
		d.nack("L", busy)
		d.expect()
	}
	d.s.Retry()
	d.expect("L+more")
	d.ack("L")
	d.expect()
	d.acked(d.rev)
	if p := d.s.Progress(); len(p.Nacks) != 0 {
		t.Fatalf("the refusal stands: %+v", p.Nacks)
	}

	// What is wanted no more is not tried again, and holds nothing up.
	three := alike(two)
	three.Listeners = append([]*xds.Resource{plainListener(t, "third", "")}, two.Listeners...)
	d.set(three)
	d.expect("L+third")
	d.nack("L", "cannot bind third")
	d.expect()
	d.s.Retry()
	d.expect("L+third")
	d.set(two)
	d.nack("L", "cannot bind third")
	d.s.Retry()
	for range 3 { // Envoy may be asked to remove what it never took
		if out := d.s.Ready(); len(out) > 0 {
			d.last["L"] = out[0].delta()
			d.ack("L")
		}
	}
	d.acked(d.rev)
}
