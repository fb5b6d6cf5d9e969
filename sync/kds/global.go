package kds

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// GlobalState is where the stream of one zone stands, as global sees it.
type GlobalState int

// States of a Global, in the order in which a stream passes them.
const (
	// AwaitHello: nothing has come yet. Only a Hello may.
	AwaitHello GlobalState = iota
	// AwaitVerdict: the Hello is with the driver, which answers by Admit.
	AwaitVerdict
	// Steady: nothing is on its way; the zone holds held, as far as is known.
	Steady
	// Comparing: an InventoryRequest is on its way. asked is its nonce.
	Comparing
	// Delivering: one delta is on its way. flight is that delta.
	Delivering
	// Closed: the stream has ended. Frames are ignored.
	Closed
)

// String names the state.
func (s GlobalState) String() string {
	return [...]string{"await-hello", "await-verdict", "steady", "comparing", "delivering", "closed"}[s]
}

// GlobalConfig is of one stream. Zero durations and sizes mean the defaults.
type GlobalConfig struct {
	// Zone is the name that the peer has proved by its token.
	Zone string
	// Replica, Version, Domain and Features go into the Welcome.
	Replica, Version, Domain string
	Features                 []string
	Interval                 time.Duration
	MaxChunk                 int
	// MinBackoff and MaxBackoff bound the wait after a Nack: 1 s and 1 min.
	MinBackoff, MaxBackoff time.Duration
}

// Verdict is the driver's answer to a Hello: CODE_UNSPECIFIED admits, any other code refuses.
type Verdict struct {
	Code       kdsv1.Refusal_Code
	Reason     string
	RetryAfter time.Duration
	// Offered is what is stored of the offers of a zone that is admitted; nil when that is not known.
	Offered *resource.Digest
}

// GlobalReady is what the driver does next, in the order of the fields.
type GlobalReady struct {
	Frames []Frame
	Events []GlobalEvent
	// Closed is why the stream ends after Frames; nil while it lives.
	Closed error
}

// GlobalEvent is something that happened; exactly one field is set.
type GlobalEvent struct {
	// Hello wants Admit.
	Hello *kdsv1.Hello
	// Confirmed is the position that the zone has on its disk.
	Confirmed *Position
	Nacked    *Nacked
	// Rejected has the records that the zone can't use and that were not known to be so.
	Rejected []*kdsv1.Rejection
	// Repair lists kinds in which the zone differed from what it had confirmed.
	Repair []string
	// Report wants Reported.
	Report *kdsv1.Report
	Status *kdsv1.Status
	// CertificateRequest wants Certificate.
	CertificateRequest *kdsv1.CertificateRequest
	Answer             *kdsv1.Answer
}

// Nacked says that a delta was not applied, and when it is tried again unless a new revision comes first.
type Nacked struct {
	Revision uint64
	Reason   string
	Retry    time.Time
}

// Global is global's end of one stream of one zone's replica.
type Global struct {
	cfg   GlobalConfig
	state GlobalState
	out   GlobalReady
	view  View // newest; nil until the first SetView

	// held is what the zone holds: from its Hello, then moved only by an Ack with flight's nonce, or corrected by what
	// the zone says of itself. Meaningful from Steady on.
	held Position
	// flight is set exactly in Delivering.
	flight *delta
	// asked is nonzero, and compared the view that the zone is held against, exactly in Comparing.
	asked    uint64
	compared View
	inv      inventories
	nonce    uint64 // last one used
	// protocol is what both ends speak, from AwaitVerdict on.
	protocol uint32

	// doubt says that the zone is not what it had confirmed, until it is compared with a view.
	doubt bool
	// repairing is set from then until the zone has confirmed what mends it.
	repairing bool
	repairs   uint64

	// nacked is the target of the last delta that failed; retry says when it may be tried again. Set while failures > 0.
	nacked   Position
	failures int
	retry    time.Time

	rejected map[resource.Key]*kdsv1.Rejection

	heard, sent time.Time // last frame received, last heartbeat sent
	frames      traffic
	reported    uint64 // sequence of the newest report
	offered     bool   // the Welcome told what is stored of the zone's offers, so that a report needs no snapshot before it
	queries     map[uint64]bool
	lastQuery   uint64
	// asksSiblings says that the zone wants to be told of siblings, which are nil before the first SetSiblings.
	asksSiblings bool
	siblings     *kdsv1.Siblings
}

// NewGlobal makes the machine of a stream that has just been opened.
func NewGlobal(cfg GlobalConfig, now time.Time) *Global {
	cfg.Interval = cmp.Or(cfg.Interval, DefaultInterval)
	cfg.MaxChunk = cmp.Or(cfg.MaxChunk, DefaultMaxChunk)
	cfg.MinBackoff = cmp.Or(cfg.MinBackoff, time.Second)
	cfg.MaxBackoff = cmp.Or(cfg.MaxBackoff, time.Minute)
	return &Global{
		cfg: cfg, heard: now, sent: now,
		rejected: map[resource.Key]*kdsv1.Rejection{}, queries: map[uint64]bool{},
	}
}

