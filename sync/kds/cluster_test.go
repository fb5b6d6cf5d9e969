package kds

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// testView is a Set at a revision with a log of what changed before.
type testView struct {
	*Set
	pos Position
	log map[uint64][]resource.Key // by revision
	min uint64                    // Since reaches down to it

	memo *Memo
}

func (v *testView) Position() Position { return v.pos }

func (v *testView) Memo() *Memo { return v.memo }

func (v *testView) Since(epoch string, revision uint64) ([]resource.Key, bool) {
	if epoch != v.pos.Epoch || revision < v.min {
		return nil, false
	}
	var out []resource.Key
	for r := revision + 1; r <= v.pos.Revision; r++ {
		out = append(out, v.log[r]...)
	}
	return out, true
}

// cluster is one global and one zone with a wire between them, on a clock of its own.
type cluster struct {
	now    time.Time
	view   *testView
	global *Global
	zone   *Zone
	down   []*kdsv1.GlobalFrame
	up     []*kdsv1.ZoneFrame
	apply  *Apply
	fail   int // applies still to fail
	poison string
	log    []string
	cfg    GlobalConfig
	// offered is what global has committed of the zone's reports.
	offered *Set
	// stored is its digest, as the Welcome tells it; nil before the first report.
	stored *resource.Digest
	errs   []error
}

func newCluster() *cluster {
	c := &cluster{
		now:  time.Unix(1000, 0),
		view: &testView{Set: NewSet(), pos: Position{Epoch: "a"}, log: map[uint64][]resource.Key{}, memo: &Memo{}},
		cfg:  GlobalConfig{Zone: "west", Interval: time.Second, MaxChunk: 400},
	}
	c.zone = NewZone(ZoneConfig{Zone: "west", Replica: "0"}, NewSet(), Position{})
	return c
}

func key(s string) resource.Key {
	kind, name, _ := strings.Cut(s, "/")
	return resource.Key{Kind: kind, Mesh: "default", Name: name}
}

// change commits a revision: "Kind/name=payload" or "Kind/name" to delete.
func (c *cluster) change(items ...string) {
	next := &testView{Set: c.view.Clone(), log: c.view.log, min: c.view.min, memo: &Memo{}}
	rev := c.view.pos.Revision + 1
	for _, item := range items {
		k, v, put := strings.Cut(item, "=")
		if put {
			if err := next.Put(NewRecord(key(k), []byte(v))); err != nil {
				panic(err)
			}
		} else {
			next.Delete(key(k))
		}
		next.log[rev] = append(next.log[rev], key(k))
	}
	next.pos = next.Set.Position(c.view.pos.Epoch, rev)
	c.view = next
	if c.global != nil {
		c.global.SetView(next, c.now)
	}
}

func (c *cluster) connect() {
	c.down, c.up = nil, nil
	c.global = NewGlobal(c.cfg, c.now)
	c.global.SetView(c.view, c.now)
	c.zone.Connect(c.now)
	c.collect()
}

// collect moves what the machines have ready onto the wire and logs it.
func (c *cluster) collect() {
	for again := true; again; {
		again = false
		if c.global != nil {
			r := c.global.Ready()
			for _, f := range r.Frames {
				c.logf("down %s", describe(f.GlobalFrame))
				c.down = append(c.down, decoded(f))
			}
			for _, e := range r.Events {
				again = true
				c.globalEvent(e)
			}
			if r.Closed != nil {
				c.logf("global closed: %v", r.Closed)
				c.errs = append(c.errs, r.Closed)
				c.global = nil
			}
		}
		r := c.zone.Ready()
		for _, f := range r.Frames {
			c.logf("up %s", describe(f))
			c.up = append(c.up, f)
		}
		if r.Apply != nil {
			c.apply = r.Apply
			c.logf("apply %d: %d upserts, %d deletes, snapshot %v -> %s", r.Apply.Nonce, len(r.Apply.Upserts), len(r.Apply.Deletes),
				r.Apply.Snapshot, r.Apply.Position)
		}
		for _, e := range r.Events {
			if e.Mismatch != nil {
				c.logf("zone differs in %v", e.Mismatch)
			}
		}
		if r.Closed != nil {
			c.logf("zone closed: %v", r.Closed)
			c.errs = append(c.errs, r.Closed)
		}
	}
}

func (c *cluster) globalEvent(e GlobalEvent) {
	switch {
	case e.Hello != nil:
		c.global.Admit(Verdict{Offered: c.stored}, c.now)
	case e.Confirmed != nil:
		c.logf("confirmed %s", *e.Confirmed)
	case e.Nacked != nil:
		c.logf("nacked %d: %s, retry in %s", e.Nacked.Revision, e.Nacked.Reason, e.Nacked.Retry.Sub(c.now))
	case e.Repair != nil:
		c.logf("repair of %v", e.Repair)
	case e.Rejected != nil:
		for _, r := range e.Rejected {
			c.logf("rejected %s: %s", r.GetKey().GetName(), r.GetReason())
		}
	case e.Report != nil:
		if e.Report.GetSnapshot() || c.offered == nil {
			c.offered = NewSet()
		}
		for _, r := range e.Report.GetUpserts() {
			if err := c.offered.Put(r); err != nil {
				panic(err)
			}
		}
		for _, k := range e.Report.GetDeletes() {
			k, _ := KeyFrom(k)
			c.offered.Delete(k)
		}
		digest := c.offered.Digest()
		c.stored = &digest
		c.global.Reported(e.Report.GetSequence(), nil)
	}
}

