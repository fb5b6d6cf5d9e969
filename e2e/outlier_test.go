package e2e

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestOutlierDetectors leaves endpoints out by what the rarer detectors look for, and by nothing else.
func TestOutlierDetectors(t *testing.T) {
	f, members := startPool(t, 3)
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/"
	const out = "    interval: 500ms\n    baseEjectionTime: 1s\n    maxEjectionPercent: 100\n"
	well := func() {
		members[0].status.Store(http.StatusOK)
		f.reaches(client, url, names(members)...)
	}
	// kept sends requests while a member fails, which takes its part all the same.
	kept := func(t *testing.T) {
		t.Helper()
		sent := 0
		before := members[0].requests.Load()
		// As long as three looks at who fails take.
		for began := time.Now(); sent < 200 || time.Since(began) < 1600*time.Millisecond; sent++ {
			if _, _, err := ask(client, "GET", url); err != nil {
				t.Fatal(err)
			}
		}
		// A third of them, within bounds that one in a million runs leaves.
		if n := members[0].requests.Load() - before; n < int64(sent/6) {
			t.Errorf("a member was given %d of %d requests, though no detector looks for what it does", n, sent)
		}
	}

	t.Run("share of failures", func(t *testing.T) {
		f.apply(breakerHead + out + "    detectors: {failure: {requestVolume: 1, minimumHosts: 3, threshold: 40}}\n")
		well()
		members[0].status.Store(http.StatusInternalServerError)
		f.reaches(client, url, members[1].name, members[2].name)
		well()
	})
	t.Run("too few endpoints to compare", func(t *testing.T) {
		f.apply(breakerHead + out + "    detectors: {failure: {requestVolume: 1, minimumHosts: 4, threshold: 40}}\n")
		well()
		members[0].status.Store(http.StatusInternalServerError)
		kept(t)
		well()
	})
	t.Run("standard deviation", func(t *testing.T) {
		// Of rates 0, 100 and 100 the mean is 67 and the deviation 47.
		f.apply(breakerHead + out + "    detectors: {standardDeviation: {requestVolume: 1, minimumHosts: 3, factor: 1.2}}\n")
		well()
		members[0].status.Store(http.StatusInternalServerError)
		f.reaches(client, url, members[1].name, members[2].name)
		well()
	})
	t.Run("a deviation that is allowed", func(t *testing.T) {
		f.apply(breakerHead + out + "    detectors: {standardDeviation: {requestVolume: 1, minimumHosts: 3, factor: 1.9}}\n")
		well()
		members[0].status.Store(http.StatusInternalServerError)
		kept(t)
		well()
	})
	t.Run("errors of the gateway", func(t *testing.T) {
		f.apply(breakerHead + out + "    detectors: {gatewayErrors: {consecutive: 3}}\n")
		well()
		members[0].status.Store(http.StatusInternalServerError)
		kept(t)
		members[0].status.Store(http.StatusServiceUnavailable)
		f.reaches(client, url, members[1].name, members[2].name)
		well()
	})

	t.Run("errors on the way", func(t *testing.T) {
		// One of two addresses takes no connections: a port that is kept and not listened on.
		closed, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(f.host(51))})
		if err != nil {
			t.Fatal(err)
		}
		port := closed.Addr().(*net.TCPAddr).Port
		closed.Close()
		f.workload(f.at(50, 8081), "outside", map[string]http.HandlerFunc{"/500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }})
		address := func(name string, n, port int) string {
			return fmt.Sprintf("type: ExternalService\nmesh: default\nname: %s\ntags: {kuma.io/service: outside, kuma.io/protocol: http}\nnetworking: {address: '%s'}\n", name, f.at(n, port))
		}
		breaker := func(detector string) string {
			return "type: CircuitBreaker\nmesh: default\nname: outside\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: outside}}]\n" +
				"conf: {interval: 500ms, baseEjectionTime: 200s, maxEjectionPercent: 100, splitExternalAndLocalErrors: true, detectors: {" + detector + "}}\n"
		}
		f.apply(address("lives", 50, 8081), address("dead", 51, port), breaker("totalErrors: {consecutive: 3}"),
			gatewayRoute("outside", "", "      - matches: [{path: {match: PREFIX, value: /outside}}]\n        filters: [{rewrite: {replacePrefixMatch: /}}]\n        backends: [{destination: {kuma.io/service: outside}}]\n"))
		f.answers(client, http.StatusOK, "GET", "http://"+f.at(10, 8080)+"/outside")
		// Told apart, they are no errors of the service.
		failed := 0
		for range 60 {
			r, _, err := ask(client, "GET", "http://"+f.at(10, 8080)+"/outside")
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != http.StatusOK {
				failed++
			}
		}
		if failed < 10 {
			t.Errorf("%d of 60 requests failed, of which half meet an address that takes no connections", failed)
		}
		f.apply(breaker("localErrors: {consecutive: 2}"))
		f.await("answers of the other address alone", func() error { return allOK(client, 2*inARow, "http://"+f.at(10, 8080)+"/outside") })
		// What the service itself answers counts for another detector.
		for range 20 {
			if r, _, err := ask(client, "GET", "http://"+f.at(10, 8080)+"/outside/500"); err != nil || r.StatusCode != http.StatusInternalServerError {
				t.Fatalf("%v %v", r, err)
			}
		}
		if err := allOK(client, 2*inARow, "http://"+f.at(10, 8080)+"/outside"); err != nil {
			t.Errorf("errors of the service put it out: %v", err)
		}
	})
}
