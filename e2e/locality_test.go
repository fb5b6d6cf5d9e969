package e2e

import (
	"fmt"
	"math"
	"net/http"
	"testing"
)

func locality(conf string) string {
	return "type: LocalityPolicy\nmesh: default\nname: echo\ndestinations: [{match: {kuma.io/service: echo}}]\nconf:\n" + conf
}

// startZoneWithIngress runs a zone with its ingress and one echo, all at addresses from n on.
func (f *federation) startZoneWithIngress(name string, n int) *member {
	f.t.Helper()
	f.startZone(name, n)
	f.startProxy(name, n, "ingress-"+name, fmt.Sprintf("type: ZoneIngress\nname: ingress-%s\nnetworking: {address: %s, port: 10001}\n", name, f.host(n+1)),
		f.token("ingress-"+name, "zone-ingress", name))
	return f.startMember(name, n, "echo", "echo-"+name, n+2)
}

// TestZonesInOrderAndByWeight sends requests from a gateway in east to echo in three zones: to the next in the order where the ones
// before are ill, and to all at once by their weights. Endpoints of other zones are checked through the ingress there.
func TestZonesInOrderAndByWeight(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), gatewayRoute("echo", "", toEcho),
		healthCheck("  reuseConnection: false\n  failTrafficOnPanic: true\n  http: {path: /health}\n"))
	east := f.startMember("east", 2, "echo", "echo-east", 5)
	west, south := f.startZoneWithIngress("west", 60), f.startZoneWithIngress("south", 70)
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.serviceToken("edge"))
	f.settled("east", 2)
	f.settled("west", 2)
	f.settled("south", 2)
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/"
	f.reaches(client, url, east.name)
	ill := func(all ...*member) {
		for _, m := range []*member{east, west, south} {
			m.health.Store(http.StatusOK)
		}
		for _, m := range all {
			m.health.Store(http.StatusServiceUnavailable)
		}
	}

	t.Run("without an order the others share", func(t *testing.T) {
		ill(east)
		f.reaches(client, url, west.name, south.name)
		ill()
		f.reaches(client, url, east.name)
	})

	t.Run("east, west, south", func(t *testing.T) {
		f.apply(locality("  failover: [{from: [east], to: [west, south]}, {from: [west], to: [south]}]\n"))
		for _, step := range []struct {
			ill  []*member
			want *member
		}{{nil, east}, {[]*member{east}, west}, {[]*member{east, west}, south}, {[]*member{west}, east}, {[]*member{east, south}, west}, {nil, east}} {
			ill(step.ill...)
			f.reaches(client, url, step.want.name)
		}
		ill(east, west, south)
		f.answers(client, http.StatusServiceUnavailable, "GET", url)
		ill()
		f.reaches(client, url, east.name)
		f.says(f.cli("inspect", "dataplane", "edge"), "LocalityPolicy", "HealthCheck")
	})

	t.Run("south before west", func(t *testing.T) {
		f.apply(locality("  failover: [{to: [south]}]\n"))
		ill(east)
		f.reaches(client, url, south.name)
		ill(east, south)
		f.reaches(client, url, west.name)
		ill()
		f.reaches(client, url, east.name)
	})

	t.Run("a zone that nobody knows", func(t *testing.T) {
		f.refusesToApply([]string{"LocalityPolicy default/echo", "zone east knows of no ingress and no service in suoth, so nothing goes there: mend the name"},
			locality("  failover: [{to: [suoth, south]}]\n"))
		ill(east)
		f.reaches(client, url, south.name)
		ill()
		f.reaches(client, url, east.name)
	})

	byWeight := func(t *testing.T, shares map[string]float64) {
		t.Helper()
		const n = 300
		seen := map[string]int{}
		for range n {
			r, a, err := ask(client, "GET", url)
			if err != nil || r.StatusCode != http.StatusOK {
				t.Fatalf("%v %v", r, err)
			}
			seen[a.Workload]++
		}
		for name, share := range shares {
			if d := math.Abs(float64(seen[name]) - share*n); d > 5*math.Sqrt(n*share*(1-share)) {
				t.Errorf("%v of %d requests, want %v", seen, n, shares)
			}
		}
	}
	t.Run("weights", func(t *testing.T) {
		f.apply(locality("  localFirst: false\n  weights: {east: 1, west: 3, south: 0}\n"))
		f.reaches(client, url, east.name, west.name)
		byWeight(t, map[string]float64{east.name: 0.25, west.name: 0.75, south.name: 0})
		ill(west)
		f.reaches(client, url, east.name)
		if n := west.checks.Load(); n == 0 {
			t.Error("the endpoint in west was never checked through its ingress")
		}
		ill()
		f.reaches(client, url, east.name, west.name)
	})

	t.Run("weights without failure on panic", func(t *testing.T) {
		f.apply(healthCheck("  http: {path: /health}\n"), locality("  localFirst: false\n  weights: {south: 2}\n"))
		f.reaches(client, url, east.name, west.name, south.name)
		byWeight(t, map[string]float64{east.name: 0.25, west.name: 0.25, south.name: 0.5})
	})

	t.Run("a zone whose requests fail", func(t *testing.T) {
		// Without checks, what the answers say is enough.
		f.cli("delete", "healthcheck", "echo", "--wait")
		f.apply(locality("  failover: [{from: [east], to: [south, west]}]\n"),
			breakerHead+"    interval: 500ms\n    baseEjectionTime: 3s\n    maxEjectionPercent: 100\n    detectors: {totalErrors: {consecutive: 3}}\n")
		f.reaches(client, url, east.name)
		east.status.Store(http.StatusInternalServerError)
		f.reaches(client, url, south.name)
		east.status.Store(http.StatusOK)
		f.reaches(client, url, east.name)
	})

	t.Run("the order goes", func(t *testing.T) {
		f.cli("delete", "localitypolicy", "echo", "--wait")
		f.reaches(client, url, east.name)
	})
}
