package proxyir_test

import (
	"fmt"
	"testing"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// counting is a policy for connections that counts how often somebody asks whom it is for.
type counting struct {
	*meshv1.Timeout
	asked *int
}

func (c counting) GetSources() []*meshv1.Selector {
	*c.asked++
	return c.Timeout.GetSources()
}

func (c counting) GetDestinations() []*meshv1.Selector {
	*c.asked++
	return c.Timeout.GetDestinations()
}

// TestBuildLooksAtFewPolicies counts how many policies for other connections a build looks at: none, among however many.
func TestBuildLooksAtFewPolicies(t *testing.T) {
	asked := 0
	in := input(mesh(meshv1.Mesh_MODE_STRICT), sidecar(), sidecarPolicies())
	for _, kind := range []string{"TrafficRoute", "Timeout", "Retry", "CircuitBreaker", "HealthCheck", "TrafficLog", "FaultInjection", "RateLimit"} {
		for i := range 100 {
			// Those that limit or disturb requests hold where they come in, at web and db, whoever sends them.
			between := &meshv1.Timeout{Sources: sel(service("*")), Destinations: sel(service(fmt.Sprint("other", i)))}
			if i%2 == 0 || kind == "TrafficLog" {
				between.Sources = sel(service(fmt.Sprint("stranger", i)))
			}
			in.Policies.Put(res(kind, fmt.Sprint("far-", i), counting{between, &asked}))
		}
	}
	asked = 0
	r, err := proxyir.Sidecar(in)
	accepted(t, r, err)
	if asked > 0 {
		t.Errorf("policies of others are asked %d times", asked)
	}
}
