package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

func healthCheck(conf string) string {
	return "type: HealthCheck\nmesh: default\nname: echo\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: echo}}]\n" +
		"conf:\n  interval: 100ms\n  noTrafficInterval: 100ms\n  timeout: 1s\n  unhealthyThreshold: 2\n  healthyThreshold: 1\n" + conf
}

// TestHealthCheck has a gateway ask endpoints whether they are well: requests that would be answered don't tell.
func TestHealthCheck(t *testing.T) {
	f, members := startPool(t, 3)
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/"
	events := f.path("health.log")

	f.apply(healthCheck("  eventLogPath: " + events + "\n  http: {path: /health, expectedStatuses: [200, 204], requestHeadersToAdd: [{header: {key: x-check, value: '100%'}}]}\n"))
	f.reaches(client, url, names(members)...)
	for _, m := range members {
		f.await("checks of "+m.name, func() error {
			if n := m.checks.Load(); n < 3 {
				return fmt.Errorf("%d checks", n)
			}
			return nil
		})
	}

	members[0].health.Store(http.StatusServiceUnavailable)
	f.reaches(client, url, members[1].name, members[2].name)
	before := members[0].requests.Load()
	for range 60 {
		if r, _, err := ask(client, "GET", url); err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%v %v", r, err)
		}
	}
	if n := members[0].requests.Load() - before; n != 0 {
		t.Errorf("an endpoint that is not well was sent %d requests", n)
	}
	f.await("the event", func() error {
		text, err := os.ReadFile(events)
		if err == nil && !strings.Contains(string(text), "eject_unhealthy_event") {
			err = fmt.Errorf("it says %s", text)
		}
		return err
	})
	members[0].health.Store(http.StatusNoContent)
	f.reaches(client, url, names(members)...)

	// Where none is well, all are asked, or none, as the policy says.
	for _, m := range members {
		m.health.Store(http.StatusInternalServerError)
	}
	f.reaches(client, url, names(members)...)
	f.apply(healthCheck("  failTrafficOnPanic: true\n  http: {path: /health}\n"))
	f.answers(client, http.StatusServiceUnavailable, "GET", url)
	for _, m := range members {
		m.health.Store(http.StatusOK)
	}
	f.reaches(client, url, names(members)...)

	// A connection alone is enough for a check that asks for no more: the sidecar is there, whatever the workload says.
	for _, m := range members {
		m.health.Store(http.StatusInternalServerError)
	}
	f.apply(healthCheck("  failTrafficOnPanic: true\n  healthyPanicThreshold: 100\n"))
	f.reaches(client, url, names(members)...)

	// An endpoint whose proxy went is gone at once, though its last check passed.
	f.apply(healthCheck("  http: {path: /health, expectedStatuses: [500]}\n"))
	f.reaches(client, url, names(members)...)
	if code := f.end(members[2].name); code != 0 {
		t.Errorf("%s ended with %d", members[2].name, code)
	}
	f.settled("east", 3)
	f.reaches(client, url, members[0].name, members[1].name)
}
