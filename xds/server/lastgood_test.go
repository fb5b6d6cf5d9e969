package server

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// refusedListener is one that Envoy refuses: its filter is of no kind that it knows.
func refusedListener(t *testing.T, name string, port uint32) *xds.Resource {
	return res(t, xds.TypeListener, name, &listenerv3.Listener{Name: name, Address: address(port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{Name: "nobody.knows.it"}}}}})
}

// TestRefusedListenerLeavesTheLastGoodOneServing refuses a listener together with the route and the cluster that the last
// good one needs: these stay, and the cluster's endpoints follow.
func TestRefusedListenerLeavesTheLastGoodOneServing(t *testing.T) {
	for _, apiType := range apiTypes {
		t.Run(apiType, func(t *testing.T) { refuseListener(t, apiType) })
	}
}

func refuseListener(t *testing.T, apiType string) {
	one, two, moved := backend(t, "one"), backend(t, "two"), backend(t, "moved")
	s, watch, adsPort := serve(t)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	port, otherPort := freePort(t), freePort(t)
	s.SetEndpoints(1, map[string]*xds.Resource{"one": endpointAt(t, "one", one), "two": endpointAt(t, "two", two)})
	s.SetProxy("p", 1, &xds.Resources{Listeners: []*xds.Resource{httpListener(t, "in", "r1", port)},
		Clusters: []*xds.Resource{adsCluster(t, "one")}, Routes: []*xds.Resource{routeTo(t, "r1", "one")}}, nil)
	startEnvoy(t, "p", apiType, adsPort)
	watch.await(t, s, "p", "revision 1", func(st Status) bool { return st.Acked == 1 })
	if got := fetch(t, client, port); got != "one" {
		t.Fatalf("answer %q", got)
	}

	s.SetProxy("p", 2, &xds.Resources{
		Listeners: []*xds.Resource{refusedListener(t, "in", port), httpListener(t, "other", "r2", otherPort)},
		Clusters:  []*xds.Resource{adsCluster(t, "two")}, Routes: []*xds.Resource{routeTo(t, "r2", "two")}}, nil)
	st := watch.await(t, s, "p", "the refusal", func(st Status) bool { return len(st.Nacks) == 1 })
	if n := st.Nacks[0]; n.TypeURL != xds.TypeListener || fmt.Sprint(n.Names) != "[in]" || !strings.Contains(n.Message, "nobody.knows.it") ||
		st.Acked != 1 {
		t.Fatalf("status %+v", st)
	}
	// The good listener beside the bad one serves, and the last good one still does, on connections old and new.
	eventually(t, "the good listener beside the bad one", func() bool {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", otherPort), time.Second)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return fetch(t, client, otherPort) == "two"
	})
	for range 20 {
		if got := fetch(t, client, port); got != "one" {
			t.Fatalf("answer %q of the last good listener", got)
		}
		transport.CloseIdleConnections()
	}
	s.Heed(2)
	s.SetEndpoints(2, map[string]*xds.Resource{"one": endpointAt(t, "one", moved)})
	watch.await(t, s, "p", "endpoints 2", func(st Status) bool { return st.EndpointsAcked == 2 })
	eventually(t, "the last good listener's cluster at its new endpoint", func() bool {
		got := fetch(t, client, port)
		if got != "one" && got != "moved" {
			t.Fatalf("answer %q", got)
		}
		return got == "moved"
	})

	// Mended. The connection to the last good listener is served while it drains, by its own route and cluster.
	s.SetProxy("p", 3, &xds.Resources{
		Listeners: []*xds.Resource{httpListener(t, "in", "r2", port), httpListener(t, "other", "r2", otherPort)},
		Clusters:  []*xds.Resource{adsCluster(t, "two")}, Routes: []*xds.Resource{routeTo(t, "r2", "two")}}, nil)
	if st := watch.await(t, s, "p", "revision 3", func(st Status) bool { return st.Acked == 3 }); len(st.Nacks) != 0 {
		t.Fatalf("status %+v", st)
	}
	eventually(t, "the mended listener", func() bool {
		got := fetch(t, client, port)
		if got != "two" && got != "moved" {
			t.Fatalf("answer %q", got)
		}
		transport.CloseIdleConnections()
		return got == "two"
	})
}

// TestListenersTakeOverAddresses renames a listener that keeps its port, has two change places, and moves one.
func TestListenersTakeOverAddresses(t *testing.T) {
	for _, apiType := range apiTypes {
		t.Run(apiType, func(t *testing.T) { takeOverAddresses(t, apiType) })
	}
}

func takeOverAddresses(t *testing.T, apiType string) {
	s, watch, adsPort := serve(t)
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport}
	ports := []uint32{freePort(t), freePort(t), freePort(t)}
	s.SetEndpoints(1, map[string]*xds.Resource{"one": endpointAt(t, "one", backend(t, "one")), "two": endpointAt(t, "two", backend(t, "two"))})
	revision := uint64(0)
	set := func(listeners ...*xds.Resource) {
		t.Helper()
		revision++
		s.SetProxy("p", revision, &xds.Resources{Listeners: listeners,
			Clusters: []*xds.Resource{adsCluster(t, "one"), adsCluster(t, "two")},
			Routes:   []*xds.Resource{routeTo(t, "to-one", "one"), routeTo(t, "to-two", "two")}}, nil)
		if revision == 1 {
			startEnvoy(t, "p", apiType, adsPort)
		}
		st := watch.await(t, s, "p", "a complete or refused revision", func(st Status) bool { return st.Acked == revision || len(st.Nacks) > 0 })
		if len(st.Nacks) > 0 {
			t.Fatalf("refused: %+v", st.Nacks)
		}
	}
	answers := func(port uint32, want string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%q at port %d", want, port), func() bool {
			resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			body := make([]byte, 8)
			n, _ := resp.Body.Read(body)
			return string(body[:n]) == want
		})
	}
	set(httpListener(t, "a", "to-one", ports[0]), httpListener(t, "b", "to-two", ports[1]))
	answers(ports[0], "one")
	answers(ports[1], "two")
	// Another name and another route at the same port.
	set(httpListener(t, "a2", "to-two", ports[0]), httpListener(t, "b", "to-two", ports[1]))
	answers(ports[0], "two")
	// Both change places.
	set(httpListener(t, "a2", "to-one", ports[1]), httpListener(t, "b", "to-two", ports[0]))
	answers(ports[1], "one")
	answers(ports[0], "two")
	// One moves to a free port, in place.
	set(httpListener(t, "a2", "to-one", ports[2]), httpListener(t, "b", "to-two", ports[0]))
	answers(ports[2], "one")
}

// eventually asks until the answer is yes, for what Envoy's workers take over a moment after it acknowledged.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if ok() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}
