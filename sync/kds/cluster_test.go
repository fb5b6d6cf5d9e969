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

// testDisk is what survives the zone: whole deltas, or nothing of them.
type testDisk struct {
	set *Set
	at  Position
	// damaged says that a start finds it so, and sets it aside.
	damaged bool
}

func (d *testDisk) write(a *Apply) {
	if a.Snapshot {
		d.set = NewSet()
	}
	for _, k := range a.Deletes {
		d.set.Delete(k)
	}
	for _, r := range a.Upserts {
		if err := d.set.Put(r); err != nil {
			panic(err)
		}
	}
	d.at = a.Position
}

// crash is where an end of the stream dies: at which of the steps that write something durable, counted from 1, and on which side of it.
type crash struct {
	step  int
	after bool
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
	disk   testDisk
	// lossy says that this stream lost or repeated frames, so that it may end, and cut counts those that did.
	lossy bool
	cut   int
	// delivered counts frames, and the one numbered loseAt goes lost; lost is it.
	delivered, loseAt int
	lost              string
	// steps counts the durable ones, and crash is the one that kills.
	steps int
	crash crash
	// offer is what the zone finds to offer when it starts.
	offer *Set
}

func newCluster() *cluster {
	c := &cluster{
		now:  time.Unix(1000, 0),
		view: &testView{Set: NewSet(), pos: Position{Epoch: "a"}, log: map[uint64][]resource.Key{}, memo: &Memo{}},
		cfg:  GlobalConfig{Zone: "west", Interval: time.Second, MaxChunk: 400},
		disk: testDisk{set: NewSet()},
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
	c.down, c.up, c.lossy = nil, nil, false
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
				if c.global != nil {
					c.globalEvent(e)
				}
			}
			if r.Closed != nil {
				c.logf("global closed: %v", r.Closed)
				c.ended(r.Closed)
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
			if e.Lost {
				c.logf("zone misses frames")
			}
			if e.Query != nil {
				c.zone.Answer(&kdsv1.Answer{Id: e.Query.GetId(), Last: true})
			}
		}
		if r.Closed != nil {
			c.logf("zone closed: %v", r.Closed)
			c.ended(r.Closed)
		}
	}
}

// ended notes why a stream ended by itself, which only one that lost something may.
func (c *cluster) ended(why error) {
	if c.lossy {
		c.cut++
		return
	}
	c.errs = append(c.errs, why)
}

// dies counts a durable step, before and after it, and reports whether the process dies there.
func (c *cluster) dies(after bool) bool {
	if !after {
		c.steps++
	}
	return c.crash == crash{c.steps, after}
}

// killGlobal takes away what global has of the stream; what it committed stays.
func (c *cluster) killGlobal() {
	c.logf("global dies")
	c.global, c.down, c.up = nil, nil, nil
}

// killZone starts the zone again from its disk.
func (c *cluster) killZone() {
	c.logf("zone dies")
	if c.disk.damaged {
		c.disk = testDisk{set: NewSet()}
	}
	c.apply = nil
	c.zone = NewZone(c.zone.cfg, c.disk.set.Clone(), c.disk.at)
	if c.offer != nil {
		c.zone.Offer(c.offer)
	}
	c.connect()
}

// lose takes the next frame of a direction away.
func (c *cluster) lose(down bool) {
	switch {
	case c.lossy:
	case down && len(c.down) > 0:
		c.logf("lost %s", describe(c.down[0]))
		c.down, c.lossy = c.down[1:], true
	case !down && len(c.up) > 0:
		c.logf("lost %s", describe(c.up[0]))
		c.up, c.lossy = c.up[1:], true
	}
}

// reconnect opens a stream where there is none.
func (c *cluster) reconnect() {
	if c.global == nil || c.zone.State() == Offline {
		c.zone.Disconnect()
		c.connect()
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
	case e.CertificateRequest != nil:
		c.global.Certificate(&kdsv1.Certificate{Id: e.CertificateRequest.GetId()})
	case e.Report != nil:
		if c.dies(false) {
			c.killGlobal()
			return
		}
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
		if c.dies(true) {
			c.killGlobal()
			return
		}
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
	if c.dies(false) {
		c.killZone()
		return
	}
	c.disk.write(a)
	if c.dies(true) {
		c.killZone()
		return
	}
	c.zone.Applied(a.Nonce, rejected, nil, c.now)
	c.collect()
}

// step delivers one frame of a direction; it reports whether there was one. Frames go through their bytes.
func (c *cluster) step(down bool) bool {
	if down && len(c.down) > 0 || !down && len(c.up) > 0 {
		if c.delivered++; c.delivered == c.loseAt {
			before := len(c.log)
			c.lose(down)
			c.lost = c.log[before]
			return true
		}
	}
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
		case f.GetStatus() != nil:
			return "status"
		case f.GetCertificateRequest() != nil:
			return "certificate-request"
		case f.GetAnswer() != nil:
			return "answer"
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
		case f.GetCertificate() != nil:
			return "certificate"
		case f.GetQuery() != nil:
			return "query"
		}
	}
	return "other"
}

// repeat lets the next frame of a direction come twice. Not where one went lost, as frames are counted, and one of each is none.
func (c *cluster) repeat(down bool) {
	switch {
	case c.lossy:
	case down && len(c.down) > 0:
		c.down, c.lossy = append(c.down[:1:1], c.down...), true
	case !down && len(c.up) > 0:
		c.up, c.lossy = append(c.up[:1:1], c.up...), true
	}
}
