package kds

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

var replay = flag.Uint64("kds.seed", 0, "run TestConverge with this seed alone, as a failure printed it")

// TestConverge drives both machines through random changes, lost streams, lost and repeated frames, failing disks, crashes of either
// end around what it writes, corrupted state, lagging replicas of global, restores and truncated logs. Whatever happened, calm must
// bring the zone and its disk to a plain map of what was written, and no revision may go back within an epoch.
func TestConverge(t *testing.T) {
	if *replay != 0 {
		converge(t, *replay)
		return
	}
	first := uint64(time.Now().UnixNano())
	for i := range uint64(2000) {
		if converge(t, first+i); t.Failed() {
			return
		}
	}
}

// converge makes as many steps as its seed says: many short runs reach more beginnings, and few long ones more depth.
func converge(t *testing.T, seed uint64) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("again by: go test ./sync/kds -run TestConverge -kds.seed %d", seed)
		}
	}()
	steps := 150
	if seed%100 == 0 {
		steps = 3000
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	c := newCluster()
	c.zone.cfg.MaxChunk = 400
	c.poison = "7"
	model := map[string]string{}
	c.offer = NewSet()
	offered := map[string]string{}
	kinds := []string{"Mesh", "Timeout", "Retry", "Secret"}
	last, old := Position{}, c.view
	watch := func() {
		p := c.zone.Position()
		if p.Epoch == last.Epoch && p.Revision < last.Revision {
			t.Fatalf("revision went from %s to %s", last, p)
		}
		last = p
	}
	name := func() string { return fmt.Sprintf("%s/%d", kinds[rnd.IntN(len(kinds))], rnd.IntN(12)) }
	c.connect()
	for n := range steps {
		switch k := rnd.IntN(100); {
		case k < 15: // a change
			var items []string
			for range 1 + rnd.IntN(4) {
				item := name()
				if rnd.IntN(3) == 0 {
					delete(model, item)
				} else {
					model[item] = fmt.Sprint(n)
					item += "=" + model[item]
				}
				items = append(items, item)
			}
			c.change(items...)
		case k < 45:
			c.step(true)
		case k < 75:
			c.step(false)
		case k < 85:
			c.applied()
		case k < 88:
			c.tick(300 * time.Millisecond)
		case k < 90: // the stream breaks and everything on the wire is lost
			c.zone.Disconnect()
			newest := c.view
			if rnd.IntN(2) == 0 && old.pos.Epoch == newest.pos.Epoch {
				c.view = old // a replica of global that is behind, until the next change
			}
			c.connect()
			c.view, old = newest, newest
		case k < 91: // either end crashes, now or around the next thing that it writes
			if rnd.IntN(4) == 0 {
				if c.disk.damaged = rnd.IntN(8) == 0; c.disk.damaged {
					last = Position{} // and what was held is set aside
				}
				c.killZone()
			} else {
				c.crash = crash{c.steps + 1 + rnd.IntN(2), rnd.IntN(2) == 0}
			}
		case k < 92: // a frame goes lost or comes twice
			switch rnd.IntN(4) {
			case 0:
				c.lose(true)
			case 1:
				c.lose(false)
			case 2:
				c.repeat(true)
			default:
				c.repeat(false)
			}
		case k < 93:
			c.fail = rnd.IntN(3)
		case k < 94: // corruption that no frame tells of
			if rnd.IntN(2) == 0 {
				c.zone.held.Delete(key(name()))
			} else if err := c.zone.held.Put(NewRecord(key(name()), []byte("corrupt"))); err != nil {
				t.Fatal(err)
			}
		case k < 95:
			c.view.min, c.view.memo = c.view.pos.Revision, &Memo{}
		case k < 96 && rnd.IntN(4) == 0: // a backup is restored: a new epoch, with a lower revision
			v := *c.view
			v.log, v.min = map[uint64][]resource.Key{}, 0
			v.pos, v.memo = v.Set.Position(fmt.Sprint("epoch", n), v.pos.Revision/2), &Memo{}
			v.min = v.pos.Revision
			c.view = &v
			if c.global != nil {
				c.global.SetView(&v, c.now)
			}
		default:
			k := name()
			if offered[k] = fmt.Sprint(n); rnd.IntN(3) == 0 {
				delete(offered, k)
				c.offer.Delete(key(k))
			} else if err := c.offer.Put(NewRecord(key(k), []byte(offered[k]))); err != nil {
				t.Fatal(err)
			}
			c.zone.Offer(c.offer)
			c.collect()
		}
		c.reconnect()
		watch()
	}
	c.fail, c.crash = 0, crash{}
	c.killZone() // what was corrupted in memory alone may stand on the disk until it is read again
	calm := 0
	for n := 0; calm < 3 && n < 100; n++ {
		if c.global != nil {
			c.global.SetView(c.view, c.now)
			c.collect()
		}
		if err := c.stabilize(); err != nil {
			t.Fatal(err)
		}
		c.reconnect()
		watch()
		c.tick(time.Second)
		if calm++; c.zone.Position() != c.view.Position() || c.global == nil || c.global.State() != Steady {
			calm = 0
		}
	}
	if err := c.stabilize(); err != nil {
		t.Fatal(err)
	}
	same(t, "zone", c.zone.held, model)
	same(t, "disk", c.disk.set, model)
	same(t, "offer", c.offered, offered)
	if c.global.Confirmed() != c.view.Position() || c.zone.Position() != c.view.Position() {
		t.Fatalf("global believes %s, zone %s, view %s", c.global.Confirmed(), c.zone.Position(), c.view.Position())
	}
	for _, err := range c.errs {
		t.Fatalf("a stream ended by itself: %v", err)
	}
}

