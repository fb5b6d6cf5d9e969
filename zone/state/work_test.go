package state_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/zone/state"
)

// TestPolicyForAllBuildsWhatDiffersOnce counts what a policy for all builds where services have few clients and where they have many: as much
// as there are ways out that differ, and not for each proxy.
func TestPolicyForAllBuildsWhatDiffersOnce(t *testing.T) {
	services := []string{"a", "b", "c", "d", "e"}
	for _, each := range []int{1, 7} {
		s := state.New("east", "")
		s.Apply([]*kdsv1.Record{rec(t, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT))}, nil, false)
		proxies := 0
		for i, name := range services {
			for n := range each {
				// A replica has a version, so that there are two workloads of a service.
				p := replica(name, 10*i+n, services...)
				s.Register(p, true)
				proxies++
			}
		}
		build := func() (built int) {
			for _, id := range s.Take().Proxies {
				if _, err := s.BuildProxy(id); err != nil {
					t.Fatal(err)
				}
				built++
			}
			return built
		}
		build()
		s.TakeWork()
		s.Apply([]*kdsv1.Record{rec(t, "Timeout", "all", &meshv1.Timeout{Sources: sel(service("*")), Destinations: sel(service("*")),
			Conf: &meshv1.Timeout_Conf{Http: &meshv1.Timeout_Http{RequestTimeout: durationpb.New(7e9)}}})}, nil, false)
		if built := build(); built != proxies {
			t.Errorf("%d of %d proxies were built", built, proxies)
		}
		// Each service has one listener at each client, with the same address and port at all.
		if w := s.TakeWork(); w.Resources != len(services) || w.Bytes == 0 {
			t.Errorf("%d each: %d resources of %d bytes were built, want routes to %d services", each, w.Resources, w.Bytes, len(services))
		}
	}
}

// TestIndexesHoldWorkloads: replicas add nothing to what is indexed, and when the last has gone nothing is left of it.
func TestIndexesHoldWorkloads(t *testing.T) {
	services := []string{"a", "b", "c", "d", "e"}
	s := state.New("east", "")
	s.Apply([]*kdsv1.Record{rec(t, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT))}, nil, false)
	bare := state.Entries(s)
	var all []string
	fill := func(from, to int) int {
		for n := from; n < to; n++ {
			for _, name := range services {
				p := replica(name, n, services...)
				s.Register(p, true)
				all = append(all, p.ID)
			}
		}
		settle(t, s)
		return state.Entries(s)
	}
	// Replicas are of two versions in turn, so two of each service make all workloads that there are.
	two := fill(0, 2)
	if two <= bare {
		t.Fatalf("%d entries with two replicas, %d without any", two, bare)
	}
	if twenty := fill(2, 20); twenty != two {
		t.Errorf("%d entries with twenty replicas of each service, %d with two", twenty, two)
	}
	again := replica("a", 0, "b")
	s.Register(again, true) // a replica that was restarted with another document is a workload by itself until it is as before
	settle(t, s)
	s.Register(replica("a", 0, services...), true)
	settle(t, s)
	if got := state.Entries(s); got != two {
		t.Errorf("%d entries after one was another for a while, %d before", got, two)
	}
	for _, id := range all {
		s.Unregister(id)
	}
	settle(t, s)
	if got := state.Entries(s); got != bare {
		t.Errorf("%d entries are left without a proxy, want %d", got, bare)
	}
}
