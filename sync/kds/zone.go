package kds

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// ZoneState is where the zone's stream stands.
type ZoneState int

// States of a Zone.
const (
	// Offline: there is no stream. A delta that the driver was applying may still be pending.
	Offline ZoneState = iota
	// Settling: there is a stream, but the Hello waits for the pending delta of the last one, as it must say what is held.
	Settling
	// AwaitWelcome: the Hello is sent.
	AwaitWelcome
	// Online: welcomed. pending or partial may be set, never both.
	Online
)

// String names the state.
func (s ZoneState) String() string {
	return [...]string{"offline", "settling", "await-welcome", "online"}[s]
}

// ZoneConfig is of one replica of a zone. Zero sizes and durations mean the defaults.
type ZoneConfig struct {
	// As in Hello.
	Zone, Replica, Identity, Version string
	Features                         []string
	// MaxChunk (1 MiB) and MaxDelta bound, in bytes, what is accepted.
	MaxChunk, MaxDelta int
	Interval           time.Duration // until a Welcome says otherwise
}

// Apply is a delta to put on disk and into force in one step; the driver answers by Applied.
type Apply struct {
	Nonce    uint64
	Position Position
	// Snapshot says that everything that is not in Upserts goes.
	Snapshot bool
	Upserts  []*kdsv1.Record
	Deletes  []resource.Key
}

// ZoneReady is what the driver does next.
type ZoneReady struct {
	Frames []*kdsv1.ZoneFrame
	// Apply is nil when there is nothing new.
	Apply  *Apply
	Events []ZoneEvent
	// Closed is why the stream ends after Frames: hang up, and Connect again after a backoff. Given once.
	Closed error
}

// ZoneEvent is something that happened; exactly one field is set.
type ZoneEvent struct {
	Welcome *kdsv1.Welcome
	// Refusal says when and whether to try again.
	Refusal   *kdsv1.Refusal
	ReportAck *kdsv1.ReportAck
	// Certificate answers RequestCertificate by id.
	Certificate *kdsv1.Certificate
	// Query wants Answer.
	Query *kdsv1.Query
	// Siblings are the other replicas of the zone that are connected to global. It follows a Welcome of which it is part, too.
	Siblings *kdsv1.Siblings
	// Mismatch lists kinds whose records are not those that global meant.
	Mismatch []string
	// Lost says that frames went missing, for which the stream is Closed.
	Lost bool
	// Withheld lists what doesn't fit into an offer: see MaxOffer.
	Withheld []resource.Key
}

// Zone is a zone replica's end, over all of its streams.
type Zone struct {
	cfg   ZoneConfig
	state ZoneState
	out   ZoneReady

	// held is what is on the zone's disk, at epoch and revision. It changes only in Applied.
	held     *Set
	epoch    string
	revision uint64

	// pending is the one Apply that the driver has; it outlives the stream it came by. Then the next stream is Settling, so
	// in Online it is always of this stream.
	pending *Apply
	// partial collects chunks; next is the index that must come, size the bytes so far. Online only.
	partial *Apply
	next    uint32
	size    int
	// differs says that held is not what global meant it to be, until global has compared them.
	differs bool
	// audited is the key from which held is looked through next.
	audited resource.Key

	heard, sent time.Time
	stream      uint64 // number of the newest one; follows the clock, so that it grows over restarts too
	frames      traffic
	reports     reports
	status      *kdsv1.Status
	told        uint64 // newest revision whose time as live global was told on this stream
	requests    map[uint64]bool
	lastRequest uint64
}

// NewZone makes the machine of a zone that holds a set (which it takes over) at a position; only epoch and revision of it count.
func NewZone(cfg ZoneConfig, held *Set, at Position) *Zone {
	cfg.MaxChunk = cmp.Or(cfg.MaxChunk, limitChunk)
	cfg.MaxDelta = cmp.Or(cfg.MaxDelta, DefaultMaxDelta)
	cfg.Interval = cmp.Or(cfg.Interval, DefaultInterval)
	return &Zone{cfg: cfg, held: held, epoch: at.Epoch, revision: at.Revision, requests: map[uint64]bool{}}
}

