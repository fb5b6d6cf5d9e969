package state_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/zone/state"
)

// What the replicas of another zone report of one service counts once: in whatever order reports come and go, endpoints are those that
// one replica with the highest count would give, and its ingress is one.
func TestReportsOfReplicasCountOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	const name = "echo.all.default.mesh/client"
	for range 50 {
		s, last := world(t), map[string]uint32{}
		s.Apply([]*kdsv1.Record{rec(t, "ZoneIngress", "west.in@a", remote("west", "10.1.0.1"))}, []resource.Key{key("ServiceAvailability", "west.echo")}, false)
		for range 1 + rnd.IntN(8) {
			replica := fmt.Sprint("r", rnd.IntN(3))
			record := kds.OfferName("west", "echo", replica)
			if rnd.IntN(4) == 0 {
				delete(last, replica)
				s.Apply(nil, []resource.Key{key("ServiceAvailability", record)}, false)
				continue
			}
			last[replica] = 1 + rnd.Uint32N(5)
			s.Apply([]*kdsv1.Record{rec(t, "ServiceAvailability", record, available("west", "echo", last[replica]))}, nil, false)
		}
		settle(t, s)
		var most uint32
		for _, n := range last {
			most = max(most, n)
		}
		plain := world(t)
		if most == 0 {
			plain.Apply(nil, []resource.Key{key("ServiceAvailability", "west.echo")}, false)
		} else {
			plain.Apply([]*kdsv1.Record{rec(t, "ServiceAvailability", "west.echo", available("west", "echo", most))}, nil, false)
		}
		settle(t, plain)
		got, err := s.BuildEndpoints(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := plain.BuildEndpoints(name)
		if err != nil || want == nil {
			t.Fatal(want, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("of %v there is %+v, want %+v", last, got, want)
		}
	}
}

// A replica among others reports under names of its own.
func TestOfferOfAReplica(t *testing.T) {
	s := state.New("east", "b")
	s.Apply([]*kdsv1.Record{rec(t, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT))}, nil, false)
	s.Register(sidecar("echo", "10.0.0.2"), true)
	s.Register(zoneIngress(), true)
	s.Take()
	var names []string
	s.Offer().Each("", func(k resource.Key, _ *kdsv1.Record) bool {
		names = append(names, k.Name)
		return true
	})
	if want := []string{"east.echo@b", "east.in@b"}; !reflect.DeepEqual(names, want) {
		t.Errorf("offered are %v, want %v", names, want)
	}
}
