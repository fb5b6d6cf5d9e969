package server

import (
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// Streams rest for longer as long as more is taken of the processors than the share, until it isn't, and not at all while it is less;
// and ever less while few deliveries are made, as others take the processors then.
func TestStreamsRestWhileProcessorsAreBusy(t *testing.T) {
	var used time.Duration
	p := pace{most: 100 * time.Millisecond, few: 10, used: func() time.Duration { return used }}
	deliver := func(n int, took time.Duration) {
		used += took
		for range n {
			p.count(p.begun + span - 1)
		}
		p.roll(p.begun + span)
	}
	full := int(longestRest/step) * 100
	for _, c := range []struct {
		delivered, milliseconds int
		want                    time.Duration
	}{{0, 0, 0}, {20, 100, 0}, {20, 150, step / 2}, {20, 200, step + step/2}, {20, 100, step + step/2}, {20, 50, step}, {10, 200, 2 * step},
		{9, 200, 2*step - step/10}, {0, 200, step - step/10}, {100, 2 * full, longestRest}, {20, 100, longestRest}, {0, 0, longestRest - step}} {
		deliver(c.delivered, time.Duration(c.milliseconds)*time.Millisecond)
		if p.rest != c.want || p.until(time.Hour, p.begun) != time.Hour+c.want {
			t.Errorf("after %d deliveries in a span of which %d ms were taken a stream rests for %s, want %s", c.delivered, c.milliseconds, p.rest, c.want)
		}
	}
	deliver(5000, time.Hour)
	used += 100 * time.Millisecond
	for range 20 {
		p.count(p.begun)
	}
	if got := p.until(0, p.begun+3*span); got != longestRest-2*step {
		t.Errorf("after a span of enough and two without deliveries, a stream rests for %s", got)
	}
	deliver(5000, time.Hour)
	if got := p.until(0, p.begun+time.Hour); got != 0 {
		t.Errorf("after an hour without any, a stream rests for %s", got)
	}
}

// Thousands of proxies that always have something new are given it as often as there is room, whatever number of them there is and
// whatever one delivery takes.
func TestDeliveriesSettleAtTheShare(t *testing.T) {
	for _, c := range []struct {
		proxies int
		price   time.Duration
	}{{100, 50 * time.Microsecond}, {2000, 50 * time.Microsecond}, {2000, 150 * time.Microsecond}, {10_000, 50 * time.Microsecond}, {10_000, 100 * time.Microsecond}} {
		used := time.Duration(0)
		p := pace{most: 180 * time.Millisecond, few: 200, used: func() time.Duration { return used }}
		due := make([]time.Duration, c.proxies)
		last := time.Duration(0)
		for now := time.Duration(0); now < 20*time.Second; now += notch {
			if now == 15*time.Second {
				last = used
			}
			for i := range due {
				if due[i] <= now {
					p.count(now)
					used += c.price
					due[i] = now + max(p.until(0, now), notch)
				}
			}
		}
		most := min(p.most, time.Duration(c.proxies*int(span/notch))*c.price)
		if got := (used - last) / (5 * time.Second / span); got > most*12/10 || got < most*8/10 {
			t.Errorf("%d proxies that are given something for %s take %s in a span, want about %s", c.proxies, c.price, got, most)
		}
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
	s.queue.pace = pace{now: func() time.Duration { return now }, used: func() time.Duration { return 0 }, most: 1, rest: longestRest}
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
		waits := st.receive(read(t, req))
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

	now += longestRest
	s.queue.pace.begun, s.queue.pace.rest = now, longestRest
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

// However endpoints come and go, and while streams rest between two deliveries, each proxy is given the newest of all in the end.
func TestEachProxyIsGivenTheNewestAfterChurn(t *testing.T) {
	const proxies, services, changes = 40, 6, 3000
	f := newFleet(t, proxies, services)
	f.s.Heed(0)
	f.s.queue.mu.Lock()
	f.s.queue.pace.most, f.s.queue.pace.few, f.s.queue.pace.rest = 1, 0, 5*notch // and more with each span
	f.s.queue.mu.Unlock()

	var mu sync.Mutex
	has, newest := map[*pipe]map[string]string{}, map[string]string{}
	moved := make(chan struct{}, 1)
	given := func(p *pipe, resp *discoveryv3.DeltaDiscoveryResponse) {
		mu.Lock()
		defer mu.Unlock()
		if has[p] == nil {
			has[p] = map[string]string{}
		}
		for _, r := range resp.GetResources() {
			has[p][r.GetName()] = r.GetVersion()
		}
		select {
		case moved <- struct{}{}:
		default:
		}
	}
	f.given.Store(&given)
	for i := range changes {
		name := f.clusters[i%services]
		r := load(t, name, uint32(1+i/services%100))
		newest[name] = r.Version
		f.s.SetEndpoints(uint64(2+i), map[string]*xds.Resource{name: r})
	}
	missing := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		n = proxies - len(has)
		for _, versions := range has {
			for name, version := range newest {
				if versions[name] != version {
					n++
					break
				}
			}
		}
		return n
	}
	limit := time.After(time.Minute)
	for missing() > 0 {
		select {
		case <-moved:
		case <-limit:
			t.Fatalf("%d of %d proxies lack something", missing(), proxies)
		}
	}
}