// Ready takes what is to be done; the next call gives only what came after.
func (z *Zone) Ready() ZoneReady {
	out := z.out
	z.out = ZoneReady{}
	for _, f := range out.Frames {
		if s := f.GetStatus(); s != nil {
			z.tell(s)
		}
	}
	return out
}

// Adopt has the zone known by another identity from the next stream on.
func (z *Zone) Adopt(identity string) { z.cfg.Identity = identity }

// State is where the stream stands.
func (z *Zone) State() ZoneState { return z.state }

// Position is what the zone holds.
func (z *Zone) Position() Position { return z.held.Position(z.epoch, z.revision) }

// Held is a copy of what the zone holds.
func (z *Zone) Held() *Set { return z.held.Clone() }

// Connect begins a stream that has just been opened.
func (z *Zone) Connect(now time.Time) {
	z.Disconnect()
	z.out.Closed = nil
	z.heard, z.sent = now, now
	z.stream = max(z.stream+1, uint64(max(now.UnixNano(), 0)))
	z.heard, z.sent, z.frames = now, now, traffic{}
	if z.pending != nil {
		z.state = Settling
		return
	}
	z.hello()
}

// Disconnect forgets the stream. What was collected of a delta is dropped; a pending Apply still wants Applied. Certificates
// that were asked for won't come.
func (z *Zone) Disconnect() {
	z.state, z.partial, z.differs = Offline, nil, false
	z.out.Frames = nil
	z.reports.reset()
	z.told = 0
	clear(z.requests)
}

func (z *Zone) hello() {
	z.state = AwaitWelcome
	z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: &kdsv1.Hello{
		Zone: z.cfg.Zone, Replica: z.cfg.Replica, Identity: z.cfg.Identity, Version: z.cfg.Version,
		Protocols: protocols, Features: z.cfg.Features, Position: z.position(), Stream: z.stream,
	}}})
}

// position is absent for a zone that never received anything.
func (z *Zone) position() *kdsv1.Position {
	if z.epoch == "" && z.held.Len() == 0 {
		return nil
	}
	return z.Position().Proto()
}

// Tick lets time pass. See Next.
func (z *Zone) Tick(now time.Time) {
	if z.state == Offline {
		return
	}
	if z.state != Settling && !now.Before(z.heard.Add(SilentIntervals*z.cfg.Interval)) {
		z.fail(fmt.Errorf("global: nothing for %s: %w", SilentIntervals*z.cfg.Interval, ErrSilent))
		return
	}
	if z.state == Online && !now.Before(z.sent.Add(z.cfg.Interval)) {
		z.audit()
		z.beat(now)
	}
}

// audit lets go of records whose bytes changed in memory, so that the digest tells of them and global gives them again.
func (z *Zone) audit() {
	keys, next := z.held.damaged(z.audited, auditBytes)
	for _, key := range keys {
		z.held.Delete(key)
	}
	z.audited = next
	z.differs = z.differs || len(keys) > 0
}

func (z *Zone) beat(now time.Time) {
	z.sent = now
	z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Heartbeat{Heartbeat: &kdsv1.ZoneHeartbeat{
		Position: z.position(), Sent: timestamppb.New(now), Frames: z.frames.sent,
	}}})
}

// Next is when Tick has something to do; the zero time when it never will.
func (z *Zone) Next() time.Time {
	switch z.state {
	case AwaitWelcome:
		return z.heard.Add(SilentIntervals * z.cfg.Interval)
	case Online:
		silent, beat := z.heard.Add(SilentIntervals*z.cfg.Interval), z.sent.Add(z.cfg.Interval)
		if beat.Before(silent) {
			return beat
		}
		return silent
	}
	return time.Time{}
}

