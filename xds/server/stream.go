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

// firstRequest is how long a stream may take to say who it is of, also when all proxies of a zone come back at once.
const firstRequest = 30 * time.Second

// Pauses between two attempts with a listener that was refused; they double.
const leastPause, mostPause = 2 * time.Second, time.Minute

// stream is one connection of a proxy. Its one goroutine does nothing but receive requests: thousands of them wait, and their stacks are a
// third of what a proxy takes, so they must stay small. What it received, and what others have for the stream, waits in the inbox until a
// worker brings it to the session, see queue. Whoever has the turn uses the session and sends, so proxies don't wait for each other.
type stream struct {
	// Set once.
	id     ProxyID
	server *Server
	// send is called with the turn; refuse ends the stream with a reason, at any time.
	send   func(*response) error
	refuse func(error)
	inbox  inbox
	// handled holds a token when the request in the inbox was looked at, and the next may be received.
	handled chan struct{}
	// urgent, queued and paced say that it waits for a worker, missed that one found its turn taken.
	urgent, queued, paced, missed atomic.Bool
	// since is guarded by the queue's mu: when it began to wait for room.
	since time.Duration

	turn sync.Mutex
	// Guarded by turn.
	session *session
	ended   bool
	// reported is what the observer was told last, if it was told anything.
	reported Progress
	told     bool
	// retry and release are nil while nothing waits for them.
	retry, release *time.Timer
	pause          time.Duration

	// audience is guarded by the server's mu; nil while it watches nothing.
	audience *audience
	// stale says that the newest snapshot asks for others; it is stored with the server's mu held.
	stale atomic.Bool

	// calm is the session's, and reportedEndpoints what of endpoints the observer was told, as they were last.
	calm              atomic.Bool
	reportedEndpoints atomic.Uint64

	mu sync.Mutex
	// Guarded by mu: what the session reached.
	progress Progress
	// quiet says that no endpoints were outstanding when progress was taken.
	quiet  bool
	worlds map[string][]*world
	// over says that it was ended from here, by cause.
	over  bool
	cause error
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
	st.calm.Store(st.session.calm)
	return progress
}

// idle says whether no change of endpoints is on its way to the proxy.
func (st *stream) idle() bool {
	// What leaves the inbox is unquiet before.
	empty := st.inbox.empty()
	st.mu.Lock()
	defer st.mu.Unlock()
	return empty && st.quiet
}

func (st *stream) reached() (Progress, map[string][]*world) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.progress, st.worlds
}

// end ends the stream from here. The reason that comes first counts.
func (st *stream) end(why error) {
	st.mu.Lock()
	first := !st.over
	if first {
		st.over, st.cause = true, why
	}
	st.mu.Unlock()
	if first {
		st.refuse(why)
	}
}

// open takes note of a stream of which nothing is known yet. It says no when the server stops.
func (s *Server) open(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.streams[st] = struct{}{}
	return true
}

// attach makes a stream that of a proxy, in place of the one that it may have.
func (s *Server) attach(st *stream, id ProxyID, state bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.id = id
	p := s.proxyLocked(id)
	if p.stream != nil {
		s.unwatchLocked(p.stream)
		p.last, p.worlds = p.stream.reached()
		p.stream.end(replaced(id))
	}
	if state {
		st.session = newStateSession(s.lookup, p.worlds)
	} else {
		st.session = newSession(s.lookup)
	}
	s.watchLocked(st, p.want)
	if p.want != nil {
		st.inbox.setSnapshot(p.want)
	}
	p.stream = st
}

func replaced(id ProxyID) error {
	return status.Errorf(codes.Aborted, "proxy %q was removed, or connected again and this stream is the older one", id)
}

// detach forgets a stream that ends.
func (s *Server) detach(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	if p := s.proxies[st.id]; p != nil && p.stream == st {
		s.unwatchLocked(st)
		p.last, p.worlds = st.reached()
		p.stream = nil
	}
}

// request is one of either form of ADS.
type request interface {
	GetNode() *corev3.Node
	GetTypeUrl() string
	// GetErrorDetail is nil unless it is a NACK.
	GetErrorDetail() *statuspb.Status
	handle(*session)
}

type deltaRequest struct {
	*discoveryv3.DeltaDiscoveryRequest
}

func (r deltaRequest) handle(s *session) { s.Handle(r.DeltaDiscoveryRequest) }

type stateRequest struct{ *discoveryv3.DiscoveryRequest }

func (r stateRequest) handle(s *session) { s.HandleState(r.DiscoveryRequest) }

