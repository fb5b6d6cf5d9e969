package server

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/zoneforge/zoneforge/e2e/goroutines"
	"github.com/zoneforge/zoneforge/xds"
)

// patience is how long tests wait for what happens at once on a machine that does nothing else.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { goroutines.Verify(m) }

// gate accepts the token "good" and counts who is connected.
type gate struct {
	mu        sync.Mutex
	connected map[ProxyID]int
	left      chan ProxyID
}

func newGate() *gate { return &gate{connected: map[ProxyID]int{}, left: make(chan ProxyID, 16)} }

func (g *gate) Connect(_ context.Context, node *corev3.Node, token string) (ProxyID, error) {
	if token != "good" {
		return "", errors.New("token is not known: ask for a new one")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	id := ProxyID(node.GetId())
	g.connected[id]++
	return id, nil
}

func (g *gate) Disconnect(id ProxyID) {
	g.mu.Lock()
	g.connected[id]--
	g.mu.Unlock()
	g.left <- id
}

// watcher wakes those who wait for a condition each time a proxy makes progress.
type watcher struct{ moved chan struct{} }

func newWatcher() *watcher { return &watcher{moved: make(chan struct{}, 1)} }

func (w *watcher) OnProgress(ProxyID, Progress) {
	select {
	case w.moved <- struct{}{}:
	default:
	}
}

// await blocks until the proxy's status satisfies the condition.
func (w *watcher) await(t *testing.T, s *Server, id ProxyID, what string, ok func(Status) bool) Status {
	t.Helper()
	deadline := time.After(patience)
	for {
		if st, known := s.Status(id); known && ok(st) {
			return st
		}
		select {
		case <-w.moved:
		case <-deadline:
			st, _ := s.Status(id)
			t.Fatalf("waited in vain for %s: %+v", what, st)
		}
	}
}

func dial(t *testing.T, s *Server) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	g := grpc.NewServer(Option(), grpc.InTapHandle(Tap))
	s.Register(g)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(lis)
	}()
	conn, err := grpc.NewClient("passthrough:///ads", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		g.Stop()
		<-done
	})
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

func open(t *testing.T, c discoveryv3.AggregatedDiscoveryServiceClient, token string) discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	stream, err := c.DeltaAggregatedResources(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestUnknownTokenIsTurnedAwayWithTheReason(t *testing.T) {
	s, err := New(Config{Authenticator: newGate()})
	if err != nil {
		t.Fatal(err)
	}
	stream := open(t, dial(t, s), "bad")
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p"}, TypeUrl: xds.TypeCluster})
	_, err = stream.Recv()
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "ask for a new one") {
		t.Fatalf("got %v", err)
	}
}

// door lets those in whom the gate lets in, and keeps what they came with.
type door struct {
	*gate
	came chan context.Context
}

func (d door) Connect(ctx context.Context, node *corev3.Node, token string) (ProxyID, error) {
	d.came <- ctx
	return d.gate.Connect(ctx, node, token)
}

func TestAStreamForgetsItsToken(t *testing.T) {
	d := door{newGate(), make(chan context.Context, 1)}
	s, err := New(Config{Authenticator: d})
	if err != nil {
		t.Fatal(err)
	}
	s.SetProxy("p", 1, nil, nil)
	stream := open(t, dial(t, s), "good")
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p"}, TypeUrl: xds.TypeCluster}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if md, _ := metadata.FromIncomingContext(<-d.came); len(md) > 0 {
		t.Errorf("the context of a stream that is served still has %d fields", len(md))
	}
}

func TestNewNeedsAnAuthenticator(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Fatal("no error")
	}
}

func TestStreamFromConnectToDisconnect(t *testing.T) {
	gate, watch := newGate(), newWatcher()
	s, err := New(Config{Authenticator: gate, Observer: watch})
	if err != nil {
		t.Fatal(err)
	}
	client := dial(t, s)
	stream := open(t, client, "good")
	send := func(req *discoveryv3.DeltaDiscoveryRequest) {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
	}
	recv := func(typeURL string, names ...string) {
		t.Helper()
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range resp.GetResources() {
			got = append(got, r.GetName())
		}
		if resp.GetTypeUrl() != typeURL || strings.Join(got, " ") != strings.Join(names, " ") {
			t.Fatalf("got %s %v, want %s %v", resp.GetTypeUrl(), got, typeURL, names)
		}
		send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: resp.GetNonce()})
	}
	send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p"}, TypeUrl: xds.TypeCluster})
	watch.await(t, s, "p", "the stream", func(st Status) bool { return st.Connected })
	s.SetEndpoints(1, map[string]*xds.Resource{"a": load(t, "a", 0)})
	rs := &xds.Resources{
		Clusters: []*xds.Resource{edsCluster(t, "a", "")}, Listeners: []*xds.Resource{plainListener(t, "in", "")},
	}
	s.SetProxy("p", 7, rs, nil)
	recv(xds.TypeCluster, "a")
	send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeEndpoint, ResourceNamesSubscribe: []string{"a"}})
	recv(xds.TypeEndpoint, "a")
	send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeListener})
	recv(xds.TypeListener, "in")
	watch.await(t, s, "p", "revision 7", func(st Status) bool { return st.Acked == 7 && st.EndpointsAcked == 1 })
	s.Heed(2)
	s.SetEndpoints(2, map[string]*xds.Resource{"a": load(t, "a", 1), "b": load(t, "b", 0)})
	recv(xds.TypeEndpoint, "a")
	watch.await(t, s, "p", "endpoints 2", func(st Status) bool { return st.EndpointsAcked == 2 })

	// The proxy connects again before the old stream is seen to end: the newer one wins.
	second := open(t, client, "good")
	if err := second.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p"}, TypeUrl: xds.TypeCluster}); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Aborted {
		t.Fatalf("the older stream got %v", err)
	}
	if id := <-gate.left; id != "p" {
		t.Fatalf("disconnected %q", id)
	}
	if st, _ := s.Status("p"); !st.Connected {
		t.Fatal("the end of the older stream disconnected the newer")
	}
	if err := second.CloseSend(); err != nil {
		t.Fatal(err)
	}
	<-gate.left
	if st, _ := s.Status("p"); st.Connected || gate.connected["p"] != 0 {
		t.Fatalf("still connected: %+v", st)
	}
}
