package stream

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// conn is one stream. Whoever has something for its machine takes the lock and gives it: the goroutine that receives, the one that
// sends (newer views), timers, those who ask. So a frame costs no more than the goroutine that read it, and a change no more than
// the one that sends it, which matters where a thousand streams do the same at once.
type conn struct {
	// Set once.
	server *Server
	zone   string
	token  string // that let it in
	ctx    context.Context
	over   chan struct{} // closed by finish
	wake   chan struct{} // holds one: queue is not empty
	room   *sync.Cond    // on mu: queue or a line got shorter, or the stream ended

	finished sync.Once
	failed   error // set by finish

	// live is set once welcomed; guarded by the server's mu.
	live bool

	mu sync.Mutex
	// Guarded by mu.
	global  *kds.Global
	queue   []kds.Frame // wait to be sent
	calls   line        // for certificates, and the Hello
	reports line
	closing bool // the machine has closed, and only its last frame is still to be sent
	ended   bool // nothing is called any more but Close
	session Session
	replica string // others read it only once live
	quiet   bool
	asked   map[uint64]*question
	tick    *time.Timer
	next    time.Time // for which tick is set
}

// line has calls that run in order.
type line struct {
	waiting []func() func()
	busy    bool // a goroutine works on it
}

func newConn(ctx context.Context, s *Server, zone, token string) *conn {
	cfg := s.cfg.Machine
	cfg.Zone = zone
	c := &conn{
		server: s, zone: zone, token: token, ctx: ctx, over: make(chan struct{}), wake: make(chan struct{}, 1), global: kds.NewGlobal(cfg, time.Now()),
		asked: map[uint64]*question{},
	}
	c.room = sync.NewCond(&c.mu)
	c.tick = time.AfterFunc(time.Hour, c.ticked)
	return c
}

// finish lets the stream end with an error, or none; the first decides.
func (c *conn) finish(err error) {
	c.finished.Do(func() {
		c.failed = err
		close(c.over)
	})
}

// end says how the stream ended, and sees to it that its session is closed.
func (c *conn) end() error {
	c.finish(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.tick.Stop()
	c.room.Broadcast()
	c.closeLocked()
	return c.failed
}

// closeLocked closes the session of a stream that has ended, once nothing is called any more.
func (c *conn) closeLocked() {
	if c.session != nil && c.ended && !c.calls.busy && !c.reports.busy {
		c.session.Close()
		c.session = nil
	}
}

// run gives fn the machine; false when the stream has ended.
func (c *conn) run(fn func(*kds.Global)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	fn(c.global)
	c.workLocked()
	return true
}

// workLocked does what the machine has ready.
func (c *conn) workLocked() {
	r := c.global.Ready()
	c.queue = append(c.queue, r.Frames...)
	for _, e := range r.Events {
		c.eventLocked(e)
	}
	if r.Closed != nil && !c.closing {
		c.closing = true
		c.server.closed(c, r.Closed)
		// A Refusal that overtakes a delta on its way harms nothing, and spares waiting for a slow zone.
		c.calls.waiting, c.reports.waiting = nil, nil
		if n := len(c.queue); n == 0 || c.queue[n-1].GetRefusal() == nil {
			c.finish(nil)
			return
		}
		c.queue = c.queue[len(c.queue)-1:]
		time.AfterFunc(lastWords, func() { c.finish(nil) })
	}
	if next := c.global.Next(); !next.IsZero() && (c.next.IsZero() || next.Before(c.next)) {
		c.next = next
		c.tick.Reset(time.Until(next))
	}
	if len(c.queue) > 0 {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// ticked lets time pass. The timer is only ever set earlier, as each frame moves the time at which the peer would be silent.
func (c *conn) ticked() {
	c.run(func(g *kds.Global) {
		c.next = time.Time{}
		g.Tick(time.Now())
	})
}

// receive takes frames until the stream ends. A peer that goes away is no error.
func (c *conn) receive(recv func() (*kdsv1.ZoneFrame, error)) {
	stop := context.AfterFunc(c.ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.room.Broadcast()
	})
	defer stop()
	for {
		f, err := recv()
		c.mu.Lock()
		for err == nil && !c.ended && c.ctx.Err() == nil && (len(c.calls.waiting)+len(c.reports.waiting) >= maxCalls || len(c.queue) >= maxQueue) {
			c.room.Wait()
		}
		if err != nil || c.ended || c.ctx.Err() != nil {
			c.finish(nil)
			c.mu.Unlock()
			return
		}
		now := time.Now()
		if c.session != nil {
			c.session.Seen(now)
		}
		c.global.Receive(f, now)
		c.workLocked()
		c.mu.Unlock()
	}
}

// send sends what is queued, and gives the machine newer views, until the stream ends.
func (c *conn) send(put func(any) error, stale <-chan struct{}) {
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.mu.Unlock()
			select {
			case <-c.wake:
			case <-stale:
				// With the lock held, so that no view of a former epoch follows one that a verdict rests on.
				if !c.run(func(g *kds.Global) {
					var view kds.View
					if view, stale = c.server.cfg.Views.View(c.zone); view != nil {
						g.SetView(view, time.Now())
					}
				}) {
					return
				}
			case <-c.ctx.Done():
				return
			}
			continue
		}
		f := c.queue[0]
		c.queue = c.queue[1:]
		c.room.Signal()
		c.mu.Unlock()
		err := put(message(f))
		if err != nil || f.GetRefusal() != nil {
			c.finish(nil)
			return
		}
	}
}

