package server

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"testing"

	"google.golang.org/grpc"

	"github.com/zoneforge/zoneforge/xds"
)

// TestDrainingListenerKeepsItsCluster removes a listener with its route and cluster while a client has a connection to it:
// Envoy drains it for minutes, and what comes on the connection meanwhile is still answered.
func TestDrainingListenerKeepsItsCluster(t *testing.T) {
	for _, apiType := range apiTypes {
		t.Run(apiType, func(t *testing.T) {
			s, watch, adsPort := serve(t)
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			client := &http.Client{Transport: transport}
			port := freePort(t)
			s.SetEndpoints(1, map[string]*xds.Resource{"one": endpointAt(t, "one", backend(t, "one"))})
			s.SetProxy("p", 1, &xds.Resources{Listeners: []*xds.Resource{httpListener(t, "in", "r", port)},
				Clusters: []*xds.Resource{adsCluster(t, "one")}, Routes: []*xds.Resource{routeTo(t, "r", "one")}}, nil)
			startEnvoy(t, "p", apiType, adsPort)
			watch.await(t, s, "p", "revision 1", func(st Status) bool { return st.Acked == 1 })
			if got := fetch(t, client, port); got != "one" {
				t.Fatalf("answer %q", got)
			}
			s.SetProxy("p", 2, nil, nil)
			watch.await(t, s, "p", "revision 2", func(st Status) bool { return st.Acked == 2 })
			// One more round trip with the proxy, before which a removal of the cluster would have been sent.
			s.SetProxy("p", 3, &xds.Resources{Clusters: []*xds.Resource{adsCluster(t, "two")}}, nil)
			s.SetEndpoints(2, map[string]*xds.Resource{"two": endpointAt(t, "two", backend(t, "two"))})
			watch.await(t, s, "p", "revision 3", func(st Status) bool { return st.Acked == 3 })
			if got := fetch(t, client, port); got != "one" {
				t.Fatalf("answer %q on the connection that drains", got)
			}
		})
	}
}

// host serves ADS on one port, by one server after the other.
type host struct {
	t       *testing.T
	address string
	grpc    *grpc.Server
	served  chan struct{}
}

func (h *host) start(s *Server) {
	h.t.Helper()
	lis, err := net.Listen("tcp", h.address)
	if err != nil {
		h.t.Fatal(err)
	}
	h.grpc, h.served = grpc.NewServer(Option()), make(chan struct{})
	s.Register(h.grpc)
	go func() {
		defer close(h.served)
		_ = h.grpc.Serve(lis)
	}()
}

func (h *host) stop() {
	h.grpc.Stop()
	<-h.served
}

// TestNoRequestIsLostWhenTheStreamBreaks breaks the stream and moves the route to another cluster before Envoy is back. It
// comes back to the same server; and, in the variant in which it says what it has, to one that knows nothing of it.
func TestNoRequestIsLostWhenTheStreamBreaks(t *testing.T) {
	t.Run("GRPC", func(t *testing.T) { breakStream(t, "GRPC", false) })
	t.Run("DELTA_GRPC", func(t *testing.T) { breakStream(t, "DELTA_GRPC", false) })
	t.Run("DELTA_GRPC/new server", func(t *testing.T) { breakStream(t, "DELTA_GRPC", true) })
}

func breakStream(t *testing.T, apiType string, newServer bool) {
	const breaks = 4
	watch := newWatcher()
	create := func() *Server {
		s, err := New(Config{Authenticator: newGate(), Observer: watch})
		if err != nil {
			t.Fatal(err)
		}
		for i := range breaks + 1 {
			name := fmt.Sprint("c", i+1)
			s.SetEndpoints(1, map[string]*xds.Resource{name: endpointAt(t, name, backend(t, strconv.Itoa(i+1)))})
		}
		return s
	}
	s := create()
	adsPort := freePort(t)
	h := &host{t: t, address: fmt.Sprintf("127.0.0.1:%d", adsPort)}
	h.start(s)
	t.Cleanup(func() { h.stop() })
	port := freePort(t)
	listeners := []*xds.Resource{httpListener(t, "in", "r", port)}
	set := func(revision uint64) {
		name := fmt.Sprint("c", revision)
		s.SetProxy("p", revision, &xds.Resources{Listeners: listeners, Clusters: []*xds.Resource{adsCluster(t, name)},
			Routes: []*xds.Resource{revisionRoute(t, "r", name, revision)}}, nil)
	}
	set(1)
	startEnvoy(t, "p", apiType, adsPort)
	watch.await(t, s, "p", "revision 1", func(st Status) bool { return st.Acked == 1 })
	l := newTraffic(func(revision uint64) string { return strconv.FormatUint(revision, 10) })
	l.start(t, port)
	for revision := uint64(2); revision <= breaks+1; revision++ {
		h.stop()
		if newServer {
			s = create()
		}
		l.wanted.Store(revision)
		set(revision)
		h.start(s)
		watch.await(t, s, "p", fmt.Sprintf("revision %d", revision), func(st Status) bool { return st.Acked == revision })
		l.raise(revision)
		l.check(t)
	}
	l.end(t)
}
