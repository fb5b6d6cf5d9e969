package state_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// A LocalityPolicy orders the endpoints that all clients share, and nothing stays of it when it goes.
func TestLocalityPolicyOrdersZones(t *testing.T) {
	const name = "echo.all.default.mesh/client"
	s := world(t)
	apply := func(records ...*kdsv1.Record) {
		t.Helper()
		if r := s.Apply(records, nil, false); len(r) > 0 {
			t.Fatal(r)
		}
	}
	apply(rec(t, "ServiceAvailability", "south.echo", available("south", "echo", 1)), rec(t, "ZoneIngress", "south.in", remote("south", "10.3.0.1")))
	const plain = "east/0 10.0.0.2,10.0.0.3; south/1 10.3.0.1; west/1 10.1.0.1"
	if got := endpointsText(t, s, name); got != plain {
		t.Error(got)
	}
	for _, c := range []struct {
		conf *meshv1.LocalityPolicy_Conf
		want string
	}{
		{&meshv1.LocalityPolicy_Conf{Failover: []*meshv1.LocalityPolicy_Failover{{From: []string{"east"}, To: []string{"west", "south"}}}},
			"east/0 10.0.0.2,10.0.0.3; west/1 10.1.0.1; south/2 10.3.0.1"},
		{&meshv1.LocalityPolicy_Conf{Failover: []*meshv1.LocalityPolicy_Failover{{From: []string{"west"}, To: []string{"south"}}}}, plain},
		{&meshv1.LocalityPolicy_Conf{LocalFirst: proto.Bool(false), Weights: map[string]uint32{"south": 0}}, "east/0 10.0.0.2,10.0.0.3; west/0 10.1.0.1"},
	} {
		apply(rec(t, "LocalityPolicy", "echo", &meshv1.LocalityPolicy{Destinations: sel(service("echo")), Conf: c.conf}))
		if _, endpoints, _ := settle(t, s); len(endpoints) != 1 {
			t.Errorf("endpoints %v were built anew, want those of echo alone", endpoints)
		}
		if got := endpointsText(t, s, name); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
		if got := endpointsText(t, s, "echo.all.default.mesh/ingress"); got != "east/0 10.0.0.2,10.0.0.3" {
			t.Errorf("the ingress sees %s", got)
		}
	}
	uses := s.Uses("Dataplane/default/edge")
	found := false
	for _, u := range uses {
		found = found || u.Key.Kind == "LocalityPolicy" && u.Why == "endpoints of echo"
	}
	if !found {
		t.Errorf("the gateway is built from %v, without the LocalityPolicy", uses)
	}
	s.Apply(nil, []resource.Key{key("LocalityPolicy", "echo")}, false)
	if got := endpointsText(t, s, name); got != plain {
		t.Error(got)
	}
	apply(rec(t, "ServiceAvailability", "south.echo", &federationv1.ServiceAvailability{Zone: "south", Service: "echo"}))
	if got := endpointsText(t, s, name); got != "east/0 10.0.0.2,10.0.0.3; west/1 10.1.0.1" {
		t.Error(got)
	}
}

// A policy that sends requests to a zone that nobody knows says so until the zone is there, and holds all the while.
func TestLocalityPolicyOfAnUnknownZone(t *testing.T) {
	s := world(t)
	told := func(want string) {
		t.Helper()
		got := ""
		for _, r := range s.Rejected() {
			got += r.GetKey().GetKind() + " " + r.GetKey().GetName() + ": " + r.GetReason()
		}
		if got != want {
			t.Errorf("status says %q, want %q", got, want)
		}
	}
	apply := func(records ...*kdsv1.Record) {
		t.Helper()
		if r := s.Apply(records, nil, false); len(r) > 0 {
			t.Fatal(r)
		}
	}
	apply(rec(t, "LocalityPolicy", "echo", &meshv1.LocalityPolicy{Destinations: sel(service("echo")), Conf: &meshv1.LocalityPolicy_Conf{
		Failover: []*meshv1.LocalityPolicy_Failover{{From: []string{"outpost"}, To: []string{"wset", "west"}}, {From: []string{"east"}, To: []string{"south", "west"}}},
		Weights:  map[string]uint32{"east": 1, "suoth": 0},
	}}))
	const head, tail = "LocalityPolicy echo: zone east knows of no ingress and no service in ", ", so nothing goes there: mend the name, or start the zone with its ingress"
	told(head + "south, suoth, wset" + tail)
	apply(rec(t, "ZoneIngress", "south.in", remote("south", "10.3.0.1")))
	told(head + "suoth, wset" + tail)
	apply(rec(t, "ServiceAvailability", "wset.web", available("wset", "web", 1)))
	told(head + "suoth" + tail)
	s.Apply(nil, []resource.Key{key("ServiceAvailability", "wset.web")}, false)
	told(head + "suoth, wset" + tail)
	if got := endpointsText(t, s, "echo.all.default.mesh/client"); got != "east/0 10.0.0.2,10.0.0.3; west/1 10.1.0.1" {
		t.Error(got)
	}
	s.Apply(nil, []resource.Key{key("LocalityPolicy", "echo")}, false)
	told("")
}
