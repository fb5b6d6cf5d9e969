package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// halfOf400 are the bounds of how many of 400 requests meet a fault of 50 percent: a fair coin is outside of them less often than
// once in a million (exactly, the sum of the binomial's two tails is 6e-7).
const halfOf400Least, halfOf400Most = 151, 249

// coarse is by how much a timer of Envoy may be early, which reads a clock of the kernel that moves with its ticks.
const coarse = 20 * time.Millisecond

// TestFaults makes requests fail, wait and slow down: those of one client at the proxy of the service, and those of a route.
func TestFaults(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(gatewayRoute("faults", "", limitRule("/gateway", "{type: Fault, fault: {abort: {httpStatus: 418, percentage: 100}}}")+
		limitRule("/slow", "{fault: {delay: {value: 300ms}}}")+
		limitRule("/", "{responseHeader: {set: [{name: x-route, value: plain}]}}")))
	f.answers(client, http.StatusTeapot, "GET", url("/gateway"))
	if r := deliver(t, client, "GET", url("/slow"), nil); r.status != 200 || r.took < 300*time.Millisecond-coarse {
		t.Errorf("a request that must wait 300ms: %d after %s", r.status, r.took)
	}

	// Kuma's published spelling.
	f.apply(`apiVersion: kuma.io/v1alpha1
kind: FaultInjection
mesh: default
metadata: {name: fi1}
spec:
  sources: [{match: {kuma.io/service: edge}}]
  destinations: [{match: {kuma.io/service: echo, kuma.io/protocol: http}}]
  conf:
    abort: {httpStatus: 500, percentage: 50}
`, `type: FaultInjection
mesh: default
name: of-nobody-here
sources: [{match: {kuma.io/service: shop}}]
destinations: [{match: {kuma.io/service: echo}}]
conf: {http: [{abort: {httpStatus: 501, percentage: 100}}]}
`)
	f.answers(client, http.StatusInternalServerError, "GET", url("/"))
	got := map[int]int{}
	for _, status := range statuses(t, client, 400, url("/")) {
		got[status]++
	}
	if got[200]+got[500] != 400 || got[500] < halfOf400Least || got[500] > halfOf400Most {
		t.Errorf("answers %v, want half of them 500", got)
	}

	// The most specific one holds alone, and each of its faults has its own dice.
	f.apply(`type: FaultInjection
mesh: default
name: to-v1
sources: [{match: {kuma.io/service: edge}}]
destinations: [{match: {kuma.io/service: echo, version: v1, kuma.io/protocol: http}}]
conf:
  http:
    - delay: {value: 250ms, percentage: 100}
    - abort: {httpStatus: 502, percentage: 100}
`)
	f.answers(client, http.StatusBadGateway, "GET", url("/"))
	if r := deliver(t, client, "GET", url("/"), nil); r.status != 502 || r.took < 250*time.Millisecond-coarse {
		t.Errorf("both faults: %d after %s", r.status, r.took)
	}
	f.apply(`type: FaultInjection
mesh: default
name: to-v1
sources: [{match: {kuma.io/service: edge}}]
destinations: [{match: {kuma.io/service: echo, version: v1, kuma.io/protocol: http}}]
conf: {responseBandwidth: {limit: 400 kbps, percentage: 100}}
`)
	// 100 KiB at 49 KiB a second; unbounded they take no tenth of it.
	f.await("an answer that is slowed down", func() error {
		r := deliver(t, client, "GET", url("/large"), nil)
		if r.status != 200 || len(r.body) != 100<<10 || r.took < time.Second {
			return fmt.Errorf("%d, %d bytes in %s", r.status, len(r.body), r.took)
		}
		return nil
	})
	f.cli("delete", "FaultInjection", "to-v1", "-m", "default")
	f.await("an answer that nothing slows down", func() error {
		if r := deliver(t, client, "GET", url("/large"), nil); r.status == 200 && r.took > time.Second {
			return fmt.Errorf("it took %s", r.took)
		}
		return nil
	})
	f.cli("delete", "FaultInjection", "fi1", "-m", "default")
	f.await("no fault", func() error { return allOK(client, 20, url("/")) })

	// Tags that no certificate proves are said by the client's own proxy, whatever its clients claim.
	f.startProxy("east", 2, "edge-a", strings.Replace(gatewayDocument("default", "edge-a", f.host(12)), "kuma.io/service: edge-a}", "kuma.io/service: edge, team: a}", 1), f.path("tokens", "edge"))
	f.settled("east", 4)
	f.apply(`type: FaultInjection
mesh: default
name: of-team-a
sources: [{match: {kuma.io/service: edge, team: a}}]
destinations: [{match: {kuma.io/service: echo}}]
conf: {http: [{abort: {httpStatus: 504, percentage: 100}}]}
`)
	f.answers(client, http.StatusGatewayTimeout, "GET", "http://"+f.at(12, 8080)+"/")
	r, a, err := ask(client, "GET", url("/"), "X-Zoneforge-Source-Tags", "&team=a&")
	if err != nil || r.StatusCode != http.StatusOK || a.Header.Get("X-Zoneforge-Source-Tags") != "" {
		t.Errorf("another client that claims the tag: %v %v, and the workload saw %v", r, err, a.Header)
	}
}

func allOK(client *http.Client, n int, url string) error {
	for range n {
		r, _, err := ask(client, "GET", url)
		if err != nil {
			return err
		}
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", r.StatusCode)
		}
	}
	return nil
}