// DeltaAggregatedResources serves one incremental stream: it returns when the client ends it or a newer stream of the
// proxy comes.
func (s *Server) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	in := &incoming{}
	return s.serve(g.Context(), false, func() (request, error) {
		err := g.RecvMsg(in)
		came := in.request
		in.request = nil // it would stay while the stream waits for the next
		return came, err
	}, func(r *response) error { return g.SendMsg(s.message(r)) })
}

// StreamAggregatedResources is DeltaAggregatedResources for the state-of-the-world variant, with the same order of
// sending. A proxy that connects again to another server than before may lose clusters before the routes that name them,
// as it can't say in this variant what it has; prefer the other.
func (s *Server) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.serve(g.Context(), true, func() (request, error) {
		r, err := g.Recv()
		return stateRequest{r}, err
	}, func(r *response) error { return g.Send(r.state()) })
}

// refusal ends the stream of a context with an error, from any goroutine, which has its receive return. gRPC offers handlers no other way
// but to return, for which each would need a goroutine beside the one that receives.
func refusal(ctx context.Context) (func(error), error) {
	transport, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(*status.Status) error })
	if !ok {
		return nil, status.Error(codes.Internal, "the transport of this stream has no way to end it")
	}
	return func(why error) {
		_ = transport.WriteStatus(status.Convert(why)) // it fails where the stream has ended
	}, nil
}

func (s *Server) serve(ctx context.Context, state bool, receive func() (request, error), send func(*response) error) (why error) {
	refuse, err := refusal(ctx)
	if err != nil {
		return err
	}
	st := &stream{server: s, send: send, refuse: refuse, handled: make(chan struct{}, 1), pause: leastPause}
	if !s.open(st) {
		return errStopping
	}
	defer s.detach(st)
	late := time.AfterFunc(s.firstRequest, func() {
		st.end(status.Errorf(codes.DeadlineExceeded, "no request came within %s of the stream's beginning", s.firstRequest))
	})
	req, err := receive()
	late.Stop()
	if err != nil {
		return st.why(ctx, err)
	}
	id, err := s.auth.Connect(ctx, req.GetNode(), Bearer(ctx))
	if err != nil {
		return status.Errorf(codes.Unauthenticated, "proxy %q was not accepted: %v", shorten(req.GetNode().GetId(), maxID), err)
	}
	defer s.auth.Disconnect(id)
	forgetHeader(ctx)
	s.attach(st, id, state)
	defer s.detach(st)
	defer func() { st.close(why) }()
	for {
		if st.receive(req) {
			<-st.handled
		}
		if req, err = receive(); err != nil {
			return st.why(ctx, err)
		}
	}
}

// why is what a stream returns that could not be read or written any more.
func (st *stream) why(ctx context.Context, err error) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.over:
		return st.cause
	case errors.Is(err, io.EOF) || ctx.Err() != nil:
		return nil
	}
	return err
}

// close ends a stream with what it returns, and waits until nobody sends, which nobody does afterwards.
func (st *stream) close(why error) {
	st.end(why) // who waits to send does so no longer
	st.turn.Lock()
	defer st.turn.Unlock()
	st.ended = true
	for _, t := range []*time.Timer{st.retry, st.release} {
		if t != nil {
			t.Stop()
		}
	}
}

// news brings a stream what waits for it. It never waits itself: where the transport may have no room, a goroutine of its own does.
func (st *stream) news() {
	st.missed.Store(true)
	if !st.turn.TryLock() {
		return // whoever has the turn sees that this one missed it
	}
	st.missed.Store(false)
	if st.ended || st.inbox.nothing() {
		st.pass(content{})
		return
	}
	st.mu.Lock()
	st.quiet = false // before the inbox is empty, see idle
	st.mu.Unlock()
	revision := st.server.endpointRev.Load()
	in := st.inbox.take()
	out, err := st.think(in, revision)
	if err != nil {
		st.end(err)
		st.pass(in)
		return
	}
	way := st.session.onTheirWay()
	if len(out) > 0 {
		way -= out[len(out)-1].size()
	}
	if way < room {
		st.tell(out)
		st.pass(in)
		return
	}
	go func() {
		st.tell(out)
		st.pass(in)
	}()
}

// pass gives the turn back, to a worker that found it taken, and has the next request received.
func (st *stream) pass(in content) {
	st.turn.Unlock()
	if in.request != nil {
		st.handled <- struct{}{}
	}
	if st.missed.Swap(false) {
		st.server.queue.addUrgent(st) // it has waited already
	}
}

