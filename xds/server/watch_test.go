package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/zoneforge/zoneforge/xds"
)

func newServer(t *testing.T) *Server {
	t.Helper()
	s, err := New(Config{Authenticator: anyone{}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// clusters are resources with a cluster a name, whose endpoints have the same name.
func clusters(t *testing.T, names ...string) *xds.Resources {
	t.Helper()
	out := &xds.Resources{}
	for _, name := range names {
		out.Clusters = append(out.Clusters, edsCluster(t, name, ""))
	}
	return out
}

// attached is a stream that no worker touches.
func attached(s *Server, id ProxyID) *stream {
	st := &stream{server: s, send: func(*response) error { return nil }, refuse: func(error) {}}
	st.queued.Store(true)
	s.open(st)
	s.attach(st, id, false)
	st.deliver(st.inbox.take(), s.endpointRev.Load())
	st.publish()
	return st
}

// The work of a change is that of the streams that ask for it, whatever number there is of others.
func TestOnlyStreamsThatAskAreTold(t *testing.T) {
	for _, others := range []int{10, 100} {
		s := newServer(t)
		var streams []*stream
		for i := range others {
			id := ProxyID(fmt.Sprint("p", i))
			s.SetProxy(id, 1, clusters(t, fmt.Sprint("c", i)), nil)
			streams = append(streams, attached(s, id))
		}
		changed := s.SetEndpoints(1, map[string]*xds.Resource{"c3": load(t, "c3", 0), "nobody": load(t, "nobody", 0)})
		if !slices.Equal(changed, []string{"c3", "nobody"}) {
			t.Errorf("changed %q", changed)
		}
		for i, st := range streams {
			if st.inbox.empty() == (i == 3) {
				t.Errorf("with %d streams, whether p%d is told of c3: %v", others, i, i != 3)
			}
		}
		if again := s.SetEndpoints(2, map[string]*xds.Resource{"c3": load(t, "c3", 0)}); len(again) > 0 || s.Work().Told != 1 {
			t.Errorf("what is as it was is told as %q", again)
		}
		// For all others nothing is outstanding.
		if got, _ := s.Status("p5"); got.EndpointsAcked != 2 {
			t.Errorf("p5 is at endpoints %d, want 2", got.EndpointsAcked)
		}
		if got, _ := s.Status("p3"); got.EndpointsAcked == 2 {
			t.Error("p3 has all before it was given anything")
		}
		for i := range streams {
			s.detach(streams[i])
		}
		if len(s.watchers.by)+len(s.watchers.all) > 0 {
			t.Errorf("streams that ended are still told of %q", slices.Sorted(maps.Keys(s.watchers.by)))
		}
	}
}

// A cluster that should go stays current until the proxy has given it up, and is of no concern then.
func TestStreamsWatchWhatTheirProxyMayStillHave(t *testing.T) {
	s := newServer(t)
	s.SetEndpoints(1, map[string]*xds.Resource{"a": load(t, "a", 0), "b": load(t, "b", 0)})
	s.SetProxy("p", 1, clusters(t, "a", "b"), nil)
	st := attached(s, "p")
	nonces := map[string]string{}
	send := func(typeURL string, names ...string) {
		st.deliver(st.inbox.take(), s.endpointRev.Load())
		st.session.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names, ResponseNonce: nonces[typeURL]})
		for _, r := range st.session.Ready() {
			nonces[r.typeURL] = r.nonce
		}
		st.publish()
		s.rewatch("p", st)
	}
	watched := func() []string {
		return slices.Sorted(maps.Keys(s.watchers.by))
	}
	send(xds.TypeCluster)
	send(xds.TypeListener)
	send(xds.TypeEndpoint, "a", "b")
	send(xds.TypeCluster)
	send(xds.TypeEndpoint)
	send(xds.TypeListener)

	s.SetProxy("p", 2, clusters(t, "b"), nil)
	if got := watched(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("before the stream has seen it, it watches %q", got)
	}
	s.rewatch("p", st)
	if got := watched(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("before the stream has seen it, it watches %q", got)
	}
	st.deliver(st.inbox.take(), s.endpointRev.Load())
	if len(st.session.kept) != 1 {
		t.Fatalf("kept %v", st.session.kept)
	}
	for _, r := range st.session.Ready() {
		nonces[r.typeURL] = r.nonce
	}
	s.rewatch("p", st)
	if got := watched(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("while the proxy has the cluster, it watches %q", got)
	}
	send(xds.TypeCluster)
	if got := watched(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("without the cluster, it watches %q", got)
	}
	s.SetProxy("p", 3, clusters(t, "b", "c"), nil)
	if got := watched(); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("with another cluster, it watches %q", got)
	}
	s.RemoveProxy("p")
	if got := watched(); len(got) > 0 {
		t.Errorf("a proxy that was removed watches %q", got)
	}
}

// A stream that ends while a request is looked at ends for its proxy too: it would be an endpoint for ever.
func TestStreamEndsWhileARequestIsLookedAt(t *testing.T) {
	gate := newGate()
	s, err := New(Config{Authenticator: gate})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		ctx, cancel := context.WithCancel(metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer good")))
		p := &pipe{ctx: grpc.NewContextWithServerTransportStream(ctx, inProcess{}), requests: make(chan *discoveryv3.DeltaDiscoveryRequest)}
		ended := make(chan error, 1)
		go func() { ended <- s.DeltaAggregatedResources(p) }()
		p.requests <- &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p"}, TypeUrl: xds.TypeCluster}
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("nobody is told that the stream has ended")
		}
		<-gate.left
	}
	if n := len(s.streams); n > 0 || gate.connected["p"] != 0 {
		t.Errorf("%d streams are left, and the proxy is connected %d times", n, gate.connected["p"])
	}
}
