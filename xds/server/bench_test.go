package server

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/xds"
)

// anyone lets every proxy in.
type anyone struct{}

func (anyone) Connect(_ context.Context, node *corev3.Node, _ string) (ProxyID, error) {
	return ProxyID(node.GetId()), nil
}
func (anyone) Disconnect(ProxyID) {}

// pipe is a stream in process: a proxy that subscribes to what its clusters and listeners need and acknowledges
// everything. It implements the server's side of the stream.
type pipe struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	ctx      context.Context
	requests chan *discoveryv3.DeltaDiscoveryRequest
	asked    map[string]bool
	// needs maps a cluster or listener to the endpoints or route that it asks for.
	needs map[string]string
	fleet *fleet
}

// inProcess is the transport of a pipe, which ends with its context.
type inProcess struct{ grpc.ServerTransportStream }

func (inProcess) WriteStatus(*status.Status) error { return nil }

func (p *pipe) Context() context.Context { return p.ctx }

func (p *pipe) RecvMsg(message any) error {
	select {
	case req := <-p.requests:
		data, err := proto.Marshal(req)
		if err != nil {
			return err
		}
		return newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, message)
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pipe) SendMsg(message any) error { return p.Send(received(message)) }

// received is what a client makes of a message.
func received(message any) *discoveryv3.DeltaDiscoveryResponse {
	var out discoveryv3.DeltaDiscoveryResponse
	data, err := newCodec().Marshal(message)
	if err == nil {
		err = newCodec().Unmarshal(data, &out)
	}
	if err != nil {
		panic(err)
	}
	return &out
}

func (p *pipe) Send(resp *discoveryv3.DeltaDiscoveryResponse) error {
	p.fleet.sent.Add(1)
	if given := p.fleet.given.Load(); given != nil {
		(*given)(p, resp)
	}
	p.requests <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
	follow := map[string]string{xds.TypeCluster: xds.TypeEndpoint, xds.TypeListener: xds.TypeRoute}[resp.GetTypeUrl()]
	if follow == "" {
		return nil
	}
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: follow}
	for _, r := range resp.GetResources() {
		if name := p.needs[r.GetName()]; name != "" && !p.asked[name] {
			p.asked[name] = true
			req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, name)
		}
	}
	if len(req.ResourceNamesSubscribe) > 0 {
		p.requests <- req
	}
	return nil
}

// fleet is a server with proxies in process, each with the same clusters and one listener a cluster.
type fleet struct {
	s         *Server
	resources *xds.Resources
	clusters  []string
	sent      atomic.Int64
	// given is told what each proxy is given, before it acknowledges.
	given   atomic.Pointer[func(*pipe, *discoveryv3.DeltaDiscoveryResponse)]
	waiter  *waiter
	proxies int
}

// waiter counts the proxies that reached a revision.
type waiter struct {
	mu        sync.Mutex
	reached   map[ProxyID]Progress
	condition func(Progress) bool
	left      int
	done      chan struct{}
}

func (w *waiter) OnProgress(id ProxyID, p Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.reached[id]
	w.reached[id] = p
	if w.condition != nil && !w.condition(before) && w.condition(p) {
		if w.left--; w.left == 0 {
			close(w.done)
		}
	}
}

// until sets a condition that all proxies have yet to meet, and returns what is closed once they have.
func (w *waiter) until(proxies int, condition func(Progress) bool) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.condition, w.left, w.done = condition, proxies, make(chan struct{})
	return w.done
}

func newFleet(b testing.TB, proxies, clusters int) *fleet {
	b.Helper()
	f := &fleet{waiter: &waiter{reached: map[ProxyID]Progress{}}, proxies: proxies, resources: &xds.Resources{}}
	s, err := New(Config{Authenticator: anyone{}, Observer: f.waiter})
	if err != nil {
		b.Fatal(err)
	}
	f.s = s
	s.queue.pace.few = math.MaxInt32 // what is measured is work, not how long it waits
	s.Heed(math.MaxUint64)
	needs, endpoints := map[string]string{}, map[string]*xds.Resource{}
	for i := range clusters {
		name := fmt.Sprintf("mesh:service-%03d", i)
		f.clusters = append(f.clusters, name)
		listener, route := fmt.Sprintf("outbound:%d", 10000+i), fmt.Sprintf("route:%d", 10000+i)
		needs[name], needs[listener] = name, route
		endpoints[name] = load(b, name, 0)
		f.resources.Clusters = append(f.resources.Clusters, edsCluster(b, name, ""))
		f.resources.Listeners = append(f.resources.Listeners, plainListener(b, listener, ""))
		f.resources.Routes = append(f.resources.Routes, routeTo(b, route, name))
	}
	s.SetEndpoints(1, endpoints)
	ctx, cancel := context.WithCancel(context.Background())
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer good"))
	ctx = grpc.NewContextWithServerTransportStream(ctx, inProcess{})
	var running sync.WaitGroup
	b.Cleanup(func() {
		cancel()
		running.Wait()
	})
	done := f.waiter.until(proxies, func(p Progress) bool { return p.Acked >= 1 })
	for i := range proxies {
		id := fmt.Sprintf("Dataplane/default/p%d", i)
		s.SetProxy(ProxyID(id), 1, f.resources, nil)
		p := &pipe{ctx: ctx, requests: make(chan *discoveryv3.DeltaDiscoveryRequest, 64), asked: map[string]bool{}, needs: needs, fleet: f}
		p.requests <- &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: id}, TypeUrl: xds.TypeCluster}
		p.requests <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeListener}
		running.Go(func() { _ = s.DeltaAggregatedResources(p) })
	}
	if proxies > 0 {
		<-done
	}
	return f
}

