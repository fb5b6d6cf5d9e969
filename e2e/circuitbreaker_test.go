package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

const breakerHead = "apiVersion: kuma.io/v1alpha1\nkind: CircuitBreaker\nmetadata:\n  name: echo\n  namespace: kuma-system\nspec:\n  mesh: default\n" +
	"  selectors:\n    - match:\n        kuma.io/service: echo\n  conf:\n"

// TestCircuitBreaker has a gateway leave an endpoint alone that fails, take it back, and refuse what is too much.
func TestCircuitBreaker(t *testing.T) {
	f, members := startPool(t, 2)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }

	t.Run("an endpoint that fails", func(t *testing.T) {
		f.apply(breakerHead + "    outlierDetection:\n      interval: 500ms\n      baseEjectionTime: 3s\n      maxEjectionPercent: 50\n      consecutive5xxErrors: 5\n      maxRequests: 100\n")
		f.reaches(client, url("/"), names(members)...)
		members[0].status.Store(http.StatusInternalServerError)
		failed := 0
		f.await("the ejection", func() error {
			for range inARow {
				r, _, err := ask(client, "GET", url("/"))
				if err != nil {
					return err
				}
				if r.StatusCode != http.StatusOK {
					failed++
					return fmt.Errorf("status %d", r.StatusCode)
				}
			}
			return nil
		})
		if failed < 5 {
			t.Errorf("it was left alone after %d errors, want 5", failed)
		}
		f.reaches(client, url("/"), members[1].name)
		members[0].status.Store(http.StatusOK)
		f.reaches(client, url("/"), names(members)...)
	})

	t.Run("errors that no detector looks for", func(t *testing.T) {
		f.apply(breakerHead + "    baseEjectionTime: 30s\n    maxEjectionPercent: 100\n    detectors: {gatewayErrors: {consecutive: 1}}\n")
		members[0].status.Store(http.StatusInternalServerError)
		failed := 0
		for range 40 {
			r, _, err := ask(client, "GET", url("/"))
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != http.StatusOK {
				failed++
			}
		}
		// Half of them, within bounds that one in a million runs leaves.
		if failed < 8 {
			t.Errorf("%d of 40 requests failed, of which half meet the endpoint with errors of 500", failed)
		}
		members[0].status.Store(http.StatusBadGateway)
		f.reaches(client, url("/"), members[1].name)
		members[0].status.Store(http.StatusOK)
	})

	t.Run("too many requests", func(t *testing.T) {
		f.apply(breakerHead + "    thresholds: {maxRequests: 2}\n")
		f.reaches(client, url("/"), names(members)...)
		under := background(client, url("/hold"), 2)
		f.await("two requests under way", func() error { return f.holds(members, 2) })
		for range 10 {
			r, _, err := ask(client, "GET", url("/"))
			if err != nil {
				t.Fatal(err)
			}
			if !overloaded(r) {
				t.Errorf("a third request is answered with %d %v, want 503 with x-envoy-overloaded", r.StatusCode, r.Header)
			}
		}
		for _, r := range f.answered(members, under, 2) {
			if r.StatusCode != http.StatusOK {
				t.Errorf("a request within the limit ends with %s", r.Status)
			}
		}
		f.reaches(client, url("/"), names(members)...)
	})

	t.Run("too many that wait", func(t *testing.T) {
		// Each worker of a proxy may open one connection to an endpoint, whatever the limit is.
		f.apply(breakerHead + "    thresholds: {maxConnections: 1, maxPendingRequests: 1}\n")
		f.reaches(client, url("/"), names(members)...)
		const sent = 40
		under := background(client, url("/hold"), sent)
		refusedFor := 0
		for refusedFor < sent/2 {
			if r := <-under; overloaded(r) {
				refusedFor++
			} else {
				t.Fatalf("a request ends with %s %d, want 503 with x-envoy-overloaded for half of them", r.Status, r.StatusCode)
			}
		}
		served := 0
		for _, r := range f.answered(members, under, sent-refusedFor) {
			switch {
			case r.StatusCode == http.StatusOK:
				served++
			case !overloaded(r):
				t.Errorf("a request ends with %s %d", r.Status, r.StatusCode)
			}
		}
		if served == 0 {
			t.Error("none of the requests that were under way was answered")
		}
		f.reaches(client, url("/"), names(members)...)
	})

	t.Run("retries", func(t *testing.T) {
		for _, m := range members {
			m.status.Store(http.StatusServiceUnavailable)
		}
		attempts := func() int64 {
			before := members[0].requests.Load() + members[1].requests.Load()
			if r, _, err := ask(client, "GET", url("/")); err != nil || r.StatusCode != http.StatusServiceUnavailable {
				t.Fatalf("%v %v", r, err)
			}
			return members[0].requests.Load() + members[1].requests.Load() - before
		}
		retry := func(budget string) string {
			return "type: Retry\nmesh: default\nname: echo\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: echo}}]\n" +
				"conf:\n  http: {numRetries: 3, retryOn: [all_5xx], backOff: {baseInterval: 1ms}}\n" + budget
		}
		for _, c := range []struct {
			name, budget string
			want         int64
		}{
			{"without a budget", "", 4},
			{"an empty budget", "  budget: {percent: 0, minConcurrency: 0}\n", 1},
			{"a budget of one", "  budget: {percent: 0, minConcurrency: 1}\n", 4},
		} {
			f.apply(retry(c.budget))
			f.await(c.name, func() error {
				if got := attempts(); got != c.want {
					return fmt.Errorf("%d attempts, want %d", got, c.want)
				}
				return nil
			})
			for range 5 {
				if got := attempts(); got != c.want {
					t.Errorf("%s: %d attempts, want %d", c.name, got, c.want)
				}
			}
		}
		for _, m := range members {
			m.status.Store(http.StatusOK)
		}
		// Of twenty that fail at once, a tenth may be repeated at a time: two.
		f.apply(retry("  budget: {percent: 10, minConcurrency: 1}\n"), breakerHead+"    thresholds: {maxRequests: 100}\n")
		f.reaches(client, url("/"), names(members)...)
		const sent = 20
		under := background(client, url("/hold"), sent)
		f.await("requests under way", func() error { return f.holds(members, sent) })
		before := members[0].requests.Load() + members[1].requests.Load()
		for _, m := range members {
			m.status.Store(http.StatusServiceUnavailable)
		}
		f.letGo(members)
		f.await("the first that fail", func() error {
			if n := members[0].requests.Load() + members[1].requests.Load() - before; n < sent {
				return fmt.Errorf("%d answered", n)
			}
			return nil
		})
		// What is repeated is held again, so what is not comes back.
		for range sent - 2 {
			if r := <-under; r.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a request ends with %s", r.Status)
			}
		}
		f.await("those that are repeated", func() error {
			n := members[0].held.Load() + members[1].held.Load()
			if n < 1 || n > 2 {
				return fmt.Errorf("%d are repeated", n)
			}
			return nil
		})
		for _, m := range members {
			m.status.Store(http.StatusOK)
		}
		for _, r := range f.answered(members, under, 2) {
			if r.StatusCode != http.StatusOK && r.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a request ends with %s", r.Status)
			}
		}
	})
}

// holds wants so many requests to be held by all members together.
func (f *federation) holds(members []*member, want int64) error {
	n := int64(0)
	for _, m := range members {
		n += m.held.Load()
	}
	if n != want {
		return fmt.Errorf("%d requests are held, want %d", n, want)
	}
	return nil
}

// letGo answers all requests that are held, and holds those that come later.
func (f *federation) letGo(members []*member) {
	for _, m := range members {
		m.letGo()
	}
}

// answered lets requests go until so many are answered, as one that waited for a connection is held once it has one.
func (f *federation) answered(members []*member, under <-chan *http.Response, n int) (out []*http.Response) {
	f.t.Helper()
	f.await("answers", func() error {
		f.letGo(members)
		for len(out) < n {
			select {
			case r := <-under:
				out = append(out, r)
			default:
				return fmt.Errorf("%d of %d requests are answered", len(out), n)
			}
		}
		return nil
	})
	return out
}
