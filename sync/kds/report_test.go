package kds

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// What doesn't fit is withheld by name rather than ending the stream again and again, and comes back once there is room.
func TestOfferIsBounded(t *testing.T) {
	z := NewZone(ZoneConfig{Zone: "east"}, NewSet(), Position{})
	now := time.Unix(0, 0)
	z.Connect(now)
	z.Receive(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Welcome{Welcome: &kdsv1.Welcome{Protocol: Protocol}}}, now)
	z.Ready()
	key := func(i int) resource.Key {
		return resource.Key{Kind: "ServiceAvailability", Mesh: "m", Name: fmt.Sprintf("east.%03d", i)}
	}
	offer := NewSet()
	const each = MaxOffer/64 + 1
	for i := range 64 {
		if err := offer.Put(NewRecord(key(i), bytes.Repeat([]byte("x"), each))); err != nil {
			t.Fatal(err)
		}
	}
	z.Offer(offer)
	r := z.Ready()
	if len(r.Events) != 1 || len(r.Events[0].Withheld) != 1 || r.Events[0].Withheld[0] != key(63) {
		t.Fatalf("withheld: %+v", r.Events)
	}
	report := r.Frames[0].GetReport()
	if len(report.GetUpserts()) != 63 || proto.Size(report) > 16<<20 {
		t.Fatalf("reported: %d records in %d bytes", len(report.GetUpserts()), proto.Size(report))
	}
	if offer.Len() != 64 {
		t.Fatal("the caller's set was changed")
	}
	z.Receive(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_ReportAck{ReportAck: &kdsv1.ReportAck{Sequence: 1}}}, now)
	offer.Delete(key(0))
	z.Offer(offer)
	report = nil
	for _, f := range z.Ready().Frames {
		report = f.GetReport()
	}
	if len(report.GetUpserts()) != 1 || len(report.GetDeletes()) != 1 || report.GetUpserts()[0].GetKey().GetName() != key(63).Name {
		t.Fatalf("with room again: %d upserts, %d deletes", len(report.GetUpserts()), len(report.GetDeletes()))
	}
}
