// Package stream owns the gRPC pumps around the machines of sync/kds: Server at global, Client in a zone.
//
// It decides nothing about the protocol, keeps no records and stores nothing: admission, views, reports and the disk are its
// callers'.
package stream

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// MaxFrame is the size in bytes of the largest frame: a chunk with a single large record. gRPC servers must be made with
// grpc.MaxRecvMsgSize(MaxFrame).
const MaxFrame = 16 << 20

const (
	// maxQueue bounds the frames that wait to be sent before no more are read; the largest delta or inventory fits.
	maxQueue = 2048
	// maxCalls bounds the calls of one stream to its consumers.
	maxCalls = 16
	// lastWords is how long a closed stream may take to send what is queued, with the Refusal last.
	lastWords = 5 * time.Second
)

// Views gives what a zone should hold. A nil View means that none is ready. stale closes when there is a newer one.
type Views interface {
	View(zone string) (v kds.View, stale <-chan struct{})
}

// Admission finds out who connects. It may block until ctx ends.
type Admission interface {
	// Authenticate finds the zone that a bearer token is for; a code refuses it.
	Authenticate(ctx context.Context, token string) (zone string, v kds.Verdict)
}

// Zones decides over the streams of authenticated zones. Calls come from many streams at once.
type Zones interface {
	// Open answers a Hello: with a Session, or with a code that refuses. It may block until ctx ends.
	Open(ctx context.Context, zone string, h *kdsv1.Hello) (Session, kds.Verdict)
}

// Session takes what one admitted stream says. Calls come in order, one at a time, and may block until ctx ends; that delays only
// the same stream.
type Session interface {
	// Report commits what a zone offers; an error ends the stream, and the zone sends a snapshot on the next.
	Report(ctx context.Context, r *kdsv1.Report) ([]*kdsv1.Rejection, error)
	// Certificate signs; the id of the answer is set by the caller.
	Certificate(ctx context.Context, r *kdsv1.CertificateRequest) *kdsv1.Certificate
	Status(ctx context.Context, s *kdsv1.Status)
	// Confirmed tells what the zone has on its disk, and all records of it that the zone keeps without using them, by key.
	Confirmed(ctx context.Context, p kds.Position, rejected []*kdsv1.Rejection)
	// Nacked tells of a delta that the zone could not put on its disk.
	Nacked(ctx context.Context, n kds.Nacked)
	// Repaired lists kinds in which the zone differed from what it had confirmed.
	Repaired(ctx context.Context, kinds []string)
	// Seen tells that a frame came. Unlike the others it is called at any time and must not block.
	Seen(at time.Time)
	// Close is the last call, once the stream has ended.
	Close()
}

// ServerConfig is of one replica of global. Machine's Zone is set per stream.
type ServerConfig struct {
	Machine   kds.GlobalConfig
	Admission Admission
	Views     Views
	Zones     Zones
	Log       *zap.Logger
}

// Server serves zones. It is safe for concurrent use.
type Server struct {
	kdsv1.UnimplementedKDSServer
	cfg ServerConfig
	wg  sync.WaitGroup

	mu      sync.Mutex
	conns   map[string][]*conn // by zone, oldest first
	left    chan struct{}      // closed and replaced when a stream has ended
	closing bool
	// warned has the last reason for which a zone was refused; each is worth one line.
	warned map[string]string
}

// NewServer makes a server; register it with kdsv1.RegisterKDSServer.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Admission == nil || cfg.Views == nil || cfg.Zones == nil {
		return nil, errors.New("stream server: admission, views and zones are all needed")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Server{cfg: cfg, conns: map[string][]*conn{}, left: make(chan struct{}), warned: map[string]string{}}, nil
}

// Wait joins the goroutines of all streams; call it after the gRPC server's Stop.
func (s *Server) Wait() { s.wg.Wait() }