// receive has a request looked at. It says whether the next may be received only when this one was. An acknowledgement of endpoints
// that nobody waits for is looked at when there is news of endpoints, or room for such: so one look does for both.
func (st *stream) receive(req request) (waits bool) {
	if _, ok := req.(acknowledgement); !ok || !st.inbox.setAck(req) {
		st.inbox.setRequest(req)
		st.server.queue.addUrgent(st)
		return true
	}
	switch heeded := st.reportedEndpoints.Load() < st.server.heeded.Load(); {
	case !st.calm.Load():
		st.server.queue.addUrgent(st)
	case heeded:
		st.server.queue.add(st)
	default:
		st.server.queue.addEndpoints(st)
	}
	return false
}

// room is how many bytes gRPC takes without waiting for them to be on the wire. What was acknowledged was; the last response may be of
// any size.
const room = 64 << 10

// think gives the session what waited for it. It needs the turn. What it returns is to be told.
func (st *stream) think(in content, revision uint64) ([]*response, error) {
	st.deliver(in, revision)
	if in.ack != nil {
		in.ack.handle(st.session)
	}
	if req := in.request; req != nil {
		before := slices.Clone(st.session.nacks)
		req.handle(st.session)
		if n := st.session.Names(); n > maxNames {
			return nil, status.Errorf(codes.ResourceExhausted, "proxy %q names %d resources of one type, at most %d are allowed", st.id, n, maxNames)
		}
		if detail := req.GetErrorDetail(); detail != nil {
			log := st.server.log.Warn
			if slices.ContainsFunc(before, func(n Nack) bool { return n.TypeURL == req.GetTypeUrl() && n.Message == detail.GetMessage() }) {
				log = st.server.log.Debug // it was told when it came first
			}
			log("proxy rejected configuration", zap.String("proxy", string(st.id)), zap.String("kind", shorten(req.GetTypeUrl(), maxID)),
				zap.Uint64("revision", st.session.sent), zap.String("reason", shorten(detail.GetMessage(), maxMessage)))
		}
	}
	out := st.session.Ready()
	st.schedule()
	return out, nil
}

// deliver hands the session what others had. It is all that concerns the stream up to a revision of endpoints that was read before the
// inbox was.
func (st *stream) deliver(in content, revision uint64) {
	if in.snapshot != nil {
		st.session.SetSnapshot(in.snapshot)
	}
	revision = max(revision, in.endpointRev)
	if in.allChanged {
		st.session.AllEndpointsChanged(revision)
	} else {
		st.session.EndpointsChanged(revision, in.changed)
	}
	if in.release {
		st.release = nil
		st.session.Release()
	}
	if in.retry {
		st.retry = nil
		st.session.Retry()
	}
}

// schedule sets the timers of what the session has to do later.
func (st *stream) schedule() {
	switch retriable, pending := st.session.Retriable(); {
	case retriable && st.retry == nil:
		st.retry = time.AfterFunc(st.pause, func() { st.inbox.setRetry(); st.server.queue.add(st) })
		st.pause = min(2*st.pause, mostPause)
	case !retriable && !pending:
		if st.retry != nil {
			st.retry.Stop()
			st.retry = nil
		}
		st.pause = leastPause
	}
	if st.release == nil && len(st.session.tails) > 0 {
		st.release = time.AfterFunc(lingering, func() { st.inbox.setRelease(); st.server.queue.add(st) })
	}
}

// tell sends what the session has ready, and reports its progress. It needs the turn; no lock is held, so that a slow proxy holds up
// none but itself.
func (st *stream) tell(out []*response) {
	s := st.server
	progress := st.publish()
	for _, resp := range out {
		s.tally.sent(resp)
		if err := st.send(resp); err != nil {
			st.end(err)
			return
		}
	}
	if len(st.session.kept) > 0 || st.stale.Load() {
		s.rewatch(st.id, st)
	}
	if s.observer != nil && st.reports(progress) {
		st.reported, st.told = progress, true
		st.reportedEndpoints.Store(progress.EndpointsAcked)
		s.observer.OnProgress(st.id, progress)
	}
}

// reports says whether the observer wants to know. Who acknowledged endpoints it wants to know up to the revision that it named.
func (st *stream) reports(p Progress) bool {
	r := &st.reported
	return !st.told || r.Sent != p.Sent || r.Acked != p.Acked || len(r.Nacks)+len(p.Nacks) > 0 ||
		r.EndpointsAcked != p.EndpointsAcked && r.EndpointsAcked < st.server.heeded.Load()
}
