package e2e

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestGatewayRetries has a gateway repeat requests by what the answer says, and elsewhere than where they failed.
func TestGatewayRetries(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), gatewayRoute("echo", "", toEcho),
		balanced("{maglev: {}, hashPolicies: [{header: {name: x-user}}]}"))
	var again, later, ill atomic.Int32
	for i := range 2 {
		host := f.host(31 + i)
		name := fmt.Sprintf("echo-%d", i)
		f.workload(host+":8080", name, map[string]http.HandlerFunc{
			// Two of three attempts ask for another.
			"/again": func(w http.ResponseWriter, _ *http.Request) {
				if again.Add(1)%3 != 0 {
					w.Header().Set("X-Again", "yes")
				}
			},
			// The first of two attempts says how long to wait.
			"/later": func(w http.ResponseWriter, _ *http.Request) {
				if later.Add(1)%2 != 0 {
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			},
			"/ill": func(w http.ResponseWriter, _ *http.Request) {
				if i == 0 {
					ill.Add(1)
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			},
		})
		f.startProxy("east", 2, name, sidecarDocument("default", name, host, inboundOf("echo", "http", host, 8080, "")), f.serviceToken("echo"))
	}
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.serviceToken("edge"))
	f.settled("east", 3)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.answers(client, http.StatusOK, "GET", url("/"))
	retry := func(http string) string {
		return "type: Retry\nmesh: default\nname: echo\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: echo}}]\nconf:\n  http: " + http + "\n"
	}

	t.Run("headers of the answer", func(t *testing.T) {
		f.apply(retry("{numRetries: 2, retryOn: [retriable_headers], retriableHeaders: {x-again: {exact: 'yes'}}, backOff: {baseInterval: 1ms}}"))
		f.await("an answer that asks for nothing", func() error {
			r, _, err := ask(client, "GET", url("/again"))
			if err == nil && r.Header.Get("X-Again") != "" {
				err = fmt.Errorf("it asks for another attempt")
			}
			return err
		})
		for again.Load()%3 != 0 {
			if _, _, err := ask(client, "GET", url("/again")); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			before := again.Load()
			r, _, err := ask(client, "GET", url("/again"))
			if err != nil || r.Header.Get("X-Again") != "" || again.Load()-before != 3 {
				t.Errorf("%v %v after %d attempts, want three", r, err, again.Load()-before)
			}
		}
	})

	t.Run("as long as the answer asks for", func(t *testing.T) {
		f.apply(retry("{numRetries: 1, retryOn: [5xx], backOff: {baseInterval: 1ms}, rateLimitedBackOff: {resetHeaders: [{name: Retry-After, format: SECONDS}]}}"))
		f.await("a wait", func() error {
			if later.Load()%2 != 0 {
				later.Add(1)
			}
			began := time.Now()
			r, _, err := ask(client, "GET", url("/later"))
			if err == nil && r.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", r.StatusCode)
			}
			if took := time.Since(began); err == nil && took < 900*time.Millisecond {
				err = fmt.Errorf("it waited for %s", took)
			}
			return err
		})
	})

	t.Run("elsewhere", func(t *testing.T) {
		const users = 20
		failed := func() (n int) {
			for i := range users {
				r, _, err := ask(client, "GET", url("/ill"), "X-User", fmt.Sprint(i))
				if err != nil {
					t.Fatal(err)
				}
				if r.StatusCode != http.StatusOK {
					n++
				}
			}
			return n
		}
		// A user's endpoint is the same at each attempt.
		f.apply(retry("{numRetries: 1, retryOn: [5xx], backOff: {baseInterval: 1ms}}"))
		f.await("two attempts at one endpoint", func() error {
			before := ill.Load()
			if n := failed(); n == 0 || n == users || int(ill.Load()-before) != 2*n {
				return fmt.Errorf("%d of %d users failed after %d attempts", n, users, ill.Load()-before)
			}
			return nil
		})
		f.apply(retry("{numRetries: 1, retryOn: [5xx], backOff: {baseInterval: 1ms}, avoidPreviousHosts: true}"))
		f.await("another endpoint", func() error {
			if n := failed(); n > 0 {
				return fmt.Errorf("%d of %d users failed", n, users)
			}
			return nil
		})
		if n := failed(); n > 0 {
			t.Errorf("%d of %d users failed", n, users)
		}
	})
}
