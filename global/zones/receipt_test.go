package zones

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

func (f *federation) status(p *peer, s *kdsv1.Status) { f.do(p, func(z *kds.Zone) { z.SetStatus(s) }) }

func (f *federation) receipt(what string, c *store.ShownChange, ok func(Receipt) bool) Receipt {
	f.Helper()
	var r Receipt
	f.until(what, func() bool { r = f.Receipt(c); return ok(r) })
	return r
}

// ago is a time by the registry's clock, which stands still: what is ahead of it is not believed.
func (f *federation) ago(d time.Duration) time.Time {
	return f.cfg.Now().Add(-d).Truncate(time.Microsecond).UTC()
}

// synced waits until all connected zones have the newest revision.
func (f *federation) synced() {
	f.Helper()
	f.until("all in sync", func() bool {
		for _, s := range f.Statuses() {
			if s.Connected && !s.InSync {
				return false
			}
		}
		return true
	})
}

func TestReceiptMovesFromPendingToLive(t *testing.T) {
	f := start(t)
	east, west := f.east(), f.connect("west")
	c := f.commit(mesh("m"))
	rev := uint64(c.Revision)
	f.synced()
	if r := f.Receipt(c); r.Complete || r.Live || r.ZonesTotal != 2 || r.ZonesLive != 0 || r.Change != c.Seq || r.Revision != c.Revision ||
		len(r.Zones) != 2 || r.Zones[0].Zone != "east" || r.Zones[0].Taken {
		t.Fatalf("at first: %+v", r)
	}
	f.status(east, &kdsv1.Status{Revision: rev, Proxies: 3, Acked: 1})
	r := f.receipt("east to take it", c, func(r Receipt) bool { return r.Zones[0].Taken })
	if r.Zones[0].Live || r.Proxies != 3 || r.Acked != 1 || r.Complete {
		t.Fatalf("taken: %+v", r)
	}
	t1, t2 := f.ago(time.Minute), f.ago(time.Second)
	f.status(east, &kdsv1.Status{Revision: rev, Proxies: 3, Acked: 3, Times: lives(rev, t2)})
	r = f.receipt("east to be live", c, func(r Receipt) bool { return r.ZonesLive == 1 })
	if r.Live || r.Complete || !r.LiveSince.IsZero() || !r.Zones[0].LiveSince.Equal(t2) || r.Zones[1].Live {
		t.Fatalf("live in east: %+v", r)
	}
	// A later revision stands for this one.
	later := f.commit(mesh("n"))
	f.synced()
	f.status(west, &kdsv1.Status{Revision: uint64(later.Revision), Proxies: 2, Acked: 2, Times: lives(uint64(later.Revision), t1)})
	r = f.receipt("all to be live", c, func(r Receipt) bool { return r.Live })
	if !r.Complete || !r.LiveSince.Equal(t2) || r.ZonesLive != 2 || r.Proxies != 5 || r.Acked != 5 {
		t.Fatalf("live: %+v", r)
	}
	// It stays so when the zone's list moves on, and a proxy that lags behind later changes doesn't take it back.
	f.status(east, &kdsv1.Status{Revision: uint64(later.Revision), Proxies: 3, Acked: 0,
		Nacks: []*kdsv1.Status_ProxyNack{{Mesh: "m", Proxy: "p", Revision: uint64(later.Revision), Error: "no"}}})
	f.until("the nack", func() bool { return len(f.must("east").Nacks) == 1 })
	if r := f.Receipt(c); !r.Live || !r.LiveSince.Equal(t2) {
		t.Fatalf("afterwards: %+v", r)
	}
	r = f.Receipt(later)
	if r.Live || !r.Complete || !r.Zones[0].Refused || len(r.Zones[0].Nacks) != 1 || r.Zones[0].Nacks[0].Error != "no" {
		t.Fatalf("the later change: %+v", r)
	}
	// The same nack says nothing of a change after it.
	third := f.commit(mesh("o"))
	f.synced()
	f.status(west, &kdsv1.Status{Revision: uint64(third.Revision), Proxies: 2, Acked: 2})
	r = f.receipt("west", third, func(r Receipt) bool { return r.Zones[1].Live })
	if r.Complete || r.Zones[0].Refused {
		t.Fatalf("the third change: %+v", r)
	}
}

