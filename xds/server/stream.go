package server

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxID bounds, in bytes, what is told of an identifier that nobody vouches for.
const maxID = 400

// firstRequest is how long a stream may take to say who it is of.
const firstRequest = 10 * time.Second

// maxChanges is how many changes of endpoints wait for a stream one by one; with more, all are looked at again.
const maxChanges = 64

// Pauses between two attempts with a listener that was refused; they double.
const leastPause, mostPause = 2 * time.Second, time.Minute

// stream is one connection of a proxy. Its session runs on the goroutine of the stream alone, so that proxies don't wait
// for each other; what others have for it waits in its inbox.
type stream struct {
	// Set once.
	// wake holds a token when the inbox may have something.
	wake chan struct{}
	// replaced is closed when a newer stream of the same proxy took over.
	replaced chan struct{}

	// Only on the stream's goroutine.
	session *session

	// Guarded by the server's mu: the names of the endpoints that it watches, sorted.
	watched []string
	// stale says that the newest snapshot asks for others; it is stored with the server's mu held.
	stale atomic.Bool

	mu sync.Mutex
	// Guarded by mu: the inbox, then what the session reached.
	snapshot *snapshot
	// endpointRev is the newest revision of endpoints that it was told of.
	endpointRev uint64
	changed     [][]string
	allChanged  bool
	progress    Progress
	// quiet says that no endpoints were outstanding when progress was taken.
	quiet  bool
	worlds map[string][]*world
}

func (st *stream) setSnapshot(want *snapshot) {
	st.mu.Lock()
	st.snapshot = want
	st.mu.Unlock()
	st.signal()
}

// setEndpoints tells the stream which endpoints changed. It keeps names.
func (st *stream) setEndpoints(revision uint64, names []string) {
	st.mu.Lock()
	st.endpointRev = revision
	if len(st.changed) < maxChanges {
		st.changed = append(st.changed, names)
	} else {
		st.changed, st.allChanged = st.changed[:0], true
	}
	st.mu.Unlock()
	st.signal()
}

// deliver hands the inbox to the session. It holds all that concerns the stream up to a revision of endpoints that was read before.
func (st *stream) deliver(revision uint64) {
	st.mu.Lock()
	want, changed, all := st.snapshot, st.changed, st.allChanged
	revision = max(revision, st.endpointRev)
	st.snapshot, st.changed, st.allChanged, st.quiet = nil, nil, false, false
	st.mu.Unlock()
	if want != nil {
		st.session.SetSnapshot(want)
	}
	switch {
	case all:
		st.session.AllEndpointsChanged(revision)
	case len(changed) == 1:
		st.session.EndpointsChanged(revision, changed[0])
	case len(changed) > 1:
		var names []string
		for _, more := range changed {
			names = append(names, more...)
		}
		st.session.EndpointsChanged(revision, names)
	default:
		st.session.EndpointsChanged(revision, nil)
	}
}

// publish lets others see what the session reached.
func (st *stream) publish() Progress {
	progress := st.session.Progress()
	var worlds map[string][]*world
	if st.session.state {
		worlds = st.session.Worlds()
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.progress, st.worlds = progress, worlds
	st.quiet = progress.EndpointsAcked == st.session.endpRev
	return progress
}

// idle says whether no change of endpoints is on its way to the proxy.
func (st *stream) idle() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.quiet && st.snapshot == nil && len(st.changed) == 0 && !st.allChanged
}

func (st *stream) reached() (Progress, map[string][]*world) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.progress, st.worlds
}

func (st *stream) signal() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// attach makes a stream of a proxy, in place of the one that it may have.
func (s *Server) attach(id ProxyID, state bool) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxyLocked(id)
	if p.stream != nil {
		s.unwatchLocked(p.stream)
		close(p.stream.replaced)
		p.last, p.worlds = p.stream.reached()
	}
	st := &stream{wake: make(chan struct{}, 1), replaced: make(chan struct{})}
	if state {
		st.session = newStateSession(s.lookup, p.worlds)
	} else {
		st.session = newSession(s.lookup)
	}
	s.watchLocked(st, p.want)
	st.session.EndpointsChanged(s.endpointRev.Load(), nil)
	if p.want != nil {
		st.session.SetSnapshot(p.want)
	}
	st.publish()
	p.stream = st
	return st
}

func (s *Server) detach(id ProxyID, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.proxies[id]; p != nil && p.stream == st {
		s.unwatchLocked(st)
		p.last, p.worlds = st.reached()
		p.stream = nil
	}
}

// variant is what the two forms of ADS differ in.
type variant[Req, Resp any] struct {
	state  bool
	node   func(*Req) *corev3.Node
	handle func(*session, *Req)
	encode func(*response) *Resp
	// refusal returns the type of a NACK and what it says, nil for any other request.
	refusal func(*Req) (string, *statuspb.Status)
}

var deltaVariant = variant[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]{
	node:   (*discoveryv3.DeltaDiscoveryRequest).GetNode,
	handle: (*session).Handle,
	encode: (*response).delta,
	refusal: func(r *discoveryv3.DeltaDiscoveryRequest) (string, *statuspb.Status) {
		return r.GetTypeUrl(), r.GetErrorDetail()
	},
}

