package server

import (
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// Streams rest the longer the more is delivered, and not at all while there is little, or after it has become little again.
func TestStreamsRestWhileMuchIsDelivered(t *testing.T) {
	p := pace{many: 1000}
	for _, c := range []struct {
		rate int
		want time.Duration
	}{{0, 0}, {1000, 0}, {1500, longestRest / 2}, {2000, longestRest}, {50_000, longestRest}, {1000, 0}} {
		end := p.begun + span
		for range c.rate * int(span) / int(time.Second) {
			p.count(end - 1)
		}
		if got := p.rest(end); got != c.want {
			t.Errorf("at %d deliveries a second a stream rests for %s, want %s", c.rate, got, c.want)
		}
	}
	for range 1000 {
		p.count(p.begun)
	}
	if got := p.rest(p.begun + time.Hour); got != 0 {
		t.Errorf("after an hour without any, a stream rests for %s", got)
	}
}

// A stream rests for its time, less than two notches more, and never a turn of the wheel.
func TestStreamsRestForTheirTime(t *testing.T) {
	for rest := time.Duration(0); rest <= longestRest; rest += notch / 4 {
		var w wheel
		for range 3 {
			w.turn()
		}
		one := &stream{}
		if !w.put(one, rest) || w.put(&stream{}, longestRest) {
			t.Fatal("who comes first has the wheel turned, and nobody else")
		}
		took := time.Duration(0)
		for due := w.turn(); len(due) == 0 || due[0] != one; due = w.turn() {
			if took += notch; took > longestRest {
				t.Fatalf("a stream that rests for %s is still there", rest)
			}
		}
		if took > rest || took+notch < rest {
			t.Errorf("a stream that rests for %s does so for %s to %s", rest, took, took+notch)
		}
	}
}

// While much is delivered, a proxy that was given endpoints is given what changes from then on later, and all of it at once, with one look
// for that and for its acknowledgement; what else concerns it waits for nothing.
func TestAChangeOfEndpointsWaitsWhileMuchIsDelivered(t *testing.T) {
	s := newServer(t)
	now, turn := time.Hour, func() {}
	s.queue.workers = 1 << 20 // none that would take anything
	s.queue.pace = pace{now: func() time.Duration { return now }, many: 1000}
	s.queue.after = func(_ time.Duration, f func()) { turn = f }
	names := []string{"a", "b"}
	set := func(revision uint64, name string) {
		s.SetEndpoints(revision, map[string]*xds.Resource{name: load(t, name, uint32(revision))})
	}
	set(1, "a")
	set(2, "b")
	s.SetProxy("p", 1, clusters(t, names...), nil)
	st := attached(s, "p")
	st.queued.Store(false)
	looks := 0
	// work is what workers do.
	work := func() {
		s.queue.workers++ // as next takes leave of one that finds nothing
		for next := s.queue.next(); next != nil; next = s.queue.next() {
			looks++
			next.news()
		}
	}
	var sent []*response
	st.send = func(r *response) error { sent = append(sent, r); return nil }
	st.handled = make(chan struct{}, 1)
	ask := func(req *discoveryv3.DeltaDiscoveryRequest) {
		waits := st.receive(deltaRequest{req})
		work()
		if waits {
			<-st.handled
		}
	}
	acknowledge := func() {
		for len(sent) > 0 {
			r := sent[0]
			sent = sent[1:]
			ask(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.typeURL, ResponseNonce: r.nonce})
		}
	}
	for _, req := range []*discoveryv3.DeltaDiscoveryRequest{{TypeUrl: xds.TypeCluster}, {TypeUrl: xds.TypeListener}, {TypeUrl: xds.TypeEndpoint, ResourceNamesSubscribe: names}} {
		ask(req)
		acknowledge()
	}
	if st.session.Progress().Acked != 1 || !st.session.calm {
		t.Fatalf("did not start: %+v", st.session.Progress())
	}

	for range 2000 * int(span) / int(time.Second) {
		s.queue.delivered()
	}
	now += span
	set(3, "a")
	work()
	if len(sent) != 1 {
		t.Fatal("the first change after a rest waits")
	}
	looks = 0
	acknowledge()
	set(4, "a")
	set(5, "b")
	work()
	if looks != 0 || len(sent) != 0 {
		t.Fatalf("%d looks and %d responses before the proxy has rested", looks, len(sent))
	}
	for range longestRest/notch + 1 {
		now += notch
		turn()
	}
	work()
	if looks != 1 || len(sent) != 1 || len(sent[0].upserts) != 2 || sent[0].upserts[0] != s.lookup("a") {
		t.Fatalf("%d looks and %d responses, want one with all that changed", looks, len(sent))
	}
	s.SetProxy("p", 2, clusters(t, "a"), nil)
	work()
	if st.session.want.revision != 2 {
		t.Error("another configuration waits, too")
	}
}