// Stream serves one replica of a zone until either end closes.
func (s *Server) Stream(st grpc.BidiStreamingServer[kdsv1.ZoneFrame, kdsv1.GlobalFrame]) error {
	zone, v := s.cfg.Admission.Authenticate(st.Context(), bearer(st.Context()))
	if v.Code == kdsv1.Refusal_CODE_UNSPECIFIED && s.isClosing() {
		v = shuttingDown()
	}
	if v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		s.warn(zone, v)
		return st.Send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Refusal{Refusal: &kdsv1.Refusal{
			Code: v.Code, Reason: v.Reason, RetryAfterMillis: uint32(v.RetryAfter.Milliseconds()),
		}}})
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel()

	cfg := s.cfg.Machine
	cfg.Zone = zone
	g := kds.NewGlobal(cfg, time.Now())
	c := &conn{zone: zone, do: make(chan func(*kds.Global)), done: ctx.Done(), cancel: cancel, asked: map[uint64]*question{}}
	if !s.enter(c) {
		g.Refuse(shuttingDown())
	}
	defer s.leave(c)
	var (
		queue   []*kdsv1.GlobalFrame
		calls   []func() func() // wait for the caller; what each returns runs on this loop
		in      = make(chan *kdsv1.ZoneFrame)
		out     = make(chan *kdsv1.GlobalFrame)
		work    = make(chan func() func())
		results = make(chan func())
		failed  = make(chan error, 2)
		flushed <-chan time.Time
		tick    = time.NewTimer(time.Hour)
	)
	defer tick.Stop()
	// These end with ctx, or when gRPC lets go of the stream after this method returns; so Wait joins them, not this method.
	s.wg.Go(func() { failed <- receive(ctx, st.Recv, in) })
	sent := make(chan struct{}, 1)
	s.wg.Go(func() {
		failed <- send(ctx, func(f *kdsv1.GlobalFrame) error {
			err := st.Send(f)
			if err == nil && f.GetRefusal() != nil {
				sent <- struct{}{}
			}
			return err
		}, out)
	})
	s.wg.Go(func() {
		call(ctx, work, results)
		if c.opened != nil {
			c.opened.Close()
		}
	})

	view, stale := s.cfg.Views.View(zone)
	if view != nil {
		g.SetView(view, time.Now())
	}
	for {
		r := g.Ready()
		queue = append(queue, r.Frames...)
		for _, e := range r.Events {
			if fn := s.event(ctx, g, c, e); fn != nil {
				calls = append(calls, fn)
			}
		}
		if c.broken != nil {
			s.cfg.Log.Warn("report not committed", zap.String("zone", zone), zap.String("replica", c.replica), zap.Error(c.broken))
			return status.Error(codes.Unavailable, "the report was not committed")
		}
		if r.Closed != nil && flushed == nil {
			s.closed(c, r.Closed)
			if len(queue) == 0 {
				return nil
			}
			// A Refusal that overtakes a delta on its way harms nothing, and spares waiting for a slow zone.
			queue, calls, stale = queue[len(queue)-1:], nil, nil
			flushed = time.After(lastWords)
			if queue[0].GetRefusal() == nil {
				return nil
			}
		}
		if next := g.Next(); !next.IsZero() {
			tick.Reset(time.Until(next))
		}

		var recv chan *kdsv1.ZoneFrame
		var sendTo chan *kdsv1.GlobalFrame
		var head *kdsv1.GlobalFrame
		var callTo chan func() func()
		var first func() func()
		if len(calls) < maxCalls && len(queue) < maxQueue {
			recv = in
		}
		if len(queue) > 0 {
			sendTo, head = out, queue[0]
		}
		if len(calls) > 0 {
			callTo, first = work, calls[0]
		}
		select {
		case <-ctx.Done():
			return nil
		case <-failed:
			// A peer that goes away is no error.
			return nil
		case <-sent:
			return nil
		case <-flushed:
			return nil
		case f := <-recv:
			now := time.Now()
			if c.session != nil {
				c.session.Seen(now)
			}
			g.Receive(f, now)
		case sendTo <- head:
			queue = queue[1:]
		case callTo <- first:
			calls = calls[1:]
		case done := <-results:
			done()
		case fn := <-c.do:
			fn(g)
		case <-stale:
			if view, stale = s.cfg.Views.View(zone); view != nil {
				g.SetView(view, time.Now())
			}
		case <-tick.C:
			g.Tick(time.Now())
		}
	}
}

