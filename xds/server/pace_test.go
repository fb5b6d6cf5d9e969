package server

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// Changes of endpoints wait while more is taken of the processors than the share. What was not taken of it before may be taken beyond it, up
// to a second's, and what was taken too much is made up for, up to half a second's.
func TestEndpointsWaitWhileProcessorsAreBusy(t *testing.T) {
	now, used := time.Hour, time.Minute
	p := pace{now: func() time.Duration { return now }, used: func() time.Duration { return used }, processors: 0.8, looked: now, had: used}
	for _, c := range []struct {
		what          string
		passed, taken time.Duration
		credit        time.Duration
	}{
		{"nothing was saved", 0, 0, 0},
		{"the share was taken", 100 * time.Millisecond, 80 * time.Millisecond, 0},
		{"less was", 100 * time.Millisecond, 30 * time.Millisecond, 50 * time.Millisecond},
		{"so more may be", 100 * time.Millisecond, 120 * time.Millisecond, 10 * time.Millisecond},
		{"but no more than that", 100 * time.Millisecond, 120 * time.Millisecond, -30 * time.Millisecond},
		{"until it is made up for", 25 * time.Millisecond, 0, -10 * time.Millisecond},
		{"and not before", 20 * time.Millisecond, 0, 6 * time.Millisecond},
		{"what is taken within a glance", glance / 2, 20 * time.Millisecond, 6 * time.Millisecond},
		{"is seen after it", glance / 2, 0, 6*time.Millisecond + p.worth(glance) - 20*time.Millisecond},
		{"no more is saved than a second's", time.Hour, 0, 800 * time.Millisecond},
		{"no more is owed than half a second's", time.Hour, 2 * time.Hour, -400 * time.Millisecond},
		{"and made up for in that", owed + glance, 0, p.worth(glance)},
	} {
		now, used = now+c.passed, used+c.taken
		if got := p.room(now); got != (c.credit > 0) || (p.credit-c.credit).Abs() > time.Microsecond {
			t.Errorf("%s: %s may be taken, want %s; room is %t", c.what, p.credit, c.credit, got)
		}
	}
}

// However busy the processors are, some deliveries are made, and who has waited for long is given what waits.
func TestEndpointsDoNotWaitForEver(t *testing.T) {
	now := time.Hour
	p := pace{now: func() time.Duration { return now }, used: func() time.Duration { return 2 * now }, processors: 0.8, few: 1000, looked: now, had: 2 * now}
	came, made := now, 0
	for now < came+longestWait {
		if p.room(came) {
			made++
			p.take()
			continue
		}
		now += glance
	}
	if want := int(longestWait.Seconds() * p.few); made < want-want/100 || made > want {
		t.Errorf("%d deliveries in %s of full processors, want %d", made, longestWait, want)
	}
	for range 100 {
		if !p.room(came) {
			t.Fatalf("who came %s ago still waits", now-came)
		}
		p.take()
	}
	if p.room(came + time.Millisecond) {
		t.Error("so does who came later")
	}
}

// A line of thousands to whom something changes all the time is served in turn, at the share, however long one takes; and what kept the
// processors busy before is soon forgotten.
func TestDeliveriesSettleAtTheShare(t *testing.T) {
	for _, c := range []struct {
		proxies int
		price   time.Duration
	}{{100, 50 * time.Microsecond}, {2000, 50 * time.Microsecond}, {2000, 150 * time.Microsecond}, {10_000, 50 * time.Microsecond}, {10_000, 150 * time.Microsecond}} {
		now, used, again := time.Hour, time.Duration(0), func() {}
		q := queue{workers: runtime.GOMAXPROCS(0) + 1, after: func(_ time.Duration, f func()) { again = f }, // none that would take anything
			pace: pace{now: func() time.Duration { return now }, used: func() time.Duration { return used }, processors: 0.9, few: 2000, looked: now, credit: -time.Hour}}
		looks := map[*stream]int{}
		for range c.proxies {
			st := &stream{}
			looks[st] = 0
			q.addEndpoints(st)
		}
		changed := func(st *stream) { looks[st]++; q.addEndpoints(st) }
		begun := now
		for now < begun+10*time.Second {
			q.workers++ // as next takes leave of one that finds nothing
			var served []*stream
			for st := q.next(); st != nil; st = q.next() {
				served = append(served, st)
				now, used = now+c.price, used+c.price
			}
			for _, st := range served {
				changed(st)
			}
			now += notch
			again()
		}
		// Each is given something once a notch at most.
		most := min(0.9, c.price.Seconds()*float64(c.proxies)/(notch.Seconds()+c.price.Seconds()*float64(c.proxies)))
		if got := used.Seconds() / (now - begun).Seconds(); got > most*1.05 || got < most*0.9 {
			t.Errorf("%d proxies that are given something for %s take %.2f processors, want %.2f", c.proxies, c.price, got, most)
		}
		least, greatest := math.MaxInt, 0
		for _, n := range looks {
			least, greatest = min(least, n), max(greatest, n)
		}
		if greatest > least+1 {
			t.Errorf("of %d proxies one was given something %d times, and another %d times", c.proxies, least, greatest)
		}
		if held := cap(q.paced.streams); held > 4*c.proxies {
			t.Errorf("a line of %d has room for %d", c.proxies, held)
		}
	}
}

// While processors are busy, a proxy is given what changes of its endpoints later, and all of it at once, with one look
// for that and for its acknowledgement; what else concerns it waits for nothing.
func TestAChangeOfEndpointsWaitsWhileMuchIsDelivered(t *testing.T) {
	s := newServer(t)
	now, again := time.Hour, func() {}
	s.queue.workers = 1 << 20 // none that would take anything
	taken := time.Duration(0)
	s.queue.pace = pace{now: func() time.Duration { return now }, used: func() time.Duration { return taken }, processors: 1, looked: now, credit: 1}
	s.queue.after = func(_ time.Duration, f func()) { again = f }
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

	set(3, "a")
	work()
	if len(sent) != 1 {
		t.Fatal("the first change waits")
	}
	looks = 0
	now, taken = now+time.Second, taken+time.Minute
	acknowledge()
	set(4, "a")
	set(5, "b")
	work()
	if looks != 0 || len(sent) != 0 {
		t.Fatalf("%d looks and %d responses while processors are busy", looks, len(sent))
	}
	now += owed + notch
	again()
	work()
	if looks != 1 || len(sent) != 1 || len(sent[0].upserts) != 2 || sent[0].upserts[0] != s.lookup("a") {
		t.Fatalf("%d looks and %d responses, want one with all that changed", looks, len(sent))
	}
	taken += time.Minute
	s.SetProxy("p", 2, clusters(t, "a"), nil)
	work()
	if st.session.want.revision != 2 {
		t.Error("another configuration waits, too")
	}
}

// However endpoints come and go, and while there is hardly room for it, each proxy is given the newest of all in the end.
func TestEachProxyIsGivenTheNewestAfterChurn(t *testing.T) {
	const proxies, services, changes = 40, 6, 3000
	f := newFleet(t, proxies, services)
	f.s.Heed(0)
	f.s.queue.mu.Lock()
	f.s.queue.pace.processors, f.s.queue.pace.few = 0, 4000
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
