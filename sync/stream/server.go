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
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

const (
	// maxQueue bounds the frames that wait to be sent before no more are read; the largest delta or inventory fits.
	maxQueue = 2048
	// maxCalls bounds the calls of one stream that wait for others like it, before no more frames are read.
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
	// Withdrawn refuses a token that let a stream in and was taken back since. One that merely ended is none: a zone must not lose what
	// it has for that. It must not block.
	Withdrawn(token string) kds.Verdict
}

// Zones decides over the streams of authenticated zones. Calls come from many streams at once.
type Zones interface {
	// Open answers a Hello: with a Session, or with a code that refuses. It may block until ctx ends.
	Open(ctx context.Context, zone string, h *kdsv1.Hello) (Session, kds.Verdict)
	// Siblings are the other replicas of a zone, as one of them is told. Called with a stream's lock held, so it must not block.
	Siblings(zone, replica string) *kdsv1.Siblings
}

// Session takes what one admitted stream says, in order. Report and Certificate may block until ctx ends; that delays only the same
// stream's next call of the same method. All others are called with the stream's own lock held, so they must not block, nor call the
// Server.
type Session interface {
	// Report commits what a zone offers; an error ends the stream, and the zone sends a snapshot on the next. It may wait for as long
	// as the store is away.
	Report(ctx context.Context, r *kdsv1.Report) ([]*kdsv1.Rejection, error)
	// Certificate signs; the id of the answer is set by the caller.
	Certificate(ctx context.Context, r *kdsv1.CertificateRequest) *kdsv1.Certificate
	Status(s *kdsv1.Status)
	// Confirmed tells what the zone has on its disk, and all records of it that the zone keeps without using them, by key.
	Confirmed(p kds.Position, rejected []*kdsv1.Rejection)
	// Nacked tells of a delta that the zone could not put on its disk.
	Nacked(n kds.Nacked)
	// Repaired lists kinds in which the zone differed from what it had confirmed.
	Repaired(kinds []string)
	// Seen tells that a frame came.
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
	cfg  ServerConfig
	wg   sync.WaitGroup
	lost atomic.Uint64

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

// Lost counts the streams that ended because frames of the zone were missing.
func (s *Server) Lost() uint64 { return s.lost.Load() }

// Wait joins the goroutines of all streams; call it after the gRPC server's Stop.
func (s *Server) Wait() { s.wg.Wait() }

// Stream serves one replica of a zone until either end closes.
func (s *Server) Stream(st grpc.BidiStreamingServer[kdsv1.ZoneFrame, kdsv1.GlobalFrame]) error {
	token := bearer(st.Context())
	zone, v := s.cfg.Admission.Authenticate(st.Context(), token)
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
	c := newConn(ctx, s, zone, token)
	entered := s.enter(c)
	defer s.leave(c)
	c.mu.Lock()
	view, stale := s.cfg.Views.View(zone)
	if view != nil {
		c.global.SetView(view, time.Now())
	}
	if !entered {
		c.global.Refuse(shuttingDown())
	}
	c.workLocked()
	c.mu.Unlock()
	c.recheck() // Recheck may have passed between the authentication and enter.
	// These end with ctx, or when gRPC lets go of the stream after this method returns; so Wait joins them, not this method.
	s.wg.Go(func() { c.receive(st.Recv) })
	s.wg.Go(func() { c.send(st.SendMsg, stale) })
	select {
	case <-ctx.Done():
	case <-c.over:
	}
	return c.end()
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
