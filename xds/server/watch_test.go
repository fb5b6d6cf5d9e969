package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

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

func (st *stream) woken() bool {
	select {
	case <-st.wake:
		return true
	default:
		return false
	}
}

// The work of a change is that of the streams that ask for it, whatever number there is of others.
func TestOnlyStreamsThatAskAreTold(t *testing.T) {
	for _, others := range []int{10, 100} {
		s := newServer(t)
		var streams []*stream
		for i := range others {
			id := ProxyID(fmt.Sprint("p", i))
			s.SetProxy(id, 1, clusters(t, fmt.Sprint("c", i)), nil)
			streams = append(streams, s.attach(id, false))
		}
		changed := s.SetEndpoints(1, map[string]*xds.Resource{"c3": load(t, "c3", 0), "nobody": load(t, "nobody", 0)})
		if !slices.Equal(changed, []string{"c3", "nobody"}) {
			t.Errorf("changed %q", changed)
		}
		for i, st := range streams {
			if st.woken() != (i == 3) {
				t.Errorf("with %d streams, whether p%d is told of c3: %v", others, i, i != 3)
			}
		}
		if again := s.SetEndpoints(2, map[string]*xds.Resource{"c3": load(t, "c3", 0)}); len(again) > 0 || streams[3].woken() {
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
			s.detach(ProxyID(fmt.Sprint("p", i)), streams[i])
		}
		if len(s.watchers) > 0 {
			t.Errorf("streams that ended are still told of %q", slices.Sorted(maps.Keys(s.watchers)))
		}
	}
}

// A cluster that should go stays current until the proxy has given it up, and is of no concern then.
func TestStreamsWatchWhatTheirProxyMayStillHave(t *testing.T) {
	s := newServer(t)
	s.SetEndpoints(1, map[string]*xds.Resource{"a": load(t, "a", 0), "b": load(t, "b", 0)})
	s.SetProxy("p", 1, clusters(t, "a", "b"), nil)
	st := s.attach("p", false)
	nonces := map[string]string{}
	send := func(typeURL string, names ...string) {
		st.deliver(s.endpointRev.Load())
		st.session.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names, ResponseNonce: nonces[typeURL]})
		for _, r := range st.session.Ready() {
			nonces[r.typeURL] = r.nonce
		}
		st.publish()
		s.rewatch("p", st)
	}
	watched := func() []string {
		return slices.Sorted(maps.Keys(s.watchers))
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
	st.deliver(s.endpointRev.Load())
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

// A stream that ends while a request waits to be looked at ends for its proxy too: it would be an endpoint for ever.
func TestStreamEndsWhileARequestWaits(t *testing.T) {
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		p := &pipe{ctx: ctx, requests: make(chan *discoveryv3.DeltaDiscoveryRequest)}
		_, received := receive(ctx, p)
		p.requests <- &discoveryv3.DeltaDiscoveryRequest{}
		cancel()
		select {
		case <-received:
		case <-time.After(10 * time.Second):
			t.Fatal("nobody is told that the stream has ended")
		}
	}
}
