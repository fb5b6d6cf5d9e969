package server

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/zoneforge/zoneforge/xds"
)

// Requests go before news, but for every fourth, and configuration before endpoints; each stream waits once.
func TestRequestsGoBeforeNews(t *testing.T) {
	q := newQueue()
	q.workers = runtime.GOMAXPROCS(0) + 1 // none that would take anything
	streams := map[*stream]string{}
	for i := range 6 {
		endpoints, news, request := &stream{}, &stream{}, &stream{}
		streams[endpoints], streams[news], streams[request] = fmt.Sprint("e", i), fmt.Sprint("n", i), fmt.Sprint("r", i)
		for range 2 {
			q.addEndpoints(endpoints)
			q.add(news)
			q.addUrgent(request)
		}
	}
	var got []string
	for st := q.next(); st != nil; st = q.next() {
		got = append(got, streams[st])
	}
	if want := "r0 r1 r2 n0 r3 r4 r5 e0 n1 n2 n3 n4 n5 e1 e2 e3 e4 e5"; strings.Join(got, " ") != want {
		t.Errorf("taken %q, want %q", got, want)
	}
}

// stuck is a stream of a proxy that reads nothing: as gRPC does, it takes what is sent until 64 KiB wait, and then no more.
type stuck struct {
	pipe
	full chan struct{}
	way  int
}

func (p *stuck) SendMsg(message any) error {
	resp := received(message)
	if p.way >= 64<<10 {
		close(p.full)
		<-p.ctx.Done()
		return p.ctx.Err()
	}
	for _, r := range resp.GetResources() {
		p.way += len(r.GetResource().GetValue())
	}
	return nil
}

// Of proxies that read nothing there may be more than there are workers: all others are served none the less.
func TestProxiesThatReadNothingHoldUpNobody(t *testing.T) {
	f := newFleet(t, 1, 1)
	large := &xds.Resources{Clusters: []*xds.Resource{edsCluster(t, f.clusters[0], strings.Repeat("x", 70<<10))}}
	ctx, cancel := context.WithCancel(metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer good")))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i := range 4 * runtime.GOMAXPROCS(0) {
		id := fmt.Sprint("stuck-", i)
		f.s.SetProxy(ProxyID(id), 1, large, nil)
		p := &stuck{pipe: pipe{ctx: grpc.NewContextWithServerTransportStream(ctx, inProcess{}), requests: make(chan *discoveryv3.DeltaDiscoveryRequest, 2)}, full: make(chan struct{})}
		p.requests <- &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: id}, TypeUrl: xds.TypeCluster}
		p.requests <- &discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeEndpoint, ResourceNamesSubscribe: []string{f.clusters[0]}}
		running.Go(func() { _ = f.s.DeltaAggregatedResources(p) })
		<-p.full
	}
	done := f.waiter.until(1, func(p Progress) bool { return p.EndpointsAcked >= 2 })
	f.s.SetEndpoints(2, map[string]*xds.Resource{f.clusters[0]: load(t, f.clusters[0], 7)})
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("a proxy that reads waits for those that don't")
	}
}

// A proxy that is behind is given the newest of all that changed, in one response, whatever number of changes there were.
func TestChangesGatherForAProxyThatIsBehind(t *testing.T) {
	s := newServer(t)
	names := []string{"a", "b"}
	set := func(revision uint64) {
		s.SetEndpoints(revision, map[string]*xds.Resource{names[revision%2]: load(t, names[revision%2], uint32(revision%128))})
	}
	set(1)
	set(2)
	s.SetProxy("p", 1, clusters(t, names...), nil)
	st := attached(s, "p")
	var sent []*response
	st.send = func(r *response) error { sent = append(sent, r); return nil }
	st.handled = make(chan struct{}, 1)
	ask := func(req *discoveryv3.DeltaDiscoveryRequest) {
		st.inbox.setRequest(deltaRequest{req})
		st.news()
		<-st.handled
	}
	acknowledge := func() {
		for len(sent) > 0 {
			r := sent[0]
			sent = sent[1:]
			ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.typeURL, ResponseNonce: r.nonce})
		}
	}
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeCluster})
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeListener})
	acknowledge()
	ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeEndpoint, ResourceNamesSubscribe: names})
	acknowledge()
	st.news()
	if len(sent) != 0 || st.session.Progress().Acked != 1 {
		t.Fatalf("did not start: %+v", st.session.Progress())
	}
	const changes = 1000
	for revision := uint64(3); revision < changes; revision++ {
		set(revision)
		st.news()
	}
	if len(sent) != 1 {
		t.Fatalf("%d responses are on their way to a proxy that acknowledged none", len(sent))
	}
	st.inbox.setAck(acknowledgement(sent[0].nonce))
	st.news()
	if len(sent) != 2 || len(sent[1].upserts) != 2 || sent[1].upserts[0].Version != s.lookup("a").Version || sent[1].upserts[1].Version != s.lookup("b").Version {
		t.Fatalf("%d responses, want a second with the newest of both: %v", len(sent), sent[len(sent)-1].upserts)
	}
	sent = sent[1:]
	acknowledge()
	st.news()
	if got := st.session.Progress(); len(sent) != 0 || got.EndpointsAcked != changes-1 {
		t.Errorf("at the end %+v, and %d more are sent", got, len(sent))
	}
}

// However many streams have news waiting, a proxy that has just come is given its first configuration before them, and what a stream
// missed while its turn was taken doesn't wait once more.
func TestAProxyThatComesDoesNotWaitForNews(t *testing.T) {
	s := newServer(t)
	s.queue.workers = 1 << 20 // none that would take anything
	s.SetEndpoints(1, map[string]*xds.Resource{"a": load(t, "a", 1)})
	const others = 50
	for i := range others {
		id := ProxyID(fmt.Sprint("p", i))
		s.SetProxy(id, 1, clusters(t, "a"), nil)
		attached(s, id).queued.Store(false)
	}
	late := attached(s, "late")
	late.queued.Store(false)
	s.SetEndpoints(2, map[string]*xds.Resource{"a": load(t, "a", 2)})
	s.SetProxy("late", 2, clusters(t, "a"), nil)
	if first := s.queue.next(); first != late {
		t.Errorf("the first that is looked at is %q", first.id)
	}

	late.turn.Lock()
	late.inbox.setRelease()
	late.news()
	late.pass(content{})
	second, before := s.queue.next(), 0
	for ; second != nil && second != late; second = s.queue.next() {
		before++
	}
	if second != late || before != 0 {
		t.Errorf("what a stream missed waits for %d others", before)
	}
	s.SetProxy("late", 3, clusters(t, "a", "b"), nil)
	for before = 0; s.queue.next() != late; before++ {
	}
	if before > 1 {
		t.Errorf("another configuration waits for %d of %d others with endpoints", before, others)
	}
}