// BenchmarkSetEndpoints changes the endpoints of one service to which all of 1,000 proxies subscribe, until each has
// acknowledged them.
func BenchmarkSetEndpoints(b *testing.B) {
	f := newFleet(b, 1000, 30)
	versions := []*xds.Resource{load(b, f.clusters[0], 8), load(b, f.clusters[0], 9)}
	b.ReportAllocs()
	revision := uint64(1)
	for b.Loop() {
		revision++
		done := f.waiter.until(f.proxies, func(p Progress) bool { return p.EndpointsAcked >= revision })
		f.s.SetEndpoints(revision, map[string]*xds.Resource{f.clusters[0]: versions[revision%2]})
		<-done
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(f.proxies), "ns/proxy")
}

// BenchmarkSetEndpointsOfOthers changes the endpoints of a service to which none of 1,000 proxies subscribes.
func BenchmarkSetEndpointsOfOthers(b *testing.B) {
	f := newFleet(b, 1000, 30)
	versions := []*xds.Resource{load(b, "other", 1), load(b, "other", 2)}
	b.ReportAllocs()
	revision := uint64(1)
	for b.Loop() {
		revision++
		f.s.SetEndpoints(revision, map[string]*xds.Resource{"other": versions[revision%2]})
	}
}

// BenchmarkSetProxy changes one route of each of 1,000 proxies, until each has acknowledged it.
func BenchmarkSetProxy(b *testing.B) {
	f := newFleet(b, 1000, 30)
	variants := []*xds.Resources{f.resources, {Clusters: f.resources.Clusters, Listeners: f.resources.Listeners,
		Routes: append([]*xds.Resource{routeTo(b, "route:10000", f.clusters[1])}, f.resources.Routes[1:]...)}}
	b.ReportAllocs()
	revision := uint64(1)
	for b.Loop() {
		revision++
		done := f.waiter.until(f.proxies, func(p Progress) bool { return p.Acked >= revision })
		for i := range f.proxies {
			f.s.SetProxy(ProxyID(fmt.Sprintf("Dataplane/default/p%d", i)), revision, variants[revision%2], nil)
		}
		<-done
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(f.proxies), "ns/proxy")
}

// BenchmarkConnect brings up 1,000 proxies with 30 clusters, listeners and routes each.
func BenchmarkConnect(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f := newFleet(b, 1000, 30)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-min(after.HeapAlloc, before.HeapAlloc))/float64(f.proxies), "heap-B/proxy")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/proxy")
}

// BenchmarkSession is one route change and its ACK in a session with a number of clusters, without any transport.
func BenchmarkSession(b *testing.B) {
	for _, clusters := range []int{30, 1000} {
		b.Run(fmt.Sprint("clusters=", clusters), func(b *testing.B) {
			f := newFleet(b, 0, clusters)
			s := newSession(f.s.lookup)
			subscribe := func(typeURL string, names ...string) {
				s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
			}
			acknowledge := func() {
				for out := s.Ready(); len(out) > 0; out = s.Ready() {
					for _, resp := range out {
						resp.delta()
						s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.typeURL, ResponseNonce: resp.nonce})
					}
				}
			}
			other := &xds.Resources{Clusters: f.resources.Clusters, Listeners: f.resources.Listeners,
				Routes: append([]*xds.Resource{routeTo(b, "route:10000", f.clusters[1])}, f.resources.Routes[1:]...)}
			snaps := []*snapshot{newSnapshot(1, f.resources, nil, nil)}
			s.SetSnapshot(snaps[0])
			subscribe(xds.TypeCluster)
			acknowledge()
			subscribe(xds.TypeEndpoint, f.clusters...)
			acknowledge()
			subscribe(xds.TypeListener)
			acknowledge()
			for _, r := range f.resources.Routes {
				subscribe(xds.TypeRoute, r.Name)
			}
			acknowledge()
			if s.Progress().Acked != 1 {
				b.Fatalf("did not start: %+v", s.Progress())
			}
			b.ReportAllocs()
			revision := uint64(1)
			for b.Loop() {
				revision++
				rs := f.resources
				if revision%2 == 0 {
					rs = other
				}
				s.SetSnapshot(newSnapshot(revision, rs, nil, s.want))
				acknowledge()
			}
			if got := s.Progress().Acked; got != revision {
				b.Fatalf("acknowledged %d of %d", got, revision)
			}
		})
	}
}