var stateVariant = variant[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]{
	state:  true,
	node:   (*discoveryv3.DiscoveryRequest).GetNode,
	handle: (*session).HandleState,
	encode: (*response).state,
	refusal: func(r *discoveryv3.DiscoveryRequest) (string, *statuspb.Status) {
		return r.GetTypeUrl(), r.GetErrorDetail()
	},
}

// DeltaAggregatedResources pumps one incremental stream: it returns when the client ends it or a newer stream of the
// proxy comes.
func (s *Server) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return pump(s, g, deltaVariant)
}

// StreamAggregatedResources is DeltaAggregatedResources for the state-of-the-world variant, with the same order of
// sending. A proxy that connects again to another server than before may lose clusters before the routes that name them,
// as it can't say in this variant what it has; prefer the other.
func (s *Server) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return pump(s, g, stateVariant)
}

func pump[Req, Resp any](s *Server, g grpc.BidiStreamingServer[Req, Resp], v variant[Req, Resp]) error {
	ctx := g.Context()
	requests, received := receive(ctx, g)
	var first *Req
	late := time.NewTimer(s.firstRequest)
	defer late.Stop()
	select {
	case first = <-requests:
	case err := <-received:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-s.stopping:
		return errStopping
	case <-late.C:
		return status.Errorf(codes.DeadlineExceeded, "no request came within %s of the stream's beginning", s.firstRequest)
	}
	node := v.node(first)
	id, err := s.auth.Connect(ctx, node, Bearer(ctx))
	if err != nil {
		return status.Errorf(codes.Unauthenticated, "proxy %q was not accepted: %v", shorten(node.GetId(), maxID), err)
	}
	defer s.auth.Disconnect(id)
	st := s.attach(id, v.state)
	defer s.detach(id, st)

	pause := leastPause
	retry := time.NewTimer(pause)
	retry.Stop()
	defer retry.Stop()
	armed := false
	release := time.NewTimer(lingering)
	release.Stop()
	defer release.Stop()
	releasing := false
	if err := step(s, g, v, id, st, first); err != nil {
		return err
	}
	for {
		switch retriable, pending := st.session.Retriable(); {
		case retriable && !armed:
			retry.Reset(pause)
			pause, armed = min(2*pause, mostPause), true
		case !retriable && !pending:
			retry.Stop()
			pause, armed = leastPause, false
		}
		if !releasing && len(st.session.tails) > 0 {
			release.Reset(lingering)
			releasing = true
		}
		var err error
		select {
		case <-release.C:
			releasing = false
			st.session.Release()
			err = step(s, g, v, id, st, nil)
		case <-retry.C:
			armed = false
			st.session.Retry()
			err = step(s, g, v, id, st, nil)
		case req := <-requests:
			err = step(s, g, v, id, st, req)
		case <-st.wake:
			err = step(s, g, v, id, st, nil)
		case <-s.stopping:
			return errStopping
		case <-st.replaced:
			return status.Errorf(codes.Aborted, "proxy %q was removed, or connected again and this stream is the older one", id)
		case err := <-received:
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err != nil {
			return err
		}
	}
}

// receive reads requests until the stream ends. gRPC unblocks Recv when the handler returns, so its goroutine ends just
// after it.
func receive[Req, Resp any](ctx context.Context, g grpc.BidiStreamingServer[Req, Resp]) (<-chan *Req, <-chan error) {
	requests := make(chan *Req)
	received := make(chan error, 1)
	go func() {
		for {
			req, err := g.Recv()
			if err != nil {
				received <- err
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				received <- ctx.Err()
				return
			}
		}
	}()
	return requests, received
}

// step gives the session what waits for it and a request, which may be nil, sends what it has ready, and reports its
// progress. No lock is held meanwhile, so that a slow proxy holds up none but itself.
func step[Req, Resp any](s *Server, g grpc.BidiStreamingServer[Req, Resp], v variant[Req, Resp], id ProxyID, st *stream, req *Req) error {
	st.deliver(s.endpointRev.Load())
	before := slices.Clone(st.session.nacks)
	if req != nil {
		v.handle(st.session, req)
	}
	if n := st.session.Names(); n > maxNames {
		return status.Errorf(codes.ResourceExhausted, "proxy %q names %d resources of one type, at most %d are allowed", id, n, maxNames)
	}
	out := st.session.Ready()
	progress := st.publish()
	if req != nil {
		if typeURL, detail := v.refusal(req); detail != nil {
			log := s.log.Warn
			if slices.ContainsFunc(before, func(n Nack) bool { return n.TypeURL == typeURL && n.Message == detail.GetMessage() }) {
				log = s.log.Debug // it was told when it came first
			}
			log("proxy rejected configuration", zap.String("proxy", string(id)), zap.String("kind", shorten(typeURL, maxID)),
				zap.Uint64("revision", progress.Sent), zap.String("reason", shorten(detail.GetMessage(), maxMessage)))
		}
	}
	for _, resp := range out {
		s.tally.sent(resp)
		if err := g.Send(v.encode(resp)); err != nil {
			return err
		}
	}
	if len(st.session.kept) > 0 || st.stale.Load() {
		s.rewatch(id, st)
	}
	if s.observer != nil {
		s.observer.OnProgress(id, progress)
	}
	return nil
}
