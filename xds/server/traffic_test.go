package server

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/xds"
)

const revisionHeader = "x-revision"

// revisionRoute sends all to a cluster and says in the answer by which revision it did. It gives up no request, as some are held.
func revisionRoute(t *testing.T, name, cluster string, revision uint64) *xds.Resource {
	return res(t, xds.TypeRoute, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}, Timeout: durationpb.New(0)}},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{{
				Header: &corev3.HeaderValue{Key: revisionHeader, Value: strconv.FormatUint(revision, 10)}}},
		}},
	}}})
}

// traffic is requests without a pause, each of them explained by a configuration that may have been in force meanwhile.
type traffic struct {
	// wanted, reached and seen are the newest revisions that were set, that were acknowledged and that a request was answered by.
	wanted, reached, seen atomic.Uint64
	// answer is what the backend of a revision says.
	answer func(revision uint64) string
	// moved is told whenever reached is raised, and with each answer.
	moved *sync.Cond

	stop     chan struct{}
	once     sync.Once
	running  sync.WaitGroup
	requests atomic.Int64
	failed   atomic.Bool
	failures chan string
}

const (
	trafficClients  = 8
	trafficRequests = 200 // at least
)

// newTraffic sends nothing yet, so that backends can be made that know it.
func newTraffic(answer func(revision uint64) string) *traffic {
	l := &traffic{answer: answer, moved: sync.NewCond(&sync.Mutex{}), stop: make(chan struct{}), failures: make(chan string, trafficClients+1)}
	l.wanted.Store(1)
	l.reached.Store(1)
	return l
}

func (l *traffic) start(t *testing.T, port uint32) {
	for i := range trafficClients {
		l.running.Go(func() {
			transport := &http.Transport{MaxIdleConnsPerHost: 1}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: patience}
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				if wrong := l.request(client, port, i == 0); wrong != "" {
					l.failures <- wrong
					l.failed.Store(true)
				} else {
					l.requests.Add(1)
				}
				l.moved.L.Lock()
				l.moved.Broadcast()
				l.moved.L.Unlock()
				if l.failed.Load() {
					return
				}
			}
		})
	}
	t.Cleanup(l.halt)
}

// raise says that a revision was acknowledged.
func (l *traffic) raise(revision uint64) {
	l.moved.L.Lock()
	defer l.moved.L.Unlock()
	l.reached.Store(revision)
	l.moved.Broadcast()
}

// hold waits until several more revisions were acknowledged, or the end.
func (l *traffic) hold() {
	l.moved.L.Lock()
	defer l.moved.L.Unlock()
	for until := l.reached.Load() + 5; l.reached.Load() < until; {
		l.moved.Wait()
	}
}

// request returns what is wrong with the answer, "" for nothing. A held one is answered when its cluster is long gone.
func (l *traffic) request(client *http.Client, port uint32, held bool) string {
	path := ""
	if held {
		path = "hold"
	}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/%s", port, path))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	after := l.wanted.Load()
	revision, err := strconv.ParseUint(resp.Header.Get(revisionHeader), 10, 64)
	switch {
	case resp.StatusCode != http.StatusOK || err != nil:
		return fmt.Sprintf("at revision %d: status %d, header %v, body %q", after, resp.StatusCode, resp.Header, body)
	// An older one may answer: Envoy acknowledges before its workers have taken a change over.
	case revision > after:
		return fmt.Sprintf("at revision %d: answered by %d", after, revision)
	case string(body) != l.answer(revision):
		return fmt.Sprintf("revision %d: answer %q, want %q", revision, body, l.answer(revision))
	}
	for seen := l.seen.Load(); seen < revision && !l.seen.CompareAndSwap(seen, revision); seen = l.seen.Load() {
	}
	return ""
}

// check fails the test for a request that went wrong so far.
func (l *traffic) check(t *testing.T) {
	t.Helper()
	select {
	case wrong := <-l.failures:
		t.Fatal(wrong)
	default:
	}
}

// halt ends the clients and lets held requests go.
func (l *traffic) halt() {
	l.once.Do(func() { close(l.stop) })
	l.raise(math.MaxUint64)
	l.running.Wait()
}

// end waits until requests are answered by the newest revision, and there were enough.
func (l *traffic) end(t *testing.T) {
	t.Helper()
	late := time.AfterFunc(patience, func() {
		l.moved.L.Lock()
		defer l.moved.L.Unlock()
		l.failures <- fmt.Sprintf("%d requests were answered, by revision %d of %d at last", l.requests.Load(), l.seen.Load(), l.wanted.Load())
		l.failed.Store(true)
		l.moved.Broadcast()
	})
	defer late.Stop()
	l.moved.L.Lock()
	for !l.failed.Load() && (l.seen.Load() < l.wanted.Load() || l.requests.Load() < trafficRequests) {
		l.moved.Wait()
	}
	l.moved.L.Unlock()
	l.halt()
	l.check(t)
	t.Logf("%d requests", l.requests.Load())
}

// TestNoRequestIsLost moves a route to a new cluster 200 times, each time removing the one before, under load; in between
// clusters change under their name, and endpoints move.
func TestNoRequestIsLost(t *testing.T) {
	for _, apiType := range apiTypes {
		t.Run(apiType, func(t *testing.T) { noRequestIsLost(t, apiType) })
	}
}

func noRequestIsLost(t *testing.T, apiType string) {
	const changes = 200
	var backends []*httptest.Server
	// Each cluster serves two revisions: first under a new name, then changed under the same.
	clusterOf := func(revision uint64) string { return fmt.Sprintf("c%d", revision/2) }
	backendOf := func(revision uint64) int { return int(revision/2) % 4 }
	l := newTraffic(func(revision uint64) string { return strconv.Itoa(backendOf(revision)) })
	for i := range 4 {
		b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hold" {
				l.hold()
			}
			_, _ = io.WriteString(w, strconv.Itoa(i))
		}))
		t.Cleanup(b.Close)
		backends = append(backends, b)
	}
	s, watch, adsPort := serve(t)
	port := freePort(t)
	listeners := []*xds.Resource{httpListener(t, "in", "r", port)}
	set := func(revision uint64) {
		name := clusterOf(revision)
		s.SetEndpoints(revision, map[string]*xds.Resource{name: endpointAt(t, name, backends[backendOf(revision)])})
		s.SetProxy("p", revision, &xds.Resources{Listeners: listeners,
			Clusters: []*xds.Resource{timedCluster(t, name, time.Duration(1+revision%3)*time.Second)},
			Routes:   []*xds.Resource{revisionRoute(t, "r", name, revision)}}, nil)
	}
	reach := func(revision uint64) {
		t.Helper()
		watch.await(t, s, "p", fmt.Sprintf("revision %d", revision), func(st Status) bool { return st.Acked == revision })
	}
	set(1)
	startEnvoy(t, "p", apiType, adsPort)
	reach(1)
	l.start(t, port)
	for revision := uint64(2); revision <= changes+1; revision++ {
		l.wanted.Store(revision)
		set(revision)
		reach(revision)
		l.raise(revision)
		l.check(t)
		if revision > 4 {
			// What no proxy refers to any more goes from the shared endpoints, too.
			s.SetEndpoints(revision, map[string]*xds.Resource{clusterOf(revision - 4): nil})
		}
	}
	l.end(t)
}