// Ready takes what is to be done; the next call gives only what came after.
func (g *Global) Ready() GlobalReady {
	out := g.out
	g.out = GlobalReady{Closed: out.Closed}
	return out
}

// State is where the stream stands.
func (g *Global) State() GlobalState { return g.state }

// Confirmed is what the zone holds.
func (g *Global) Confirmed() Position { return g.held }

// Repairs counts the times that the zone differed from what it had confirmed.
func (g *Global) Repairs() uint64 { return g.repairs }

// Rejected lists, ordered by key, the records that the zone keeps without using them.
func (g *Global) Rejected() []*kdsv1.Rejection {
	out := make([]*kdsv1.Rejection, 0, len(g.rejected))
	for _, r := range g.rejected {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *kdsv1.Rejection) int {
		ka, _ := KeyFrom(a.GetKey())
		kb, _ := KeyFrom(b.GetKey())
		return ka.Compare(kb)
	})
	return out
}

// SetView gives the newest state. One that is older within its epoch than the view before is ignored. While a delta is on its way
// only the newest is kept.
func (g *Global) SetView(v View, now time.Time) {
	if g.view != nil {
		was, is := g.view.Position(), v.Position()
		if was.Epoch == is.Epoch && is.Revision < was.Revision {
			return
		}
	}
	g.view = v
	g.advance(now)
}

// Admit answers the Hello event.
func (g *Global) Admit(v Verdict, now time.Time) {
	if g.state != AwaitVerdict {
		return
	}
	if v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		g.refuse(v)
		return
	}
	w := &kdsv1.Welcome{
		Protocol: g.protocol, Version: g.cfg.Version, Features: g.cfg.Features, Replica: g.cfg.Replica, Domain: g.cfg.Domain,
		HeartbeatMillis: uint32(g.cfg.Interval.Milliseconds()), Siblings: g.siblings,
	}
	if g.view != nil {
		w.Epoch = g.view.Position().Epoch
	}
	if v.Offered != nil {
		w.Offered, g.offered = digestProto(*v.Offered), true
	}
	g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Welcome{Welcome: w}})
	g.state, g.sent = Steady, now
	g.advance(now)
}

// Refuse ends the stream with a reason at any time, as when its zone is disabled or the replica shuts down.
func (g *Global) Refuse(v Verdict) {
	if g.state != Closed {
		g.refuse(v)
	}
}

// Tick lets time pass: heartbeats, retries and the end of a silent stream. See Next.
func (g *Global) Tick(now time.Time) {
	if g.state == Closed {
		return
	}
	if !now.Before(g.heard.Add(SilentIntervals * g.cfg.Interval)) {
		g.close(fmt.Errorf("zone %s: nothing for %s: %w", g.cfg.Zone, SilentIntervals*g.cfg.Interval, ErrSilent))
		return
	}
	if g.state < Steady {
		return
	}
	g.advance(now)
	if !now.Before(g.sent.Add(g.cfg.Interval)) {
		g.beat(now)
	}
}

func (g *Global) beat(now time.Time) {
	hb := &kdsv1.GlobalHeartbeat{Sent: timestamppb.New(now), Frames: g.frames.sent, Siblings: g.siblings}
	if g.state == Steady && !g.doubt {
		hb.Position = g.held.Proto()
	}
	g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Heartbeat{Heartbeat: hb}})
	g.sent = now
}

// Next is when Tick has something to do; the zero time when it never will.
func (g *Global) Next() time.Time {
	if g.state == Closed {
		return time.Time{}
	}
	next := g.heard.Add(SilentIntervals * g.cfg.Interval)
	if g.state < Steady {
		return next
	}
	if t := g.sent.Add(g.cfg.Interval); t.Before(next) {
		next = t
	}
	if g.failures > 0 && g.state == Steady && g.view != nil && g.nacked == g.view.Position() && g.retry.Before(next) {
		next = g.retry
	}
	return next
}

