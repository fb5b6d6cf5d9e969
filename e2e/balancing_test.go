package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// member is a workload of a service with several, of which each can be made ill.
type member struct {
	name string
	// status is what it answers with, and health what it answers checks with; both begin with 200.
	status, health atomic.Int32
	// requests counts those to any path but /health, and checks those.
	requests, checks atomic.Int64
	// held counts requests to /hold, which wait for release.
	held atomic.Int64

	mu      sync.Mutex
	release chan struct{}
}

// gate is closed once what is held now is let go.
func (m *member) gate() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.release
}

// letGo answers the requests that are held; later ones are held again.
func (m *member) letGo() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.release)
	m.release = make(chan struct{})
}

// startMember runs a workload with its sidecar in the zone whose control plane has address n.
func (f *federation) startMember(zone string, n int, service, name string, host int) *member {
	f.t.Helper()
	m := &member{name: name, release: make(chan struct{})}
	m.status.Store(http.StatusOK)
	m.health.Store(http.StatusOK)
	answer := func(w http.ResponseWriter, status int32) {
		w.Header().Set("X-Workload", m.name)
		w.WriteHeader(int(status))
		if status == http.StatusOK {
			fmt.Fprintf(w, `{"Workload":%q}`, m.name)
		}
	}
	count := func(w http.ResponseWriter, _ *http.Request) { m.requests.Add(1); answer(w, m.status.Load()) }
	f.workload(f.at(host, 8080), name, map[string]http.HandlerFunc{
		"/": count,
		"/hold": func(w http.ResponseWriter, r *http.Request) {
			gate := m.gate()
			m.held.Add(1)
			defer m.held.Add(-1)
			select {
			case <-gate:
			case <-r.Context().Done():
			}
			count(w, r)
		},
		"/health": func(w http.ResponseWriter, _ *http.Request) { m.checks.Add(1); answer(w, m.health.Load()) },
	})
	f.startProxy(zone, n, name, sidecarDocument("default", name, f.host(host), inboundOf(service, "http", f.host(host), 8080, "")), f.serviceToken(service))
	return m
}

// serviceToken is a token for the proxies of a service, issued once, as a proxy may be reading the file.
func (f *federation) serviceToken(service string) string {
	f.t.Helper()
	path := f.path("tokens", "of-"+service)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	return f.token("of-"+service, "dataplane", "--mesh", "default", "--service", service)
}

const toEcho = "      - matches: [{path: {match: PREFIX, value: /}}]\n        backends: [{destination: {kuma.io/service: echo}}]\n"

// startPool runs one zone with a gateway at address 10 that leads to so many echoes, from address 31 on.
func startPool(t *testing.T, n int) (*federation, []*member) {
	t.Helper()
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), gatewayRoute("echo", "", toEcho))
	var members []*member
	for i := range n {
		members = append(members, f.startMember("east", 2, "echo", fmt.Sprintf("echo-%d", i), 31+i))
	}
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.serviceToken("edge"))
	f.settled("east", n+1)
	f.reaches(newClient(t), "http://"+f.at(10, 8080)+"/", names(members)...)
	return f, members
}

func names(members []*member) (out []string) {
	for _, m := range members {
		out = append(out, m.name)
	}
	return out
}

// inARow is how many answers show that an endpoint takes no part: of two that take turns, one in a million runs meets one alone.
const inARow = 20

// reaches waits until requests reach all of some workloads, and so often in a row no other one.
func (f *federation) reaches(client *http.Client, url string, want ...string) {
	f.t.Helper()
	f.await("answers of "+strings.Join(want, " and "), func() error {
		missing := map[string]bool{}
		for _, name := range want {
			missing[name] = true
		}
		for range inARow * len(want) {
			r, a, err := ask(client, "GET", url)
			switch {
			case err != nil:
				return err
			case r.StatusCode != http.StatusOK:
				return fmt.Errorf("status %d", r.StatusCode)
			}
			known := false
			for _, name := range want {
				known = known || name == a.Workload
			}
			if !known {
				return fmt.Errorf("answered by %s", a.Workload)
			}
			delete(missing, a.Workload)
		}
		if len(missing) > 0 {
			return fmt.Errorf("never answered by %v", missing)
		}
		return nil
	})
}

// overloaded tells whether a proxy refused a request as there is too much under way.
func overloaded(r *http.Response) bool {
	return r.StatusCode == http.StatusServiceUnavailable && r.Header.Get("X-Envoy-Overloaded") == "true"
}

// background sends requests at once and gives what comes of them.
func background(client *http.Client, url string, n int) <-chan *http.Response {
	out := make(chan *http.Response, n)
	for range n {
		go func() {
			r, _, err := ask(client, "GET", url)
			if err != nil {
				r = &http.Response{Status: err.Error()}
			}
			out <- r
		}()
	}
	return out
}