// A rejection that stood before a change is not the change's, which may mend it; but nobody waits for it for ever.
func TestReceiptBesideAStandingRejection(t *testing.T) {
	f := start(t)
	east := f.east()
	standing := func(revision int64) *kdsv1.Status {
		return &kdsv1.Status{Revision: uint64(revision), Proxies: 2, Acked: 1, Nacks: []*kdsv1.Status_ProxyNack{
			{Mesh: "m", Proxy: "p", TypeUrl: "t", Revision: uint64(revision), Error: "no", Time: timestamppb.New(time.Unix(9, 0))}}}
	}
	bad := f.commit(mesh("bad"))
	f.synced()
	f.status(east, standing(bad.Revision))
	f.receipt("the rejection", bad, func(r Receipt) bool { return r.Complete && r.Zones[0].Refused })
	next := f.commit(mesh("next"))
	f.synced()
	f.status(east, standing(next.Revision))
	r := f.receipt("the next to be taken", next, func(r Receipt) bool { return r.Zones[0].Taken })
	if r.Complete || r.Zones[0].Refused || f.must("east").Nacks[0].Revision != uint64(bad.Revision) {
		t.Fatalf("an old rejection is held against the next change: %+v", r)
	}
	f.skipped.Add(int64(grace))
	r = f.receipt("the end of waiting", next, func(r Receipt) bool { return r.Complete })
	if r.Live || !r.Zones[0].Refused || len(r.Zones[0].Nacks) != 1 {
		t.Fatalf("a rejection that stays: %+v", r)
	}
	mend := f.commit(mesh("mend"))
	f.synced()
	f.status(east, standing(mend.Revision))
	f.receipt("the mend to be taken", mend, func(r Receipt) bool { return r.Zones[0].Taken && !r.Complete })
	f.status(east, &kdsv1.Status{Revision: uint64(mend.Revision), Proxies: 2, Acked: 2})
	f.receipt("the mend to be live", mend, func(r Receipt) bool { return r.Live })
}

func TestReceiptOfARejectedRecord(t *testing.T) {
	f := start(t)
	east := f.connect("east", func(p *peer) { p.bad = "bad" })
	c := f.commit(mesh("bad"), mesh("good"))
	f.synced()
	f.status(east, &kdsv1.Status{Revision: uint64(c.Revision)})
	r := f.receipt("the rejection", c, func(r Receipt) bool { return r.Complete })
	z := r.Zones[0]
	if r.Live || z.Live || !z.Refused || len(z.Rejected) != 1 || z.Rejected[0] != (Rejected{"Mesh", "", "bad", "newer than this zone"}) {
		t.Fatalf("receipt %+v", r)
	}
	if s := f.must("east"); !s.InSync || len(s.Rejected) != 1 {
		t.Fatalf("status %+v", s)
	}
	// Another change is not touched by it, and a new version of the resource mends it.
	other := f.commit(mesh("other"))
	f.synced()
	f.status(east, &kdsv1.Status{Revision: uint64(other.Revision)})
	f.receipt("the other to be live", other, func(r Receipt) bool { return r.Live && r.Complete })
	f.commit(store.Op{Key: resource.Key{Kind: "Mesh", Name: "bad"}, Delete: true})
	f.until("the rejection to go", func() bool { return len(f.must("east").Rejected) == 0 })
}

func TestReceiptOfZonesThatAreAway(t *testing.T) {
	f := start(t)
	c := f.commit(mesh("m"))
	if r := f.Receipt(c); !r.Complete || r.Live || r.ZonesTotal != 0 {
		t.Fatalf("without zones: %+v", r)
	}
	f.commit(enable("off", false), enable("away", true))
	east := f.east()
	f.synced()
	f.status(east, &kdsv1.Status{Revision: uint64(f.store.Snapshot().Revision())})
	r := f.receipt("east", c, func(r Receipt) bool { return r.ZonesLive == 1 })
	if r.Live || !r.Complete || r.ZonesTotal != 2 || r.Zones[0].Zone != "away" || r.Zones[0].Connected || r.Zones[0].Taken {
		t.Fatalf("with one away: %+v", r)
	}
	f.commit(enable("away", false))
	f.receipt("the last enabled zone to count alone", c, func(r Receipt) bool { return r.Live && r.ZonesTotal == 1 })
	east.stop()
	r = f.receipt("east to go", c, func(r Receipt) bool { return !r.Zones[0].Connected })
	if r.Live || !r.Complete {
		t.Fatalf("after it went: %+v", r)
	}
}

// A zone that says more than it has is not believed.
func TestReceiptNeedsTheDisk(t *testing.T) {
	f := start(t)
	east := f.east()
	f.synced()
	at := f.store.Snapshot().Revision()
	f.status(east, &kdsv1.Status{Revision: uint64(at) + 5, Proxies: 1, Acked: 1, Times: lives(uint64(at)+5, time.Now())})
	f.until("the status", func() bool { return f.must("east").Proxies == 1 })
	if r := f.ReceiptOf(at + 5); r.Live || r.Complete || r.Zones[0].Taken {
		t.Fatalf("receipt of a revision that doesn't exist: %+v", r)
	}
}