// Receive takes a frame. A malformed one ends the stream with an error that wraps ErrBadFrame; an unknown one is ignored.
func (z *Zone) Receive(f *kdsv1.GlobalFrame, now time.Time) {
	if z.state != AwaitWelcome && z.state != Online {
		return
	}
	z.heard = now
	z.frames.received++
	if r, ok := f.GetFrame().(*kdsv1.GlobalFrame_Refusal); ok {
		z.event(ZoneEvent{Refusal: r.Refusal})
		z.fail(fmt.Errorf("global: %s: %s: %w", r.Refusal.GetCode(), r.Refusal.GetReason(), ErrRefused))
		return
	}
	if w, ok := f.GetFrame().(*kdsv1.GlobalFrame_Welcome); ok {
		z.welcome(w.Welcome, now)
		return
	}
	if z.state != Online {
		if f.GetFrame() != nil {
			z.bad("a frame before the Welcome")
		}
		return
	}
	switch f := f.GetFrame().(type) {
	case *kdsv1.GlobalFrame_Chunk:
		z.chunk(f.Chunk)
	case *kdsv1.GlobalFrame_Heartbeat:
		z.heartbeat(f.Heartbeat, now)
	case *kdsv1.GlobalFrame_InventoryRequest:
		z.inventory(f.InventoryRequest)
	case *kdsv1.GlobalFrame_ReportAck:
		if z.reports.ack(f.ReportAck.GetSequence()) {
			z.event(ZoneEvent{ReportAck: f.ReportAck})
			z.report()
		}
	case *kdsv1.GlobalFrame_Certificate:
		if id := f.Certificate.GetId(); z.requests[id] {
			delete(z.requests, id)
			z.event(ZoneEvent{Certificate: f.Certificate})
		}
	case *kdsv1.GlobalFrame_Query:
		z.event(ZoneEvent{Query: f.Query})
	}
}

func (z *Zone) welcome(w *kdsv1.Welcome, now time.Time) {
	if z.state == Online {
		z.bad("a second Welcome")
		return
	}
	if !slices.Contains(protocols, w.GetProtocol()) {
		z.bad(fmt.Sprintf("global chose protocol %d, which was not offered", w.GetProtocol()))
		return
	}
	if ms := w.GetHeartbeatMillis(); ms > 0 {
		z.cfg.Interval = time.Duration(ms) * time.Millisecond
	}
	var offered *resource.Digest
	if w.GetOffered() != nil {
		d, err := digestFrom(w.GetOffered())
		if err != nil {
			z.bad("offers: " + err.Error())
			return
		}
		offered = &d
	}
	z.state, z.sent, z.reports.stored = Online, now, offered
	z.event(ZoneEvent{Welcome: w})
	if w.GetSiblings() != nil {
		z.event(ZoneEvent{Siblings: w.GetSiblings()})
	}
	if z.status != nil {
		z.sendStatus()
	}
	z.report()
}

func (z *Zone) chunk(c *kdsv1.Chunk) {
	if z.pending != nil {
		z.bad("a chunk before the last delta is answered")
		return
	}
	if z.partial == nil {
		z.partial, z.next, z.size = &Apply{Nonce: c.GetNonce(), Snapshot: c.GetSnapshot()}, 0, 0
	}
	d, n := z.partial, proto.Size(c)
	switch {
	case c.GetNonce() == 0 || c.GetNonce() != d.Nonce:
		z.bad(fmt.Sprintf("chunk of delta %d within delta %d", c.GetNonce(), d.Nonce))
		return
	case c.GetIndex() != z.next:
		z.bad(fmt.Sprintf("chunk %d of delta %d, expected was %d", c.GetIndex(), d.Nonce, z.next))
		return
	case n > z.cfg.MaxChunk && len(c.GetUpserts())+len(c.GetDeletes()) > 1:
		z.bad(fmt.Sprintf("chunk of %d bytes, at most %d are allowed", n, z.cfg.MaxChunk))
		return
	case z.size+n > z.cfg.MaxDelta:
		z.bad(fmt.Sprintf("delta of more than %d bytes", z.cfg.MaxDelta))
		return
	}
	for _, r := range c.GetUpserts() {
		if _, _, err := check(r); err != nil {
			z.bad(err.Error())
			return
		}
	}
	for _, k := range c.GetDeletes() {
		key, err := KeyFrom(k)
		if err != nil {
			z.bad(err.Error())
			return
		}
		d.Deletes = append(d.Deletes, key)
	}
	d.Upserts = append(d.Upserts, c.GetUpserts()...)
	z.next, z.size = z.next+1, z.size+n
	if !c.GetLast() {
		return
	}
	p, err := PositionFrom(c.GetPosition())
	if err == nil && p.Epoch == "" {
		err = fmt.Errorf("the last chunk has no position")
	}
	if err == nil && p.Epoch == z.epoch && p.Revision < z.revision {
		err = fmt.Errorf("revision %d after %d: a revision never goes backwards", p.Revision, z.revision)
	}
	if err != nil {
		z.bad(err.Error())
		return
	}
	d.Position = p
	z.partial, z.pending, z.out.Apply = nil, d, d
}

