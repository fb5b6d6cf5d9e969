package federation_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/history"
)

// silentBound is how long a peer may be silent before it is gone for the other, with the time that a busy machine adds.
const silentBound = 3*heartbeat + time.Minute

// A KDS connection that is open at one end only, or that a router forgot, is noticed by both ends within three heartbeats, and
// the zone comes back over a new one.
func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	f := start(t, "east")
	s := f.zones["east"]
	connected := func(want bool) func() bool {
		return func() bool { return f.status("east").Connected == want }
	}
	tell := func() any { return f.status("east") }
	for _, fault := range []string{"half-open", "silence"} {
		f.await("east to be connected", patience, connected(true), tell)
		since, before := f.status("east").Since, s.kds.Accepted()
		if err := s.kds.Do(fault); err != nil {
			t.Fatal(err)
		}
		took := f.await(fault+" to be noticed by global", silentBound, func() bool {
			now := f.status("east")
			return !now.Connected || now.Since.After(since)
		}, tell)
		t.Logf("%s: noticed after %s", fault, took.Round(time.Millisecond))
		// The first retry comes within the least backoff.
		f.await("a new connection after "+fault, silentBound, func() bool { return s.kds.Accepted() > before }, tell)
		f.await("east to be back", patience, connected(true), tell)
		c := f.mustChange("after "+fault, other(1, firstGeneration+len(fault)))
		f.live(c.Change, patience, "east")
	}
}

// A zone whose stream is paused, so that TCP itself stops, delays no other zone, and gets what it missed afterwards.
func TestPausedZoneDelaysNoOther(t *testing.T) {
	f := start(t, "east", "west")
	h := history.New()
	first := f.mustChange("first", pair(firstGeneration)...)
	f.populate(h)
	f.live(first.Change, patience, "east", "west")
	measure := func(n int) (slowest time.Duration) {
		for i := range 10 {
			c := f.mustChange(fmt.Sprintf("change %d of round %d", i, n), pair(firstGeneration+n*10+i+1)...)
			slowest = max(slowest, f.live(c.Change, patience, "east"))
		}
		return slowest
	}
	calm := measure(0)
	// Less than what it takes to find out that the other is silent.
	limit := max(10*calm, 2*heartbeat)
	const rounds = 5
	for round := 1; ; round++ {
		f.zones["west"].kds.Pause()
		paused := measure(round)
		f.zones["west"].kds.Heal()
		c := f.mustChange(fmt.Sprint("last of round ", round), other(1, firstGeneration+round))
		f.live(c.Change, patience, "east", "west")
		t.Logf("slowest change: %s in calm, %s beside a paused zone", calm.Round(time.Millisecond), paused.Round(time.Millisecond))
		if paused <= limit {
			break
		}
		// The machine itself may have stood still, but not each time.
		if round == rounds {
			t.Fatalf("a change took %s beside a paused zone, more than %s, in each of %d rounds", paused, limit, rounds)
		}
	}
}

// A record that a zone can't use, and records that global can't read, block nothing: neither at the start of global or of a zone,
// nor what is changed after them; and the REST API names the zone's reason.
func TestUnusableRecordsBlockNothing(t *testing.T) {
	f := start(t, "east")
	first := f.mustChange("first", pair(firstGeneration)...)
	bad := f.spoil()
	h := history.New()
	callers, _ := f.populate(h)
	s := f.zones["east"]
	s.running.stop()
	s.start()
	c := f.mustChange("beside", pair(firstGeneration+1)...)
	f.live(c.Change, patience, "east")
	if r := f.status("east").Rejected; len(r) != 1 || r[0].Kind+"/"+r[0].Mesh+"/"+r[0].Name != bad[0] || r[0].Reason == "" {
		t.Errorf("rejected: %+v, want %v with a reason", r, bad)
	}
	// The change before is live as it was.
	f.live(first.Change, patience, "east")
	// It goes as it came: by a change, after which nothing is rejected.
	gone, err := changeBy(f.direct, "mend", nil, map[string]any{"kind": "Timeout", "mesh": "default", "name": "unusable"})
	if err != nil {
		t.Fatal(err)
	}
	f.live(gone.Change, patience, "east")
	f.await("nothing to be rejected", patience, func() bool { return len(f.status("east").Rejected) == 0 }, func() any { return f.status("east").Rejected })
	if g := h.Generation(callers[0].id, "default/pair"); g != firstGeneration+1 {
		t.Errorf("the caller is of generation %d", g)
	}
}

