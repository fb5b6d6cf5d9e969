package zone

import (
	"fmt"
	"testing"
	"time"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds/server"
)

func TestRevisionsAreLiveInOrder(t *testing.T) {
	var r revisions
	now := time.Unix(100, 0)
	lives := func() (out string) {
		for _, l := range r.live {
			out += fmt.Sprintf("%d@%d ", l.Revision, l.Since.Unix())
		}
		return out
	}
	step := func(want string) {
		t.Helper()
		now = now.Add(time.Second)
		r.settle(now)
		if got := lives(); got != want {
			t.Errorf("live %q, want %q", got, want)
		}
	}
	var a, b []debt
	r.take(1)
	step("1@101 ") // touches nobody
	two := r.take(2)
	a, b = owe(a, debt{to: two, config: 5}), owe(b, debt{to: two, config: 5})
	b = owe(b, debt{to: two, endpoints: 3}) // merged into the same debt
	three := r.take(3)
	a = owe(a, debt{to: three, config: 6})
	r.take(4)
	step("1@101 ")
	a = pay(a, 6, 0) // coalesced: both at once
	step("1@101 ")
	b = pay(b, 5, 2)
	step("1@101 ")
	b = pay(b, 5, 3)
	step("1@101 2@105 3@105 4@105 ")
	if len(a)+len(b) > 0 || r.newest() != nil {
		t.Errorf("left %v %v", a, b)
	}
	five := r.take(5)
	a = owe(nil, debt{to: five, config: 7})
	step("1@101 2@105 3@105 4@105 ")
	forgive(a) // the proxy has gone
	step("1@101 2@105 3@105 4@105 5@107 ")
	broken := owe(nil, debt{to: five, config: unpayable})
	if broken = pay(broken, 1<<40, 1<<40); len(broken) != 1 {
		t.Error("paid for what could not be built")
	}
	payable(broken, 9)
	if broken = pay(broken, 9, 0); len(broken) != 0 || five.owed != 0 {
		t.Errorf("not paid: %v", broken)
	}
	r.take(5) // a repair
	step("1@101 2@105 3@105 4@105 5@107 ")
	r.take(2) // a restore
	step("2@109 ")
	for i := range 3 * maxLive {
		r.take(uint64(10 + i))
	}
	r.settle(now)
	if len(r.live) != maxLive || r.live[maxLive-1].Revision != 10+3*maxLive-1 {
		t.Errorf("%d revisions are kept", len(r.live))
	}
}

func TestNoRevisionWaitsForProxiesThatDidNotComeBack(t *testing.T) {
	var r revisions
	first := r.take(3)
	first.known = true
	gone := owe(nil, debt{to: first, config: 1})
	if r.settle(time.Unix(1, 0)) {
		t.Error("live before its proxies are back")
	}
	r.take(4)
	if !r.settle(time.Unix(2, 0)) || len(r.live) != 1 || r.live[0].Revision != 4 {
		t.Errorf("live %v", r.live)
	}
	forgive(gone)
	if r.settle(time.Unix(3, 0)) || len(r.live) != 1 {
		t.Errorf("live %v", r.live)
	}
}

// After a restore the same numbers mean other changes, so nothing of the old epoch counts for the new one.
func TestNewEpochForgetsTheOldOne(t *testing.T) {
	var r revisions
	now := time.Unix(100, 0)
	r.begin("a")
	for n := uint64(1); n <= 5; n++ {
		r.take(n)
		r.settle(now)
	}
	r.begin("a")
	if len(r.live) != 5 {
		t.Fatalf("live: %v", r.live)
	}
	r.begin("b")
	r.take(9) // it was away while the restored store grew beyond what was there
	r.settle(now.Add(time.Hour))
	if len(r.live) != 1 || r.live[0].Revision != 9 {
		t.Errorf("live: %v", r.live)
	}
}

// What this zone offers comes back from global as a revision. Endpoints that came and went meanwhile by themselves owe it nothing: while
// hundreds do in a second, each acknowledgement of each client would be heeded.
func TestEndpointsOweARevisionOnlyWhatItChanged(t *testing.T) {
	w := newTown(t, 5)
	owing := func() (n int) {
		for i := range replicasEach {
			for _, d := range w.proxies[workID(2, i)].debts {
				if d.endpoints == w.endpointRevision {
					n++
				}
			}
		}
		return n
	}
	all := func() {
		for id := range w.proxies {
			w.progressed(id, server.Progress{Acked: w.core.revision, EndpointsAcked: w.endpointRevision})
		}
		w.flush()
	}
	all()
	if owing() != 0 {
		t.Fatalf("%d debts at the beginning", owing())
	}
	before := w.endpointRevision
	w.disconnect(workID(3, 0))
	w.put("ServiceAvailability", "east.s3", &federationv1.ServiceAvailability{Zone: "east", Service: "s3",
		TagSets: []*federationv1.TagSet{{Tags: map[string]string{resource.TagService: "s3", resource.TagProtocol: "http"}, Count: replicasEach - 1}}})
	if w.endpointRevision != before+1 || owing() != 0 || w.revisions.live[len(w.revisions.live)-1].Revision != w.revision {
		t.Errorf("an endpoint has ended, and what this zone offers comes back: %d debts at endpoints %d, %v is live", owing(), w.endpointRevision, w.revisions.live)
	}
	w.disconnect(workID(3, 1))
	threshold := uint32(50)
	w.put("LocalityPolicy", "l", &meshv1.LocalityPolicy{Destinations: []*meshv1.Selector{{Match: map[string]string{resource.TagService: "s3"}}},
		Conf: &meshv1.LocalityPolicy_Conf{FailoverThreshold: &threshold}})
	if owing() != replicasEach || w.revisions.live[len(w.revisions.live)-1].Revision == w.revision {
		t.Errorf("a policy for them: %d debts, want %d; %v is live", owing(), replicasEach, w.revisions.live)
	}
	all()
	if owing() != 0 || w.revisions.live[len(w.revisions.live)-1].Revision != w.revision {
		t.Errorf("all have acknowledged: %d debts, %v is live", owing(), w.revisions.live)
	}
}