// event gives the call that an event asks for; nil for none.
func (s *Server) event(ctx context.Context, g *kds.Global, c *conn, e kds.GlobalEvent) func() func() {
	nothing := func() {}
	switch {
	case e.Hello != nil:
		c.replica = e.Hello.GetReplica()
		return func() func() {
			session, v := s.cfg.Zones.Open(ctx, c.zone, e.Hello)
			c.opened = session
			if v.Code == kdsv1.Refusal_CODE_UNSPECIFIED && session == nil {
				v = kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, Reason: "the zone was neither admitted nor refused"}
			}
			return func() {
				if g.Admit(v, time.Now()); v.Code == kdsv1.Refusal_CODE_UNSPECIFIED {
					c.session = session
					s.welcomed(c)
				}
			}
		}
	case e.Report != nil:
		return func() func() {
			rejected, err := c.opened.Report(ctx, e.Report)
			return func() {
				if c.broken = err; err == nil {
					g.Reported(e.Report.GetSequence(), rejected)
				}
			}
		}
	case e.CertificateRequest != nil:
		return func() func() {
			cert := c.opened.Certificate(ctx, e.CertificateRequest)
			return func() {
				if cert != nil {
					cert.Id = e.CertificateRequest.GetId()
					g.Certificate(cert)
				}
			}
		}
	case e.Status != nil:
		return func() func() { c.opened.Status(ctx, e.Status); return nothing }
	case e.Confirmed != nil:
		rejected := g.Rejected()
		return func() func() { c.opened.Confirmed(ctx, *e.Confirmed, rejected); return nothing }
	case len(e.Rejected) > 0:
		for _, r := range e.Rejected {
			k := r.GetKey()
			s.cfg.Log.Warn("zone can't use a resource", zap.String("zone", c.zone), zap.String("replica", c.replica),
				zap.String("kind", k.GetKind()), zap.String("mesh", k.GetMesh()), zap.String("name", k.GetName()),
				zap.String("reason", r.GetReason()))
		}
	case len(e.Repair) > 0:
		s.cfg.Log.Warn("zone differs from what it confirmed and is repaired", zap.String("zone", c.zone),
			zap.String("replica", c.replica), zap.Strings("kind", e.Repair))
		return func() func() { c.opened.Repaired(ctx, e.Repair); return nothing }
	case e.Nacked != nil:
		s.cfg.Log.Warn("zone could not apply", zap.String("zone", c.zone), zap.String("replica", c.replica),
			zap.Uint64("revision", e.Nacked.Revision), zap.String("reason", e.Nacked.Reason))
		return func() func() { c.opened.Nacked(ctx, *e.Nacked); return nothing }
	case e.Answer != nil:
		c.answer(g, e.Answer)
	}
	return nil
}

// bearer is the token of the call; empty when there is none.
func bearer(ctx context.Context) string {
	for _, v := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "bearer") {
			return token
		}
	}
	return ""
}

func receive[F any](ctx context.Context, recv func() (F, error), to chan<- F) error {
	for {
		f, err := recv()
		if err != nil {
			return err
		}
		select {
		case to <- f:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func send[F any](ctx context.Context, put func(F) error, from <-chan F) error {
	for {
		select {
		case f := <-from:
			if err := put(f); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func call(ctx context.Context, work <-chan func() func(), results chan<- func()) {
	for {
		select {
		case fn := <-work:
			select {
			case results <- fn():
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
