package zones

import (
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// reported is what a replica of east reports of a service.
func reported(t *testing.T, replica, service string, count uint32) *kdsv1.Record {
	return record(t, serviceKey(kds.OfferName("east", service, replica)), &federationv1.ServiceAvailability{Zone: "east", Service: service,
		TagSets: []*federationv1.TagSet{{Tags: map[string]string{"kuma.io/service": service}, Count: count}}})
}

func (f *federation) counts(want map[string]uint64) {
	f.Helper()
	got := map[string]uint64{}
	f.until("counts of services", func() bool {
		clear(got)
		for _, s := range f.must("east").Services {
			got[s.Service] += s.Count
		}
		for name, n := range want {
			if got[name] != n {
				return false
			}
		}
		return len(got) == len(want)
	})
}

// Each replica of a zone reports all that it knows, and takes back nothing of what another one does. Nothing counts twice. What a
// replica reported that went is taken back, unless all of them did.
func TestReplicasOfAZoneReportApart(t *testing.T) {
	f := start(t)
	alone := f.zone("east", "a", "id", "zone:east")
	f.event(alone, func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	f.offer(alone, service(t, "east", "echo", 9), ingress(t, "east", "east.in"))
	f.counts(map[string]uint64{"echo": 9})
	alone.stop()
	a, b := f.zone("east", "a", "id", "zone:east"), f.zone("east", "b", "id", "zone:east")
	for _, p := range []*peer{a, b} {
		f.event(p, func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	}
	// A zone that ran in one replica and now runs in two leaves nothing behind.
	in := resource.Key{Kind: "ZoneIngress", Name: kds.OfferName("east", "in", "a")}
	f.offer(a, reported(t, "a", "echo", 2), reported(t, "a", "mine", 1), ingress(t, "east", in.Name))
	f.counts(map[string]uint64{"echo": 2, "mine": 1})
	inb := resource.Key{Kind: "ZoneIngress", Name: kds.OfferName("east", "in", "b")}
	f.offer(b, reported(t, "b", "echo", 3), ingress(t, "east", inb.Name))
	f.counts(map[string]uint64{"echo": 3, "mine": 1})
	if s := f.must("east"); len(s.Ingresses) != 1 || s.Ingresses[0].Name != "east.in" {
		t.Errorf("ingresses %+v", s.Ingresses)
	}
	// None reports for another.
	if ack := f.offer(b, reported(t, "b", "echo", 3), reported(t, "a", "echo", 7), reported(t, "c", "echo", 7)); len(ack.GetRejected()) != 2 ||
		!strings.Contains(ack.GetRejected()[0].GetReason(), "reports nothing for replica") {
		t.Errorf("rejected %v", ack.GetRejected())
	}
	f.counts(map[string]uint64{"echo": 3, "mine": 1})

	// Cut off from global as a whole, the zone keeps what it offers.
	a.stop()
	b.stop()
	f.until("east to go", func() bool { return !f.must("east").Connected })
	f.skipped.Add(int64(time.Hour))
	f.retire(f.ctx)
	f.counts(map[string]uint64{"echo": 3, "mine": 1})

	// b comes back, and a does not.
	again := f.zone("east", "b", "id", "zone:east")
	f.event(again, func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	f.offer(again, reported(t, "b", "echo", 3), reported(t, "b", "new", 1))
	f.retire(f.ctx) // a was forgotten, so it counts from here
	f.skipped.Add(int64(retireAfter))
	f.retire(f.ctx)
	f.counts(map[string]uint64{"echo": 3, "new": 1})
	if keys, _ := f.views.Offers("east"); len(keys) != 2 {
		t.Errorf("stored are %v", keys)
	}

	// A replica that this global never saw connected counts as gone for as long as that is known.
	if f.retired("east", "never") {
		t.Error("a replica that was never seen is gone at once")
	}
	f.skipped.Add(int64(retireAfter))
	if !f.retired("east", "never") || f.retired("east", "b") {
		t.Error("a replica that was never seen stays, or one that is connected goes")
	}
}