// Applied answers an Apply: with err nil it is on disk, and rejected lists records that are kept but can't be used here; with
// an error nothing of it is. Another nonce than the pending one's is ignored.
func (z *Zone) Applied(nonce uint64, rejected []*kdsv1.Rejection, err error, now time.Time) {
	d := z.pending
	if d == nil || d.Nonce != nonce {
		return
	}
	z.pending = nil
	if err == nil {
		z.take(d)
	}
	if z.state != Online {
		if z.state == Settling {
			z.hello()
		}
		return
	}
	if err != nil {
		z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Nack{Nack: &kdsv1.Nack{Nonce: nonce, Reason: err.Error()}}})
		return
	}
	z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Ack{Ack: &kdsv1.Ack{Nonce: nonce, Revision: z.revision, Rejected: rejected}}})
	z.compare(d.Position, now)
}

func (z *Zone) take(d *Apply) {
	if d.Snapshot {
		z.held = NewSet()
	}
	for _, key := range d.Deletes {
		z.held.Delete(key)
	}
	for _, r := range d.Upserts {
		key, _ := KeyFrom(r.GetKey())
		z.held.put(entry{key, resource.Hash(r.GetHash()), r})
	}
	if d.Position.Epoch != z.epoch {
		z.told = 0 // revisions of another epoch are others
	}
	z.epoch, z.revision = d.Position.Epoch, d.Position.Revision
}

func (z *Zone) heartbeat(h *kdsv1.GlobalHeartbeat, now time.Time) {
	if err := z.frames.check(h.GetFrames()); err != nil {
		z.event(ZoneEvent{Lost: true})
		z.fail(fmt.Errorf("global: %w", err))
		return
	}
	if h.GetSiblings() != nil {
		z.event(ZoneEvent{Siblings: h.GetSiblings()})
	}
	if h.GetPosition() == nil || z.pending != nil || z.partial != nil {
		return
	}
	p, err := PositionFrom(h.GetPosition())
	if err != nil {
		z.bad("heartbeat: " + err.Error())
		return
	}
	if p.Epoch == z.epoch && p.Revision == z.revision {
		z.compare(p, now)
	}
}

// compare tells global at once when the zone is not as global means it to be.
func (z *Zone) compare(want Position, now time.Time) {
	if z.held.Digest() != want.Digest {
		z.differs = true
		z.beat(now)
	}
}

// inventory answers with what the zone holds of the kinds in which it differs from what it should hold.
func (z *Zone) inventory(q *kdsv1.InventoryRequest) {
	var kinds []string
	for kind, d := range q.GetKinds() {
		digest, err := digestFrom(d)
		if err != nil {
			z.bad("inventory request: " + err.Error())
			return
		}
		if z.held.kinds[kind] != digest {
			kinds = append(kinds, kind)
		}
	}
	for kind := range z.held.kinds {
		if q.GetKinds()[kind] == nil {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	if z.differs {
		z.differs = false
		z.event(ZoneEvent{Mismatch: kinds})
	}
	part := &kdsv1.Inventory{Nonce: q.GetNonce(), Kinds: kinds}
	for _, kind := range kinds {
		z.held.each(kind, func(e entry) bool {
			if len(part.Entries) == inventoryPart {
				part.More = true
				z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Inventory{Inventory: part}})
				part = &kdsv1.Inventory{Nonce: q.GetNonce(), Kinds: kinds}
			}
			part.Entries = append(part.Entries, &kdsv1.Inventory_Entry{Key: KeyProto(e.key), Hash: e.hash[:]})
			return true
		})
	}
	z.send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Inventory{Inventory: part}})
}

func (z *Zone) send(f *kdsv1.ZoneFrame) {
	z.out.Frames = append(z.out.Frames, f)
	z.frames.sent++
}

func (z *Zone) event(e ZoneEvent) { z.out.Events = append(z.out.Events, e) }

func (z *Zone) bad(reason string) { z.fail(fmt.Errorf("global: %s: %w", reason, ErrBadFrame)) }

func (z *Zone) fail(err error) {
	z.Disconnect()
	z.out.Closed = err
}