// applied lets the zone's driver finish the pending delta.
func (c *cluster) applied() {
	a := c.apply
	if a == nil {
		return
	}
	c.apply = nil
	if c.fail > 0 {
		c.fail--
		c.zone.Applied(a.Nonce, nil, errors.New("disk full"), c.now)
		c.collect()
		return
	}
	var rejected []*kdsv1.Rejection
	for _, r := range a.Upserts {
		if c.poison != "" && bytes.Contains(r.GetPayload(), []byte(c.poison)) {
			rejected = append(rejected, &kdsv1.Rejection{Key: r.GetKey(), Hash: r.GetHash(), Reason: "poison"})
		}
	}
	c.zone.Applied(a.Nonce, rejected, nil, c.now)
	c.collect()
}

// step delivers one frame of a direction; it reports whether there was one. Frames go through their bytes.
func (c *cluster) step(down bool) bool {
	if down && len(c.down) > 0 {
		f := proto.CloneOf(c.down[0])
		c.down = c.down[1:]
		c.zone.Receive(f, c.now)
	} else if !down && len(c.up) > 0 {
		f := proto.CloneOf(c.up[0])
		c.up = c.up[1:]
		if c.global != nil {
			c.global.Receive(f, c.now)
		}
	} else {
		return false
	}
	c.collect()
	return true
}

// stabilize delivers everything until nothing moves.
func (c *cluster) stabilize() error {
	for n := 0; c.step(true) || c.step(false) || c.apply != nil; n++ {
		c.applied()
		if n > 10000 {
			return errors.New("does not come to rest")
		}
	}
	return nil
}

func (c *cluster) tick(d time.Duration) {
	c.now = c.now.Add(d)
	if c.global != nil {
		c.global.Tick(c.now)
	}
	c.zone.Tick(c.now)
	c.collect()
}

func (c *cluster) logf(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

// decoded is a frame as its bytes say, where they were made already.
func decoded(f Frame) *kdsv1.GlobalFrame {
	if f.Encoded == nil {
		return f.GlobalFrame
	}
	var out kdsv1.GlobalFrame
	if err := proto.Unmarshal(f.Encoded, &out); err != nil {
		panic(err)
	}
	return &out
}

func describe(m proto.Message) string {
	switch f := m.(type) {
	case *kdsv1.ZoneFrame:
		switch {
		case f.GetHello() != nil:
			p, _ := PositionFrom(f.GetHello().GetPosition())
			return fmt.Sprintf("hello %s", p)
		case f.GetAck() != nil:
			return fmt.Sprintf("ack %d revision %d rejected %d", f.GetAck().GetNonce(), f.GetAck().GetRevision(), len(f.GetAck().GetRejected()))
		case f.GetNack() != nil:
			return fmt.Sprintf("nack %d", f.GetNack().GetNonce())
		case f.GetHeartbeat() != nil:
			p, _ := PositionFrom(f.GetHeartbeat().GetPosition())
			return fmt.Sprintf("heartbeat %s", p)
		case f.GetInventory() != nil:
			i := f.GetInventory()
			return fmt.Sprintf("inventory %d of %v: %d entries", i.GetNonce(), i.GetKinds(), len(i.GetEntries()))
		case f.GetReport() != nil:
			r := f.GetReport()
			return fmt.Sprintf("report %d: %d upserts, %d deletes, snapshot %v", r.GetSequence(), len(r.GetUpserts()), len(r.GetDeletes()), r.GetSnapshot())
		}
	case *kdsv1.GlobalFrame:
		switch {
		case f.GetWelcome() != nil:
			return "welcome"
		case f.GetRefusal() != nil:
			return fmt.Sprintf("refusal %s: %s", f.GetRefusal().GetCode(), f.GetRefusal().GetReason())
		case f.GetChunk() != nil:
			k := f.GetChunk()
			return fmt.Sprintf("chunk %d.%d: %d upserts, %d deletes, snapshot %v, repair %v, last %v", k.GetNonce(), k.GetIndex(),
				len(k.GetUpserts()), len(k.GetDeletes()), k.GetSnapshot(), k.GetRepair(), k.GetLast())
		case f.GetHeartbeat() != nil:
			if f.GetHeartbeat().GetPosition() == nil {
				return "heartbeat"
			}
			p, _ := PositionFrom(f.GetHeartbeat().GetPosition())
			return fmt.Sprintf("heartbeat %s", p)
		case f.GetInventoryRequest() != nil:
			r := f.GetInventoryRequest()
			return fmt.Sprintf("inventory request %d against %v", r.GetNonce(), slices.Sorted(maps.Keys(r.GetKinds())))
		case f.GetReportAck() != nil:
			return fmt.Sprintf("report ack %d", f.GetReportAck().GetSequence())
		}
	}
	return "other"
}
