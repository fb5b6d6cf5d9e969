package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Why a query has no answer; a context's error says that it took too long.
var (
	// ErrNotConnected: no replica of the zone is connected to this server, or it went away.
	ErrNotConnected = errors.New("zone is not connected")
	// ErrBusy: too many queries wait for the zone already.
	ErrBusy = errors.New("too many queries are waiting")
	// ErrTooLarge: the answer is larger than was asked for.
	ErrTooLarge = errors.New("answer is too large")
	// ErrAnswer: the zone answered with an error, whose text follows.
	ErrAnswer = errors.New("zone answered")
)

// Bounds of queries.
const (
	// DefaultAnswer and MaxAnswer bound an answer in bytes.
	DefaultAnswer = 4 << 20
	MaxAnswer     = 16 << 20
	// DefaultAsk and MaxAsk bound the wait for it.
	DefaultAsk = 10 * time.Second
	MaxAsk     = time.Minute
	// maxQuestions bounds what waits for one stream.
	maxQuestions = 8
	// spread is the longest time after which zones are asked to come back, so that they don't all come at once.
	spread = 2 * time.Second
)

type question struct {
	max  int
	body []byte
	done chan reply // holds one
}

type reply struct {
	body []byte
	err  error
}

func shuttingDown() kds.Verdict {
	return kds.Verdict{
		Code: kdsv1.Refusal_CODE_UNAVAILABLE, Reason: "this replica of global is shutting down: connect again",
		RetryAfter: rand.N(spread),
	}
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// enter notes a stream; false when the server is shutting down.
func (s *Server) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.zone] = append(s.conns[c.zone], c)
	return !s.closing
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.zone] = slices.DeleteFunc(s.conns[c.zone], func(o *conn) bool { return o == c })
	if len(s.conns[c.zone]) == 0 {
		delete(s.conns, c.zone)
	}
	close(s.left)
	s.left = make(chan struct{})
}

// welcomed notes that a stream may be asked. An older stream of the same replica is what a lost connection left.
func (s *Server) welcomed(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.live = true
	delete(s.warned, c.zone)
	for _, o := range s.conns[c.zone] {
		if o != c && o.live && o.replica == c.replica && c.replica != "" {
			o.finish(nil)
		}
	}
}

// warn logs a refusal, unless it is the zone's last one again.
func (s *Server) warn(zone string, v kds.Verdict) {
	s.mu.Lock()
	reason := v.Code.String() + ": " + v.Reason
	known := s.warned[zone] == reason || v.Code == kdsv1.Refusal_CODE_UNAVAILABLE
	s.warned[zone] = reason
	s.mu.Unlock()
	if !known {
		s.cfg.Log.Warn("zone refused", zap.String("zone", zone), zap.Stringer("code", v.Code), zap.String("reason", v.Reason))
	}
}

// closed counts and logs why a stream ended.
func (s *Server) closed(c *conn, why error) {
	if errors.Is(why, kds.ErrLost) {
		s.lost.Add(1)
	}
	s.mu.Lock()
	known := c.quiet || s.warned[c.zone] == why.Error()
	s.warned[c.zone] = why.Error()
	s.mu.Unlock()
	if !known {
		s.cfg.Log.Warn("zone's stream closed", zap.String("zone", c.zone), zap.String("replica", c.replica), zap.Error(why))
	}
}

// of copies the streams of a zone, "" for all.
func (s *Server) of(zone string) (out []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if zone != "" {
		return slices.Clone(s.conns[zone])
	}
	for _, conns := range s.conns {
		out = append(out, conns...)
	}
	return out
}

// Refuse ends all streams of a zone with a reason, as when it is disabled.
func (s *Server) Refuse(zone string, v kds.Verdict) {
	for _, c := range s.of(zone) {
		c.run(func(g *kds.Global) { g.Refuse(v) })
	}
}

// TellSiblings tells the replicas of a zone which of them are connected. Call it when that may have changed, with no lock held that
// Zones.Siblings takes.
func (s *Server) TellSiblings(zone string) {
	for _, c := range s.of(zone) {
		c.run(func(g *kds.Global) { g.SetSiblings(s.cfg.Zones.Siblings(zone, c.replica), time.Now()) })
	}
}

// Recheck ends the streams whose tokens were withdrawn. Call it when one may have been.
func (s *Server) Recheck() {
	for _, c := range s.of("") {
		c.recheck()
	}
}

func (c *conn) recheck() {
	if v := c.server.cfg.Admission.Withdrawn(c.token); v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		c.run(func(g *kds.Global) { g.Refuse(v) })
	}
}

// Drop ends the streams of one replica of a zone without a word, as when it is known to have a newer one elsewhere.
func (s *Server) Drop(zone, replica string) {
	for _, c := range s.live(zone) {
		if c.replica == replica {
			c.finish(nil)
		}
	}
}