// callLocked has fn run in order with others of a line, and what it returns with the lock held.
func (c *conn) callLocked(l *line, fn func() func()) {
	l.waiting = append(l.waiting, fn)
	if !l.busy {
		l.busy = true
		c.server.wg.Go(func() { c.callAll(l) })
	}
}

func (c *conn) callAll(l *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(l.waiting) > 0 && !c.ended {
		fn := l.waiting[0]
		l.waiting = l.waiting[1:]
		c.mu.Unlock()
		done := fn()
		c.mu.Lock()
		done()
		if !c.ended {
			c.workLocked()
		}
		c.room.Signal()
	}
	l.busy = false
	c.closeLocked()
}

// eventLocked does what an event asks for.
func (c *conn) eventLocked(e kds.GlobalEvent) {
	log := c.server.cfg.Log
	switch {
	case e.Hello != nil:
		c.replica = e.Hello.GetReplica()
		c.callLocked(&c.calls, func() func() {
			session, v := c.server.cfg.Zones.Open(c.ctx, c.zone, e.Hello)
			if v.Code == kdsv1.Refusal_CODE_UNSPECIFIED && session == nil {
				v = kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, Reason: "the zone was neither admitted nor refused"}
			}
			return func() {
				if c.session = session; c.ended {
					return
				}
				// The verdict may rest on a newer view than the machine has: one of the former epoch must not be sent after it.
				if view, _ := c.server.cfg.Views.View(c.zone); view != nil {
					c.global.SetView(view, time.Now())
				}
				c.global.SetSiblings(c.server.cfg.Zones.Siblings(c.zone, c.replica), time.Now())
				if c.global.Admit(v, time.Now()); v.Code == kdsv1.Refusal_CODE_UNSPECIFIED {
					c.server.welcomed(c)
				}
			}
		})
	case e.Report != nil:
		session := c.session
		c.callLocked(&c.reports, func() func() {
			rejected, err := session.Report(c.ctx, e.Report)
			return func() {
				if err == nil {
					c.global.Reported(e.Report.GetSequence(), rejected)
					return
				}
				log.Warn("report not committed", zap.String("zone", c.zone), zap.String("replica", c.replica), zap.Error(err))
				c.finish(status.Error(codes.Unavailable, "the report was not committed"))
			}
		})
	case e.CertificateRequest != nil:
		session := c.session
		c.callLocked(&c.calls, func() func() {
			cert := session.Certificate(c.ctx, e.CertificateRequest)
			return func() {
				if cert != nil {
					cert.Id = e.CertificateRequest.GetId()
					c.global.Certificate(cert)
				}
			}
		})
	case e.Status != nil:
		c.session.Status(e.Status)
	case e.Confirmed != nil:
		c.session.Confirmed(*e.Confirmed, c.global.Rejected())
	case len(e.Rejected) > 0:
		for _, r := range e.Rejected {
			k := r.GetKey()
			log.Warn("zone can't use a resource", zap.String("zone", c.zone), zap.String("replica", c.replica),
				zap.String("kind", k.GetKind()), zap.String("mesh", k.GetMesh()), zap.String("name", k.GetName()),
				zap.String("reason", r.GetReason()))
		}
	case len(e.Repair) > 0:
		log.Warn("zone differs from what it confirmed and is repaired", zap.String("zone", c.zone),
			zap.String("replica", c.replica), zap.Strings("kind", e.Repair))
		c.session.Repaired(e.Repair)
	case e.Nacked != nil:
		log.Warn("zone could not apply", zap.String("zone", c.zone), zap.String("replica", c.replica),
			zap.Uint64("revision", e.Nacked.Revision), zap.String("reason", e.Nacked.Reason))
		c.session.Nacked(*e.Nacked)
	case e.Answer != nil:
		c.answer(e.Answer)
	}
}
