package server

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/zoneforge/zoneforge/xds"
)

// ProxyID names one proxy of this zone.
type ProxyID string

// Authenticator decides who a proxy is. It must be safe for concurrent use.
type Authenticator interface {
	// Connect is called with a stream's first request. token is the bearer token of the stream's metadata, "" when there
	// is none. Its error is the reason that the proxy is told.
	Connect(ctx context.Context, node *corev3.Node, token string) (ProxyID, error)
	// Disconnect is called exactly once for every Connect that gave no error. A proxy that reconnects may be connected
	// twice for a moment, so an implementation must count.
	Disconnect(id ProxyID)
}

// Observer is told how far proxies came. Calls for one stream come in order; it must be safe for concurrent use and not
// block, as it is called between two messages of the stream.
type Observer interface {
	OnProgress(id ProxyID, p Progress)
}

// Config is what a Server needs. Observer and Logger may be nil.
type Config struct {
	Authenticator Authenticator
	Observer      Observer
	Logger        *zap.Logger
}

// Status is what is known of one proxy.
type Status struct {
	Progress
	// Connected says whether its stream is up; without it Progress is where the last stream ended.
	Connected bool
	// Wanted is the newest revision that SetProxy gave.
	Wanted uint64
}

// Server is an ADS server. Its methods are safe for concurrent use, and none waits for a proxy.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	auth     Authenticator
	observer Observer
	log      *zap.Logger
	// firstRequest is shorter in tests.
	firstRequest time.Duration
	queue        queue

	mu sync.Mutex
	// proxies is guarded by mu, and so is what it holds but for the streams.
	proxies map[ProxyID]*proxy
	// streams are all that are open, stopped says that none may be.
	streams  map[*stream]struct{}
	stopped  bool
	watchers watchers
	// endpointRev is stored with mu held.
	endpointRev atomic.Uint64
	// heeded is the newest revision of endpoints of which the observer wants to know who acknowledged it.
	heeded atomic.Uint64

	tally tally

	// endpointsMu is held only to look at the map or to change it, with mu or without.
	endpointsMu sync.RWMutex
	endpoints   map[string]endpoints
}

// proxy outlives its streams, so that a status can be asked for while it is away.
type proxy struct {
	want   *snapshot
	stream *stream
	last   Progress
	// worlds are what it may have of its last state-of-the-world stream.
	worlds map[string][]*world
}

// New makes a server; it starts nothing.
func New(c Config) (*Server, error) {
	if c.Authenticator == nil {
		return nil, errors.New("xds server: config has no authenticator: set Config.Authenticator")
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return &Server{
		auth: c.Authenticator, observer: c.Observer, log: c.Logger, firstRequest: firstRequest, queue: newQueue(),
		proxies: map[ProxyID]*proxy{}, streams: map[*stream]struct{}{}, watchers: newWatchers(), endpoints: map[string]endpoints{},
	}, nil
}

// Stop ends all streams, and those to come, and tells proxies that they find another replica or this one again. Call it once.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for st := range s.streams {
		st.end(errStopping)
	}
}

// Heed has the Observer told when proxies acknowledge endpoints of a revision up to this one, too. Of later ones it is told
// with the next progress of another kind alone, as there may be thousands a second. Call it before SetEndpoints.
func (s *Server) Heed(revision uint64) { s.heeded.Store(revision) }

// errStopping is what proxies are told.
var errStopping = status.Error(codes.Unavailable, "this zone control plane is stopping: connect again, here or to another replica")

// Register adds the aggregated discovery service to a gRPC server, which must have been made with Option.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
}

// SetProxy sets all that a proxy should hold, but for endpoints; it may be called before the proxy connects. Routes and
// Extensions must be those that the Listeners name: a revision counts as acknowledged only when the proxy has them all.
// A revision that is not newer than the one before is ignored. The resources must not be changed afterwards.
func (s *Server) SetProxy(id ProxyID, revision uint64, resources *xds.Resources, secrets []*xds.Resource) {
	s.mu.Lock()
	previous := s.proxyLocked(id).want
	s.mu.Unlock()
	if previous != nil && revision <= previous.revision {
		return
	}
	// Outside the lock, as a changed cluster has to be decoded.
	want := newSnapshot(revision, resources, secrets, previous)

	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxyLocked(id)
	if p.want != nil && revision <= p.want.revision {
		return
	}
	p.want = want
	if p.stream != nil {
		s.watchLocked(p.stream, p.want)
		s.tally.told.Add(1)
		p.stream.inbox.setSnapshot(p.want)
		if previous == nil {
			s.queue.addUrgent(p.stream) // it has nothing yet
		} else {
			s.queue.add(p.stream)
		}
	}
}

// RemoveProxy forgets a proxy and ends its stream.
func (s *Server) RemoveProxy(id ProxyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.proxies[id]; p != nil {
		if p.stream != nil {
			s.unwatchLocked(p.stream)
			p.stream.end(replaced(id))
		}
		delete(s.proxies, id)
	}
}

// Status returns what is known of a proxy, false when nothing is.
func (s *Server) Status(id ProxyID) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxies[id]
	if p == nil {
		return Status{}, false
	}
	st := Status{Progress: p.last, Connected: p.stream != nil}
	if p.stream != nil {
		st.Progress, _ = p.stream.reached()
		if p.stream.idle() {
			st.EndpointsAcked = s.endpointRev.Load() // none of those since is its concern
		}
	}
	if p.want != nil {
		st.Wanted = p.want.revision
	}
	return st, true
}

func (s *Server) proxyLocked(id ProxyID) *proxy {
	p := s.proxies[id]
	if p == nil {
		p = &proxy{}
		s.proxies[id] = p
	}
	return p
}

func (s *Server) lookup(name string) *xds.Resource {
	s.endpointsMu.RLock()
	defer s.endpointsMu.RUnlock()
	return s.endpoints[name].resource
}

// header is the key of what a stream began with.
type header struct{}

// Tap is for grpc.InTapHandle. With it a stream forgets what it began with once its proxy is known, above all the token, which gRPC would
// keep for as long as it lives.
func Tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	return context.WithValue(ctx, header{}, info.Header), nil
}

// forgetHeader must be called where nobody reads the stream's metadata any more.
func forgetHeader(ctx context.Context) {
	if md, ok := ctx.Value(header{}).(metadata.MD); ok {
		clear(md)
	}
}

// Bearer returns the token of "authorization: Bearer <token>".
func Bearer(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("authorization") {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "bearer") {
			return strings.TrimSpace(token)
		}
	}
	return ""
}
