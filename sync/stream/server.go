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

// Admission decides who may connect. Both may block until ctx ends.
type Admission interface {
	// Authenticate finds the zone that a bearer token is for; a code refuses it.
	Authenticate(ctx context.Context, token string) (zone string, v kds.Verdict)
	Admit(ctx context.Context, zone string, h *kdsv1.Hello) kds.Verdict
}

// Zones takes what admitted zones say. Calls of one stream come in order, one at a time; those of different streams at once.
// They may block until ctx ends; that delays only the same stream.
type Zones interface {
	// Report commits what a zone offers; an error ends the stream, and the zone sends a snapshot on the next.
	Report(ctx context.Context, zone, replica string, r *kdsv1.Report) ([]*kdsv1.Rejection, error)
	// Certificate signs; the id of the answer is set by the caller.
	Certificate(ctx context.Context, zone string, r *kdsv1.CertificateRequest) *kdsv1.Certificate
	Status(ctx context.Context, zone, replica string, s *kdsv1.Status)
	// Confirmed tells what the zone has on its disk.
	Confirmed(ctx context.Context, zone, replica string, p kds.Position)
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
}

// NewServer makes a server; register it with kdsv1.RegisterKDSServer.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Admission == nil || cfg.Views == nil || cfg.Zones == nil {
		return nil, errors.New("stream server: admission, views and zones are all needed")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Server{cfg: cfg}, nil
}

// Wait joins the goroutines of all streams; call it after the gRPC server's Stop.
func (s *Server) Wait() { s.wg.Wait() }

// Stream serves one replica of a zone until either end closes.
func (s *Server) Stream(st grpc.BidiStreamingServer[kdsv1.ZoneFrame, kdsv1.GlobalFrame]) error {
	zone, v := s.cfg.Admission.Authenticate(st.Context(), bearer(st.Context()))
	if v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		s.cfg.Log.Warn("zone refused", zap.String("zone", zone), zap.String("reason", v.Reason))
		return st.Send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Refusal{Refusal: &kdsv1.Refusal{
			Code: v.Code, Reason: v.Reason, RetryAfterMillis: uint32(v.RetryAfter.Milliseconds()),
		}}})
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel()

	cfg := s.cfg.Machine
	cfg.Zone = zone
	g := kds.NewGlobal(cfg, time.Now())
	var (
		replica string
		queue   []*kdsv1.GlobalFrame
		calls   []func() func() // wait for the caller; what each returns runs on this loop
		in      = make(chan *kdsv1.ZoneFrame)
		out     = make(chan *kdsv1.GlobalFrame)
		work    = make(chan func() func())
		results = make(chan func())
		failed  = make(chan error, 2)
		flushed <-chan time.Time
		broken  error
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
	s.wg.Go(func() { call(ctx, work, results) })

	view, stale := s.cfg.Views.View(zone)
	if view != nil {
		g.SetView(view, time.Now())
	}
	for {
		r := g.Ready()
		queue = append(queue, r.Frames...)
		for _, e := range r.Events {
			if e.Hello != nil {
				replica = e.Hello.GetReplica()
			}
			if c := s.event(ctx, g, zone, replica, e, &broken); c != nil {
				calls = append(calls, c)
			}
		}
		if broken != nil {
			s.cfg.Log.Warn("report not committed", zap.String("zone", zone), zap.String("replica", replica), zap.Error(broken))
			return status.Error(codes.Unavailable, "the report was not committed")
		}
		if r.Closed != nil && flushed == nil {
			s.cfg.Log.Warn("zone's stream closed", zap.String("zone", zone), zap.String("replica", replica), zap.Error(r.Closed))
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
			g.Receive(f, time.Now())
		case sendTo <- head:
			queue = queue[1:]
		case callTo <- first:
			calls = calls[1:]
		case done := <-results:
			done()
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
func (s *Server) event(ctx context.Context, g *kds.Global, zone, replica string, e kds.GlobalEvent, broken *error) func() func() {
	nothing := func() {}
	switch {
	case e.Hello != nil:
		return func() func() {
			v := s.cfg.Admission.Admit(ctx, zone, e.Hello)
			return func() { g.Admit(v, time.Now()) }
		}
	case e.Report != nil:
		return func() func() {
			rejected, err := s.cfg.Zones.Report(ctx, zone, replica, e.Report)
			return func() {
				if *broken = err; err == nil {
					g.Reported(e.Report.GetSequence(), rejected)
				}
			}
		}
	case e.CertificateRequest != nil:
		return func() func() {
			c := s.cfg.Zones.Certificate(ctx, zone, e.CertificateRequest)
			return func() {
				if c != nil {
					c.Id = e.CertificateRequest.GetId()
					g.Certificate(c)
				}
			}
		}
	case e.Status != nil:
		return func() func() { s.cfg.Zones.Status(ctx, zone, replica, e.Status); return nothing }
	case e.Confirmed != nil:
		return func() func() { s.cfg.Zones.Confirmed(ctx, zone, replica, *e.Confirmed); return nothing }
	case e.Nacked != nil:
		s.cfg.Log.Warn("zone could not apply", zap.String("zone", zone), zap.String("replica", replica),
			zap.Uint64("revision", e.Nacked.Revision), zap.String("reason", e.Nacked.Reason))
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
