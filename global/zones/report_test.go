package zones

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func TestOfferReachesOtherZones(t *testing.T) {
	f := start(t)
	east, west := f.east(), f.connect("west")
	if a := f.offer(east, ingress(t, "east", "east.in"), service(t, "east", "echo_demo_svc_80", 2)); len(a.GetRejected()) != 0 {
		t.Fatalf("rejected %v", a)
	}
	f.holds(west, resource.Key{Kind: "ZoneIngress", Name: "east.in"}, true)
	first := f.holds(west, serviceKey("east.echo_demo_svc_80"), true)
	s := f.must("east")
	if len(s.Ingresses) != 1 || s.Ingresses[0] != (Ingress{"east.in", "10.0.0.1", 30001}) || len(s.Services) != 1 || s.Services[0].Count != 2 {
		t.Fatalf("status %+v", s)
	}
	before := f.store.Snapshot().Revision()
	f.offer(east, service(t, "east", "echo_demo_svc_80", 3))
	f.holds(west, resource.Key{Kind: "ZoneIngress", Name: "east.in"}, false)
	if r := f.holds(west, serviceKey("east.echo_demo_svc_80"), true); proto.Equal(r, first) {
		t.Fatal("the count did not change")
	}
	if now := f.store.Snapshot().Revision(); now != before+1 {
		t.Fatalf("one report made %d changes", now-before)
	}
	// An end of the stream takes nothing away, and the same offer on the next one is not even reported.
	east.stop()
	f.until("east to go", func() bool { return !f.must("east").Connected })
	back := f.east()
	same := kds.NewSet()
	if err := same.Put(service(t, "east", "echo_demo_svc_80", 3)); err != nil {
		t.Fatal(err)
	}
	f.do(back, func(z *kds.Zone) { z.Offer(same) })
	f.offer(back, service(t, "east", "echo_demo_svc_80", 4))
	if now := f.store.Snapshot().Revision(); now != before+2 {
		t.Fatalf("the same offer and another one made %d changes", now-before-1)
	}
	if h, err := f.store.History(f.ctx, 10, 0); err != nil || len(h) != 2 {
		t.Fatalf("offers are in the history: %+v, %v", h, err)
	}
}

func TestForgedRecordsAreRejectedAndBlockNothing(t *testing.T) {
	f := start(t)
	east, west := f.east(), f.connect("west")
	f.offer(west, service(t, "west", "a", 7))
	forged := []*kdsv1.Record{
		service(t, "west", "a", 1),
		record(t, serviceKey("east.b"), &federationv1.ServiceAvailability{Zone: "west", Service: "b"}),
		record(t, serviceKey("east.c"), &federationv1.ServiceAvailability{Zone: "east", Service: "d"}),
		record(t, serviceKey("east.e/f"), &federationv1.ServiceAvailability{Zone: "east", Service: "e/f"}),
		record(t, serviceKey("east.t"), &federationv1.ServiceAvailability{Zone: "east", Service: "t",
			TagSets: []*federationv1.TagSet{{Tags: map[string]string{"kuma.io/zone": "west"}}}}),
		record(t, resource.Key{Kind: "ServiceAvailability", Mesh: "../m", Name: "east.x"}, &federationv1.ServiceAvailability{Zone: "east", Service: "x"}),
		record(t, resource.Key{Kind: "Mesh", Name: "east.m"}, &meshv1.Mesh{}),
		ingress(t, "east", "west.in"), ingress(t, "west", "east.in"),
		record(t, resource.Key{Kind: "ZoneIngress", Name: "east.bare"}, &meshv1.ZoneIngress{Zone: "east"}),
		kds.NewRecord(serviceKey("east.garbage"), []byte("\xff\xff")),
		record(t, serviceKey("east.big"), &federationv1.ServiceAvailability{Zone: "east", Service: "big",
			TagSets: []*federationv1.TagSet{{Tags: map[string]string{"x": strings.Repeat("x", maxOffer)}}}}),
	}
	a := f.offer(east, append(forged, service(t, "east", "good", 1))...)
	if len(a.GetRejected()) != len(forged) {
		t.Fatalf("%d of %d forged records were rejected: %v", len(a.GetRejected()), len(forged), a)
	}
	for _, r := range a.GetRejected() {
		if r.GetReason() == "" || len(r.GetHash()) == 0 {
			t.Errorf("rejection without reason or hash: %v", r)
		}
	}
	f.holds(west, serviceKey("east.good"), true)
	if s := f.must("west"); len(s.Services) != 1 || s.Services[0].Count != 7 || len(s.Ingresses) != 0 {
		t.Fatalf("a forged report changed west: %+v", s)
	}
	if s := f.must("east"); len(s.Services) != 1 || len(s.Ingresses) != 0 {
		t.Fatalf("forged records are stored: %+v", s)
	}
	// A broken version of a record leaves the last good one.
	f.offer(east, record(t, serviceKey("east.good"), &federationv1.ServiceAvailability{Zone: "west", Service: "good"}))
	if s := f.must("east"); len(s.Services) != 1 {
		t.Fatalf("the last good record went: %+v", s)
	}
	// What was rejected can't be deleted either.
	f.offer(east)
	if s := f.must("west"); len(s.Services) != 1 {
		t.Fatalf("east deleted what west offers: %+v", s)
	}
	if s := f.must("east"); len(s.Services) != 0 {
		t.Fatalf("withdrawn offers stay: %+v", s)
	}
}

// An offer that takes several transactions of etcd reaches the others in one step.
func TestLargeOfferIsOneChange(t *testing.T) {
	f := start(t)
	east := f.east()
	before := f.store.Snapshot().Revision()
	var records []*kdsv1.Record
	for i := range 300 {
		records = append(records, service(t, "east", fmt.Sprint("s", i), 1))
	}
	if a := f.offer(east, records...); len(a.GetRejected()) != 0 {
		t.Fatalf("rejected %v", a)
	}
	if now := f.store.Snapshot().Revision(); now != before+1 || len(f.must("east").Services) != 300 {
		t.Fatalf("%d changes, %d services", now-before, len(f.must("east").Services))
	}
	f.offer(east)
	if n := len(f.must("east").Services); n != 0 {
		t.Fatalf("%d services stay", n)
	}
}