// A status may come before the position that it is about, but one of another epoch counts for nothing.
func TestStatusBeforeItsPosition(t *testing.T) {
	f := start(t)
	c := f.commit(mesh("m"))
	s, v := f.Open(f.ctx, "east", &kdsv1.Hello{Zone: "east"})
	if s == nil {
		t.Fatalf("refused: %+v", v)
	}
	defer s.Close()
	done := &kdsv1.Status{Revision: uint64(c.Revision) + 1, Proxies: 1, Acked: 1}
	s.Status(done)
	if r := f.Receipt(c); r.Live || r.Zones[0].Taken {
		t.Fatalf("before it has anything: %+v", r)
	}
	at := f.views.Stable().Position()
	s.Confirmed(at, nil)
	if r := f.Receipt(c); !r.Live {
		t.Fatalf("after it has it: %+v", r)
	}
	other := at
	other.Epoch = "restored"
	s.Confirmed(other, nil)
	s.Status(done)
	if r := f.Receipt(c); r.Live || r.Zones[0].Taken {
		t.Fatalf("in another epoch: %+v", r)
	}
	s.Confirmed(at, nil)
	if r := f.Receipt(c); r.Live {
		t.Fatalf("by what it said of another epoch: %+v", r)
	}
}

func TestReplicasCountTogether(t *testing.T) {
	f := start(t)
	first := f.east()
	second := f.zone("east", "1", "id-east", "zone:east")
	f.event(second, func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	c := f.commit(mesh("m"))
	f.synced()
	at := f.ago(time.Second)
	f.status(first, &kdsv1.Status{Revision: uint64(c.Revision), Proxies: 1, Acked: 1, Times: lives(uint64(c.Revision), at)})
	r := f.receipt("the first", c, func(r Receipt) bool { return r.Acked == 1 })
	if r.Live || r.Zones[0].Taken {
		t.Fatalf("with one of two replicas: %+v", r)
	}
	f.status(second, &kdsv1.Status{Revision: uint64(c.Revision), Proxies: 2, Acked: 2, Times: lives(uint64(c.Revision), at.Add(-time.Hour))})
	r = f.receipt("both", c, func(r Receipt) bool { return r.Live })
	if r.Proxies != 3 || r.Acked != 3 || !r.LiveSince.Equal(at) {
		t.Fatalf("with both: %+v", r)
	}
}

// A revision's time stays when the zone's own list of the newest no longer names it, and is bounded here too.
func TestLiveTimesAreKept(t *testing.T) {
	rep := &replica{held: kds.Position{Revision: 1 << 20}}
	at := time.Unix(1000, 0)
	for i := range uint64(2 * maxLive) {
		rep.lives(i, at.Add(time.Duration(i)*time.Second), true)
	}
	if len(rep.live) != maxLive {
		t.Fatalf("%d times are kept", len(rep.live))
	}
	if since, ok := rep.liveSince(maxLive + 1); !ok || !since.Equal(at.Add((maxLive+1)*time.Second)) {
		t.Fatalf("since %v, %v", since, ok)
	}
	rep.lives(maxLive+1, at, false)
	if since, _ := rep.liveSince(maxLive + 1); since.Equal(at) {
		t.Fatal("a conclusion replaced what the zone said")
	}
	if _, ok := rep.liveSince(2 * maxLive); ok {
		t.Fatal("a revision that nobody reported is live")
	}
}

func TestReplicasAreBounded(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	z := &zone{replicas: map[string]*replica{}}
	add := func(name string, s *session, since time.Time) {
		z.replicas[name] = &replica{name: name, session: s, since: since}
	}
	one := &replica{name: "one"}
	add("long-gone", nil, now.Add(-2*forgetAfter))
	add("gone", nil, now.Add(-time.Minute))
	for i := range maxReplicas - 2 {
		add(fmt.Sprint("r", i), &session{}, now)
	}
	if !z.forget(one, now) || z.replicas["long-gone"] != nil || z.replicas["gone"] == nil {
		t.Fatal("only what went long ago is forgotten while there is room")
	}
	add("last-but-one", &session{}, now)
	if !z.forget(one, now) || z.replicas["gone"] != nil {
		t.Fatal("what has gone makes room")
	}
	add("last", &session{}, now)
	if z.forget(one, now) {
		t.Fatal("there is no room for one more that is connected")
	}
	if !z.forget(z.replicas["last"], now) {
		t.Fatal("one that comes again has room")
	}
}
