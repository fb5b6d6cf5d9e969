package zone

import (
	"fmt"
	"testing"
	"time"
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
