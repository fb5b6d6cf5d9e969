package kds

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// work is what it took to bring zones up to date: frames and their bytes, how many of them had to be encoded, records that were
// looked up by key, and those that were gone through.
type work struct{ frames, bytes, encoded, lookups, visits int }

// meter is a view that counts what it is asked for.
type meter struct {
	*testView
	done *work
}

func (m meter) Get(k resource.Key) (*kdsv1.Record, bool) {
	m.done.lookups++
	return m.testView.Get(k)
}

func (m meter) Each(kind string, fn func(resource.Key, *kdsv1.Record) bool) {
	m.testView.Each(kind, func(k resource.Key, r *kdsv1.Record) bool {
		m.done.visits++
		return fn(k, r)
	})
}

// federation is a number of zones that hold a number of records, as global sees them.
type federation struct {
	*cluster
	t        *testing.T
	machines []*Global
	done     work
	// shared are frames that were encoded before.
	shared map[*byte]bool
}

func newFederation(t *testing.T, records, zones int) *federation {
	t.Helper()
	f := &federation{cluster: newCluster(), t: t, shared: map[*byte]bool{}}
	var items []string
	for i := range records {
		items = append(items, fmt.Sprintf("%s/policy-%06d=%0300d", []string{"Retry", "Timeout", "TrafficRoute"}[i%3], i, i))
	}
	f.change(items...)
	for range zones {
		f.machines = append(f.machines, nil)
		f.open(len(f.machines) - 1)
	}
	f.done = work{}
	return f
}

// open begins the stream of a zone that holds what the newest view has.
func (f *federation) open(zone int) {
	g := NewGlobal(GlobalConfig{Zone: "west", MaxChunk: DefaultMaxChunk}, f.now)
	g.SetView(meter{f.view, &f.done}, f.now)
	g.Receive(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: &kdsv1.Hello{Zone: "west", Protocols: []uint32{Protocol}, Position: f.view.pos.Proto()}}}, f.now)
	g.Admit(Verdict{}, f.now)
	f.machines[zone] = g
	f.answer(zone)
}

// answer takes what is ready for a zone and acknowledges it.
func (f *federation) answer(zone int) {
	g := f.machines[zone]
	for _, frame := range g.Ready().Frames {
		f.done.frames++
		f.done.bytes += proto.Size(frame)
		if len(frame.Encoded) == 0 || !f.shared[&frame.Encoded[0]] {
			f.done.encoded++
		}
		if len(frame.Encoded) > 0 {
			f.shared[&frame.Encoded[0]] = true
		}
		if c := frame.GetChunk(); c.GetLast() {
			g.Receive(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Ack{Ack: &kdsv1.Ack{Nonce: c.GetNonce(), Revision: f.view.pos.Revision}}}, f.now)
		}
	}
	if g.Confirmed() != f.view.pos {
		f.t.Fatalf("zone %d holds %v, want %v", zone, g.Confirmed(), f.view.pos)
	}
}

// deliver commits a change of one record and brings it to all zones.
func (f *federation) deliver(size int) work {
	f.t.Helper()
	f.done = work{}
	f.change("Timeout/policy-000001=" + strings.Repeat("x", size))
	for zone, g := range f.machines {
		g.SetView(meter{f.view, &f.done}, f.now)
		f.answer(zone)
	}
	return f.done
}

// numbers is by how much the numbers in a frame, such as a count of records, may differ in size.
const numbers = 16

// TestDeltaCostsWhatChanges delivers one change: its cost does not depend on how many records there are, and grows with the zones by no
// more than each one's copy of what was encoded once.
func TestDeltaCostsWhatChanges(t *testing.T) {
	const size = 1000
	few, many := newFederation(t, 300, 10).deliver(size), newFederation(t, 3000, 10).deliver(size)
	t.Logf("among 300 records %+v, among 3000 %+v", few, many)
	if few.frames != many.frames || few.lookups != many.lookups || few.visits != 0 || many.visits != 0 {
		t.Errorf("one change among 300 records takes %+v, among 3000 %+v", few, many)
	}
	if many.bytes-few.bytes > 10*numbers {
		t.Errorf("one change among 3000 records takes %d bytes, among 300 %d", many.bytes, few.bytes)
	}
	one := newFederation(t, 300, 1).deliver(size)
	if few.frames != 10*one.frames || few.bytes != 10*one.bytes {
		t.Errorf("one change to 10 zones takes %+v, to one %+v", few, one)
	}
	if few.lookups != 1 || few.encoded != 1 {
		t.Errorf("one change to 10 zones takes %+v, want it looked up and encoded once", few)
	}
	if limit := 10 * (size + size/10 + 200); few.bytes > limit {
		t.Errorf("one change of %d bytes to 10 zones takes %d bytes, want at most %d", size, few.bytes, limit)
	}
}

// TestReturnWithNothingNewCostsNothing opens a stream again for a zone that holds all that it should.
func TestReturnWithNothingNewCostsNothing(t *testing.T) {
	back := func(records int) work {
		f := newFederation(t, records, 1)
		f.open(0)
		return f.done
	}
	few, many := back(300), back(3000)
	t.Logf("with 300 records %+v, with 3000 %+v", few, many)
	for _, w := range []work{few, many} {
		if w.frames != 1 || w.lookups+w.visits != 0 || w.bytes > 200 {
			t.Errorf("coming back with nothing new takes %+v, want a Welcome alone", w)
		}
	}
	if few != many {
		t.Errorf("with 3000 records it takes %+v, with 300 %+v", many, few)
	}
}

// TestDigestCostsWhatChanges replaces one record of a set: nothing that is made for it depends on how many there are.
func TestDigestCostsWhatChanges(t *testing.T) {
	made := func(records int) float64 {
		s, versions, n := filled(t, records), []*kdsv1.Record{version(7, 1), version(7, 2)}, 0
		return testing.AllocsPerRun(100, func() {
			n++
			if err := s.Put(versions[n%2]); err != nil {
				t.Fatal(err)
			}
			s.Position("a", uint64(n))
		})
	}
	if few, many := made(100), made(10_000); few != many || few > 8 {
		t.Errorf("replacing one record of 10,000 makes %g objects, one of 100 %g", many, few)
	}
}