// Shutdown refuses all zones, connected and new ones, and returns when their streams have ended. When ctx ends before, it
// says how many are left; stop the gRPC server then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	for _, c := range s.of("") {
		c.run(func(g *kds.Global) { c.quiet = true; g.Refuse(shuttingDown()) })
	}
	for {
		s.mu.Lock()
		n, left := len(s.conns), s.left
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-left:
		case <-ctx.Done():
			return fmt.Errorf("streams of %d zones have not ended: %w", n, ctx.Err())
		}
	}
}

// Replicas lists, ordered, the replicas of a zone that are connected here.
func (s *Server) Replicas(zone string) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns[zone] {
		if c.live {
			out = append(out, c.replica)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Ask sends a query to a zone and gives the answer, which has at most q.MaxBytes bytes (DefaultAnswer for 0) and must come before
// ctx ends and within q.TimeoutMillis (DefaultAsk for 0). The replicas of the zone are asked in order until one answers without
// an error. Errors wrap ErrNotConnected, ErrBusy, ErrTooLarge, ErrAnswer or that of a context. q is not changed.
func (s *Server) Ask(ctx context.Context, zone string, q *kdsv1.Query) ([]byte, error) {
	wait := min(cmp.Or(time.Duration(q.GetTimeoutMillis())*time.Millisecond, DefaultAsk), MaxAsk)
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := fmt.Errorf("zone %s: %w: no replica of it has a stream to this replica of global", zone, ErrNotConnected)
	for _, c := range s.live(zone) {
		var body []byte
		if body, err = c.ask(ctx, q); err == nil {
			return body, nil
		}
		err = fmt.Errorf("zone %s: %w", zone, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// AskAll asks all replicas of a zone that have a stream, at the same time. It gives the answers, ordered by the names of the replicas, and
// the names of those that did not answer. It is an error when none did. See Ask.
func (s *Server) AskAll(ctx context.Context, zone string, q *kdsv1.Query) (answers [][]byte, silent []string, err error) {
	wait := min(cmp.Or(time.Duration(q.GetTimeoutMillis())*time.Millisecond, DefaultAsk), MaxAsk)
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conns := s.live(zone)
	all, errs := make([][]byte, len(conns)), make([]error, len(conns))
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { all[i], errs[i] = c.ask(ctx, q) })
	}
	wg.Wait()
	err = fmt.Errorf("zone %s: %w: no replica of it has a stream to this replica of global", zone, ErrNotConnected)
	for i, answer := range all {
		if errs[i] == nil {
			answers = append(answers, answer)
		} else {
			silent = append(silent, conns[i].replica)
			err = fmt.Errorf("zone %s: %w", zone, errs[i])
		}
	}
	if len(answers) > 0 {
		err = nil
	}
	return answers, silent, err
}

// live gives one stream for each replica, ordered by name.
func (s *Server) live(zone string) (out []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range slices.Backward(s.conns[zone]) {
		if c.live {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b *conn) int { return cmp.Compare(a.replica, b.replica) })
	return out
}

func (c *conn) ask(ctx context.Context, q *kdsv1.Query) ([]byte, error) {
	q = proto.CloneOf(q)
	q.MaxBytes = min(cmp.Or(q.GetMaxBytes(), DefaultAnswer), MaxAnswer)
	if until, ok := ctx.Deadline(); ok {
		q.TimeoutMillis = uint32(max(time.Until(until).Milliseconds(), 1))
	}
	qn := &question{max: int(q.GetMaxBytes()), done: make(chan reply, 1)}
	var id uint64 // set with the lock held, before anything is answered
	if !c.run(func(g *kds.Global) {
		if len(c.asked) >= maxQuestions {
			qn.done <- reply{err: fmt.Errorf("%w: %d", ErrBusy, len(c.asked))}
			return
		}
		if id = g.Ask(q); id == 0 {
			qn.done <- reply{err: ErrNotConnected}
			return
		}
		c.asked[id] = qn
	}) {
		return nil, ErrNotConnected
	}
	select {
	case r := <-qn.done:
		return r.body, r.err
	case <-c.ctx.Done():
		return nil, fmt.Errorf("%w: its stream ended before the answer", ErrNotConnected)
	case <-ctx.Done():
		c.run(func(g *kds.Global) {
			delete(c.asked, id)
			g.Forget(id)
		})
		return nil, fmt.Errorf("no answer in time: %w", ctx.Err())
	}
}

// answer takes a part of an answer, with the lock held.
func (c *conn) answer(a *kdsv1.Answer) {
	id := a.GetId()
	qn := c.asked[id]
	if qn == nil {
		return
	}
	finish := func(r reply) {
		delete(c.asked, id)
		c.global.Forget(id)
		qn.done <- r
	}
	switch {
	case a.GetError() != "":
		finish(reply{err: fmt.Errorf("%w: %s", ErrAnswer, a.GetError())})
	case len(qn.body)+len(a.GetBody()) > qn.max:
		finish(reply{err: fmt.Errorf("%w: more than %d bytes; ask for less", ErrTooLarge, qn.max)})
	default:
		qn.body = append(qn.body, a.GetBody()...)
		if a.GetLast() {
			finish(reply{body: qn.body})
		}
	}
}