func same(t *testing.T, what string, got *Set, want map[string]string) {
	t.Helper()
	if got == nil {
		got = NewSet()
	}
	if got.Len() != len(want) {
		t.Fatalf("%s has %d records, the model %d", what, got.Len(), len(want))
	}
	fresh := NewSet()
	for k, v := range want {
		r, ok := got.Get(key(k))
		if !ok || string(r.GetPayload()) != v {
			t.Fatalf("%s: %s is %q, the model says %q", what, k, r.GetPayload(), v)
		}
		if err := fresh.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	if fresh.Position("", 0) != got.Position("", 0) || !maps.Equal(fresh.Kinds(), got.Kinds()) {
		t.Fatalf("%s: incremental digest differs from one made anew", what)
	}
}

// TestDiff checks apply(diff(a, b), a) == b.
func TestDiff(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a, b := NewSet(), NewSet()
		for range 20 {
			for _, s := range []*Set{a, b} {
				if err := s.Put(NewRecord(key(fmt.Sprintf("Mesh/%d", rnd.IntN(15))), []byte{byte(rnd.IntN(3))})); err != nil {
					t.Fatal(err)
				}
			}
		}
		keep := a.Clone()
		upserts, deletes := Diff(a, b)
		for _, r := range upserts {
			if err := a.Put(r); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range deletes {
			k, _ := KeyFrom(k)
			a.Delete(k)
		}
		if a.Position("", 0) != b.Position("", 0) || !maps.Equal(a.Kinds(), b.Kinds()) {
			t.Fatal("the difference does not lead there")
		}
		if keep.Len() == 0 {
			t.Fatal("a clone changed with its original")
		}
	}
}

// TestChunkSize checks that chunks stay under their size but for a larger record, which travels alone.
func TestChunkSize(t *testing.T) {
	d := &delta{nonce: 1, position: NewSet().Position("a", 1)}
	for i := range 300 {
		n := i % 90
		if i == 150 {
			n = 5000
		}
		d.upserts = append(d.upserts, NewRecord(key(fmt.Sprintf("Mesh/%d", i)), make([]byte, n)))
		d.deletes = append(d.deletes, KeyProto(key(fmt.Sprintf("Retry/%d", i))))
	}
	var upserts, deletes int
	chunks := d.chunks(1000)
	for i, c := range chunks {
		if proto.Size(c) > 1000 && len(c.GetUpserts())+len(c.GetDeletes()) != 1 {
			t.Errorf("chunk %d has %d bytes", i, proto.Size(c))
		}
		if c.GetLast() != (i == len(chunks)-1) || int(c.GetIndex()) != i {
			t.Errorf("chunk %d is out of order", i)
		}
		upserts, deletes = upserts+len(c.GetUpserts()), deletes+len(c.GetDeletes())
	}
	if upserts != 300 || deletes != 300 {
		t.Errorf("%d upserts and %d deletes of 300 arrived", upserts, deletes)
	}
}

func FuzzZoneReceive(f *testing.F) {
	seed := func(m *kdsv1.GlobalFrame) { f.Add(marshal(m)) }
	seed(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Chunk{Chunk: &kdsv1.Chunk{Nonce: 1, Last: true, Snapshot: true,
		Position: NewSet().Position("a", 1).Proto()}}})
	seed(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_InventoryRequest{InventoryRequest: &kdsv1.InventoryRequest{Nonce: 1, Kinds: map[string]*kdsv1.Digest{"Mesh": {Sum: make([]byte, 32), Count: 1}}}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, online := range []bool{true, false} {
			c := newCluster()
			c.change("Mesh/a=1")
			c.connect()
			if online {
				if err := c.stabilize(); err != nil {
					t.Fatal(err)
				}
			}
			var m kdsv1.GlobalFrame
			if proto.Unmarshal(b, &m) != nil {
				return
			}
			for range 2 {
				c.zone.Receive(&m, c.now)
				if a := c.zone.Ready().Apply; a != nil {
					c.zone.Applied(a.Nonce, nil, nil, c.now)
				}
				c.zone.Tick(c.now.Add(time.Minute))
				c.zone.Ready()
			}
		}
	})
}

func FuzzGlobalReceive(f *testing.F) {
	seed := func(m *kdsv1.ZoneFrame) { f.Add(marshal(m)) }
	seed(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: &kdsv1.Hello{Zone: "west", Protocols: []uint32{1}}}})
	seed(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Ack{Ack: &kdsv1.Ack{Nonce: 2, Revision: 2}}})
	seed(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Inventory{Inventory: &kdsv1.Inventory{Kinds: []string{"Mesh"}, More: true}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		for stage := range 3 {
			c := newCluster()
			c.change("Mesh/a=1")
			c.connect()
			if stage > 0 {
				if err := c.stabilize(); err != nil {
					t.Fatal(err)
				}
			}
			if stage > 1 {
				c.change("Mesh/a=2")
			}
			var m kdsv1.ZoneFrame
			if proto.Unmarshal(b, &m) != nil {
				return
			}
			for range 2 {
				c.global.Receive(&m, c.now)
				c.global.Admit(Verdict{}, c.now)
				c.global.Ready()
			}
			c.global.Tick(c.now.Add(time.Minute))
		}
	})
}

func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}