// Receive takes a frame. A malformed one ends the stream with BAD_FRAME; an unknown one is ignored.
func (g *Global) Receive(f *kdsv1.ZoneFrame, now time.Time) {
	if g.state == Closed {
		return
	}
	g.heard = now
	g.frames.received++
	if g.state == AwaitHello {
		h, ok := f.GetFrame().(*kdsv1.ZoneFrame_Hello)
		if !ok {
			g.bad("the first frame must be a Hello")
			return
		}
		g.hello(h.Hello)
		return
	}
	if g.state == AwaitVerdict {
		g.bad("a frame before the Welcome")
		return
	}
	switch f := f.GetFrame().(type) {
	case *kdsv1.ZoneFrame_Hello:
		g.bad("a second Hello")
	case *kdsv1.ZoneFrame_Ack:
		g.ack(f.Ack, now)
	case *kdsv1.ZoneFrame_Nack:
		g.nack(f.Nack, now)
	case *kdsv1.ZoneFrame_Heartbeat:
		g.heartbeat(f.Heartbeat, now)
	case *kdsv1.ZoneFrame_Inventory:
		g.inventory(f.Inventory, now)
	case *kdsv1.ZoneFrame_Report:
		g.report(f.Report)
	case *kdsv1.ZoneFrame_Status:
		g.event(GlobalEvent{Status: f.Status})
	case *kdsv1.ZoneFrame_CertificateRequest:
		g.event(GlobalEvent{CertificateRequest: f.CertificateRequest})
	case *kdsv1.ZoneFrame_Answer:
		id := f.Answer.GetId()
		if !g.queries[id] {
			return
		}
		if f.Answer.GetLast() || f.Answer.GetError() != "" {
			delete(g.queries, id)
		}
		g.event(GlobalEvent{Answer: f.Answer})
	}
}

// Reported answers a Report event once it is committed, with the records that were refused.
func (g *Global) Reported(sequence uint64, rejected []*kdsv1.Rejection) {
	if g.state >= Steady && g.state != Closed {
		g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_ReportAck{
			ReportAck: &kdsv1.ReportAck{Sequence: sequence, Rejected: rejected},
		}})
	}
}

// Certificate answers a CertificateRequest event.
func (g *Global) Certificate(c *kdsv1.Certificate) {
	if g.state >= Steady && g.state != Closed {
		g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Certificate{Certificate: c}})
	}
}

// Ask sends a query, whose id it sets and returns; Answer events follow with that id. It returns 0 when no stream is up. Timeouts
// are the driver's; Forget ends the wait.
func (g *Global) Ask(q *kdsv1.Query) uint64 {
	if g.state < Steady || g.state == Closed {
		return 0
	}
	g.lastQuery++
	q.Id = g.lastQuery
	g.queries[q.Id] = true
	g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Query{Query: q}})
	return q.Id
}

// Forget drops later answers to a query.
func (g *Global) Forget(id uint64) { delete(g.queries, id) }

func (g *Global) hello(h *kdsv1.Hello) {
	if h.GetZone() != g.cfg.Zone {
		g.refuse(Verdict{Code: kdsv1.Refusal_CODE_WRONG_ZONE, Reason: fmt.Sprintf(
			"the token is for zone %q, the Hello says %q: use that zone's token or mend the zone's name", g.cfg.Zone, h.GetZone())})
		return
	}
	protocol, ok := common(protocols, h.GetProtocols())
	if !ok {
		g.refuse(Verdict{Code: kdsv1.Refusal_CODE_PROTOCOL, Reason: fmt.Sprintf(
			"global speaks the protocols %v, the zone %v: upgrade the older one", protocols, h.GetProtocols()[:min(len(h.GetProtocols()), maxProtocols)])})
		return
	}
	held, err := PositionFrom(h.GetPosition())
	if err != nil {
		g.bad("position: " + err.Error())
		return
	}
	g.held, g.protocol, g.asksSiblings = held, protocol, asksSiblings(h)
	g.state = AwaitVerdict
	g.event(GlobalEvent{Hello: h})
}

func (g *Global) report(r *kdsv1.Report) {
	if r.GetSequence() <= g.reported || (g.reported == 0 && !g.offered && !r.GetSnapshot()) {
		g.bad("reports must begin with a snapshot and grow in sequence")
		return
	}
	for _, u := range r.GetUpserts() {
		if _, _, err := check(u); err != nil {
			g.bad(err.Error())
			return
		}
	}
	for _, k := range r.GetDeletes() {
		if _, err := KeyFrom(k); err != nil {
			g.bad(err.Error())
			return
		}
	}
	g.reported = r.GetSequence()
	g.event(GlobalEvent{Report: r})
}

func (g *Global) send(f *kdsv1.GlobalFrame) {
	g.out.Frames = append(g.out.Frames, Frame{GlobalFrame: f})
	g.frames.sent++
}

func (g *Global) event(e GlobalEvent) { g.out.Events = append(g.out.Events, e) }

func (g *Global) bad(reason string) {
	g.refuse(Verdict{Code: kdsv1.Refusal_CODE_BAD_FRAME, Reason: reason})
}

func (g *Global) refuse(v Verdict) {
	g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Refusal{Refusal: &kdsv1.Refusal{
		Code: v.Code, Reason: v.Reason, RetryAfterMillis: uint32(v.RetryAfter.Milliseconds()),
	}}})
	err := ErrRefused
	if v.Code == kdsv1.Refusal_CODE_BAD_FRAME {
		err = ErrBadFrame
	}
	g.close(fmt.Errorf("zone %s: %s: %w", g.cfg.Zone, v.Reason, err))
}

func (g *Global) close(err error) {
	g.state, g.flight, g.asked, g.compared = Closed, nil, 0, nil
	g.out.Closed = err
}