// What is in force of a policy stays in force when the policy is replaced by a record that its zone can't use: also when the zone starts
// again.
func TestPoisonedRecordLeavesTheLastGood(t *testing.T) {
	f := start(t, "east")
	h := history.New()
	f.mustChange("first", append(pair(firstGeneration), breaker(firstGeneration))...)
	callers, _ := f.populate(h)
	in := func() int { return h.Generation(callers[0].id, "default/breaker") }
	if in() != firstGeneration {
		t.Fatalf("the breaker is of generation %d", in())
	}
	if err := f.poison(); err != nil {
		t.Fatal(err)
	}
	f.await("the record to be rejected", patience, func() bool { return len(f.status("east").Rejected) == 1 }, func() any { return f.status("east") })
	s := f.zones["east"]
	restart := func(what string, generation int) {
		t.Helper()
		s.running.stop()
		s.start()
		c := f.mustChange(what, pair(generation)...)
		f.live(c.Change, patience, "east")
		// A proxy that the zone never had before is given what the others have.
		late := s.join(h, sidecar("late-"+what, "late-"+what, "10.0.9.9", "web"))
		f.await(late.id+" to be under the breaker", patience, func() bool { return h.Generation(late.id, "default/breaker") == firstGeneration },
			func() any { return h.Troubles() })
	}
	restart("one", firstGeneration+1)
	restart("two", firstGeneration+2)
	c := f.mustChange("mended", breaker(firstGeneration+3))
	f.live(c.Change, patience, "east")
	f.await("the new breaker", patience, func() bool { return in() == firstGeneration+3 }, func() any { return in() })
	for _, name := range []string{"LastGoodKept", "NeverBackwards"} {
		for _, b := range h.Judge()[name] {
			t.Errorf("%s: %s", name, b)
		}
	}
}

// Proxies keep their endpoints while their zone's control plane restarts, also when global is dead at the time.
func TestRestartWithoutGlobalEmptiesNothing(t *testing.T) {
	f := start(t, "east", "west")
	h := history.New()
	f.mustChange("first", pair(firstGeneration)...)
	f.populate(h)
	late, tokens := sidecar("late", "late", "10.0.9.9", "web", "rare"), map[string]string{}
	for _, name := range f.names {
		tokens[name] = f.zones[name].tokenFor(late)
	}
	f.global.stop()
	for _, name := range f.names {
		s := f.zones[name]
		s.running.stop()
		s.start()
		// A new proxy is served from the disk, with endpoints of both zones.
		c := s.joinWith(h, late, tokens[name])
		f.await(c.id+" to see all endpoints", patience, func() bool {
			return len(h.Endpoints(c.id, "web")) == 3 && len(h.Endpoints(c.id, "rare")) == 1
		}, func() any { return fmt.Sprint(h.Endpoints(c.id, "web"), h.Endpoints(c.id, "rare"), h.Troubles()) })
	}
	f.startGlobal()
	c := f.mustChange("after", pair(firstGeneration+1)...)
	f.live(c.Change, patience, f.names...)
	for _, name := range []string{"EndpointsNeverEmptied", "LastGoodKept"} {
		for _, b := range h.Judge()[name] {
			t.Errorf("%s: %s", name, b)
		}
	}
}

// A zone that starts on a damaged disk sets it aside and gets its records again. Meanwhile its proxies keep what they have: endpoints of its
// own services, which nobody else knows of, and policies; and so do those of other zones.
func TestDamagedDiskTakesNothingAway(t *testing.T) {
	f := start(t, "east", "west")
	h := history.New()
	f.mustChange("first", append(pair(firstGeneration), breaker(firstGeneration))...)
	f.populate(h)
	west := f.zones["west"] // it has the only backend of rare
	west.running.stop()
	west.damage(1)
	west.start()
	c := f.mustChange("after", pair(firstGeneration+1)...)
	f.live(c.Change, patience, f.names...)
	aside, err := filepath.Glob(filepath.Join(west.cfg.DataDir, "*.corrupt-*"))
	if err != nil || len(aside) != 1 {
		t.Errorf("set aside: %v %v", aside, err)
	}
	for _, name := range []string{"EndpointsNeverEmptied", "LastGoodKept", "NeverBackwards"} {
		for _, b := range h.Judge()[name] {
			t.Errorf("%s: %s", name, b)
		}
	}
}

// A change that was answered survives a global that dies right after it.
func TestAcknowledgedChangeSurvivesGlobal(t *testing.T) {
	f := start(t, "east")
	for i := range 3 {
		c := f.mustChange(fmt.Sprintf("change %d", i), pair(firstGeneration+i)...)
		f.global.stop()
		f.startGlobal()
		code, text, err := f.direct(http.MethodGet, fmt.Sprintf("/v1/changes/%d", c.Change), nil)
		if err != nil || code != http.StatusOK {
			t.Errorf("change %d after the restart: %d %s %v", c.Change, code, text, err)
		}
		f.live(c.Change, patience, "east")
	}
}
