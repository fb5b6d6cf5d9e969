package gossip

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// said is what a book holds, as text.
func said(b *book) map[string]string {
	out := map[string]string{}
	if b != nil {
		for key, i := range b.records {
			out[key] = fmt.Sprintf("%d=%s", i.Version, i.Value)
		}
	}
	return out
}

func versionOf(b *book) uint64 {
	if b == nil {
		return 0
	}
	return b.version
}

// scribe writes and erases at random, and remembers what it said at each version.
type scribe struct {
	*state
	rnd     *rand.Rand
	history map[uint64]map[string]string
}

func newScribe(name string, rnd *rand.Rand) *scribe {
	s := &scribe{newState(name, time.Hour), rnd, map[uint64]map[string]string{0: {}}}
	s.join(name, "")
	return s
}

func (s *scribe) act(now time.Time) {
	key := fmt.Sprint("k", s.rnd.IntN(12))
	if s.rnd.IntN(3) == 0 {
		s.erase(key, now)
	} else {
		s.write(key, []byte{byte('a' + s.rnd.IntN(26))}, now)
	}
	s.history[s.own().version] = said(s.own())
}

func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// The order, the grouping and the number of copies in which a replica hears of another one's records make no difference.
func TestMergeIsCommutativeAssociativeIdempotent(t *testing.T) {
	rnd, now := seeded(t), time.Unix(1, 0)
	for range 300 {
		owners := []*scribe{newScribe("a", rnd), newScribe("b", rnd)}
		var parts []content
		for range 6 {
			o := owners[rnd.IntN(2)]
			for range 1 + rnd.IntN(4) {
				o.act(now)
			}
			c, ok := o.answer(want{Owner: o.self})
			if !ok {
				t.Fatal("an owner has no answer")
			}
			parts = append(parts, c)
		}
		merged := func(order ...int) map[string]map[string]string {
			s := newState("self", time.Hour)
			for _, i := range order {
				s.take(parts[i], now)
			}
			return map[string]map[string]string{"a": said(s.books["a"]), "b": said(s.books["b"])}
		}
		all := merged(0, 1, 2, 3, 4, 5)
		if want := map[string]map[string]string{"a": said(owners[0].own()), "b": said(owners[1].own())}; !reflect.DeepEqual(all, want) {
			t.Fatalf("have %v, want %v", all, want)
		}
		order := rnd.Perm(len(parts))
		if got := merged(append(order, rnd.Perm(len(parts))...)...); !reflect.DeepEqual(got, all) {
			t.Fatalf("order %v gives %v, not %v", order, got, all)
		}
		// What one replica merged of some of them, merged with what another did of the others.
		left, right := newState("l", time.Hour), newState("r", time.Hour)
		for i := range parts {
			[]*state{left, right}[rnd.IntN(2)].take(parts[i], now)
		}
		for _, s := range right.summaries() {
			if w := left.compare("r", s); w != nil {
				if c, ok := right.answer(*w); ok {
					left.take(c, now)
				}
			}
		}
		if got := map[string]map[string]string{"a": said(left.books["a"]), "b": said(left.books["b"])}; !reflect.DeepEqual(got, all) {
			t.Fatalf("in two groups: %v, not %v", got, all)
		}
	}
}

// However frames are lost, doubled and late, a copy is always what its owner held at one time and never goes back; and once frames arrive, it is what the owner holds.
func TestCopiesAreWholeAndConverge(t *testing.T) {
	rnd, now := seeded(t), time.Unix(1, 0)
	for range 200 {
		owner := newScribe("owner", rnd)
		copies := []*state{newState("x", time.Hour), newState("y", time.Hour)}
		type letter struct {
			to    int
			frame frame
		}
		var post []letter
		was := make([]uint64, len(copies))
		deliver := func(l letter) {
			c := copies[l.to]
			ask := func(w *want) {
				if w == nil {
					return
				}
				// Either the owner or the other copy answers.
				from := []*state{owner.state, copies[1-l.to]}[rnd.IntN(2)]
				if a, ok := from.answer(*w); ok {
					post = append(post, letter{l.to, frame{Contents: []content{a}}})
				}
			}
			if l.frame.Delta != nil {
				_, missing := c.change(*l.frame.Delta, now)
				ask(missing)
			}
			for _, o := range l.frame.Contents {
				c.take(o, now)
			}
			for _, s := range l.frame.Summaries {
				ask(c.compare("owner", s))
			}
			b := c.books["owner"]
			if v := versionOf(b); v < was[l.to] || !maps.Equal(said(b), owner.history[v]) {
				t.Fatalf("after %+v the copy has version %d, was %d: %v, want %v", l.frame, v, was[l.to], said(b), owner.history[v])
			}
			was[l.to] = versionOf(b)
		}
		told := []uint64{0, 0}
		send := func(to int) {
			f := frame{Summaries: owner.summaries()}
			if d, ok := owner.since(told[to]); ok && rnd.IntN(4) > 0 {
				f = frame{Delta: &d}
			}
			told[to] = owner.own().version
			post = append(post, letter{to, f})
		}
		for range 80 {
			switch rnd.IntN(4) {
			case 0, 1:
				owner.act(now)
			case 2:
				send(rnd.IntN(2))
			case 3:
				if len(post) == 0 {
					continue
				}
				i := rnd.IntN(len(post))
				l := post[i]
				if rnd.IntN(4) > 0 { // else it comes again
					post = append(post[:i], post[i+1:]...)
				}
				if rnd.IntN(5) > 0 { // else it is lost
					deliver(l)
				}
			}
		}
		post = nil
		for to := range copies {
			send(to)
			send(to)
		}
		for len(post) > 0 {
			l := post[0]
			post = post[1:]
			deliver(l)
		}
		for to, c := range copies {
			for w := c.compare("owner", owner.summaries()[0]); w != nil; w = c.compare("owner", owner.summaries()[0]) {
				a, _ := owner.answer(*w)
				c.take(a, now)
			}
			if !maps.Equal(said(c.books["owner"]), said(owner.own())) {
				t.Fatalf("copy %d has %v, the owner %v", to, said(c.books["owner"]), said(owner.own()))
			}
		}
	}
}

// What went wrong in the memory of one replica is found by its sum, and only the buckets that differ travel.
func TestDifferenceIsMendedByBuckets(t *testing.T) {
	now := time.Unix(1, 0)
	owner, s := newScribe("owner", nil), newState("x", time.Hour)
	for i := range 5000 {
		owner.write(fmt.Sprint("k", i), []byte("value"), now)
	}
	all, _ := owner.answer(*s.wants("owner"))
	if !s.take(all, now) || len(all.Items) != 5000 {
		t.Fatalf("took %d records", len(all.Items))
	}
	b := s.books["owner"]
	lost := b.records["k7"]
	b.drop("k7")
	if w := s.compare("y", owner.summaries()[0]); w != nil {
		t.Fatal("a copy was asked which of two is right")
	}
	w := s.compare("owner", owner.summaries()[0])
	if w == nil {
		t.Fatal("the loss was not found")
	}
	c, _ := owner.answer(*w)
	if len(c.Buckets) != 1 || len(c.Items) > 5000/buckets*3 {
		t.Fatalf("%d buckets with %d records were sent for one", len(c.Buckets), len(c.Items))
	}
	if !s.take(c, now) || !reflect.DeepEqual(s.books["owner"].records["k7"], lost) {
		t.Fatal("it was not mended")
	}
	if raw, err := encode(frame{From: "owner", Summaries: owner.summaries()}); err != nil || len(raw) > 512 {
		t.Fatalf("push/pull carries %d bytes for 5000 records, %v", len(raw), err)
	}
}

// Deleted records leave nothing behind, and what is remembered of changes is bounded.
func TestStateIsBounded(t *testing.T) {
	now := time.Unix(1, 0)
	s := newState("self", time.Hour)
	for i := range 5 * maxChanges {
		s.write(fmt.Sprint("k", i), nil, now)
		s.erase(fmt.Sprint("k", i), now)
		clear(s.touched)
	}
	if len(s.own().records) != 0 || s.own().sum() != (sum{}) || len(s.log) > 2*maxChanges {
		t.Fatalf("%d records, %d changes", len(s.own().records), len(s.log))
	}
	if _, ok := s.since(s.start - 1); ok {
		t.Fatal("changes were given that are forgotten")
	}
}

func TestBuriedRecordsStayGoneUntilTheirOwnerReturns(t *testing.T) {
	now := time.Unix(1, 0)
	owner, s := newScribe("b", nil), newState("self", time.Minute)
	owner.write("k", []byte("v"), now)
	c, _ := owner.answer(want{Owner: "b"})
	s.join("b", "")
	s.take(c, now)
	s.leave("b", now)
	// Silent, and it may live: for as long as nobody says that it is gone, and then for the grace.
	lives := func(d Departed) (time.Time, bool) {
		if d != (Departed{Name: "b", Since: now}) {
			t.Errorf("asked about %+v", d)
		}
		return time.Time{}, false
	}
	later := now.Add(time.Hour)
	died := func(Departed) (time.Time, bool) { return later, true }
	if s.expire(now.Add(1000*time.Hour), lives) {
		t.Fatal("records of a replica that may live have gone")
	}
	if s.expire(later.Add(59*time.Second), died) || !s.expire(later.Add(time.Minute), died) {
		t.Fatal("records must go when the grace is over, not before")
	}
	if s.compare("c", owner.summaries()[0]) != nil || s.take(c, now) {
		t.Fatal("a peer brought a buried record back")
	}
	s.join("b", "")
	if s.compare("b", owner.summaries()[0]) == nil || !s.take(c, now) {
		t.Fatal("the owner's return must make its records welcome")
	}
}

// A goodbye may come before memberlist notices that its sender has left, or after.
func TestGoodbyeIsToldFromDeath(t *testing.T) {
	now := time.Unix(1, 0)
	for _, c := range []struct {
		name string
		do   func(s *state)
		left bool
	}{
		{"death", func(s *state) { s.leave("b", now) }, false},
		{"goodbye", func(s *state) { s.bye("b"); s.leave("b", now) }, true},
		{"late goodbye", func(s *state) { s.leave("b", now); s.bye("b") }, true},
		{"goodbye, return and death", func(s *state) { s.bye("b"); s.leave("b", now); s.join("b", ""); s.leave("b", now) }, false},
	} {
		s := newState("self", time.Minute)
		s.join("b", "")
		c.do(s)
		if got := s.gone(); len(got) != 1 || got[0] != (Departed{Name: "b", Since: now, Left: c.left}) {
			t.Errorf("%s: %+v", c.name, got)
		}
		if s.bye("stranger"); len(s.byes)+len(s.departed) != 1 {
			t.Errorf("%s: a stranger's goodbye is kept", c.name)
		}
	}
}

// A replica that was started again under the same name overrules what it said before, with a clock that went back too.
func TestRestartedOwnerOverrulesItsFormerLife(t *testing.T) {
	former, s, peer := newScribe("self", nil), newState("self", 0), newState("peer", time.Hour)
	former.write("kept", []byte("old"), time.Unix(0, 90))
	former.write("lost", []byte("old"), time.Unix(0, 91))
	c, _ := former.answer(want{Owner: "self"})
	peer.take(c, time.Unix(0, 92))
	s.write("kept", []byte("new"), time.Unix(0, 5))
	if _, ok := s.since(1); ok {
		t.Fatal("changes lead from a former life to this one")
	}
	if s.compare("peer", peer.summaries()[1]) != nil || s.own().version <= 91 {
		t.Fatalf("the former life is not overruled: %d", s.own().version)
	}
	w := peer.compare("self", s.summaries()[0])
	if w == nil {
		t.Fatal("the new life is no news")
	}
	c, _ = s.answer(*w)
	if peer.take(c, time.Unix(0, 93)); !maps.Equal(said(peer.books["self"]), said(s.own())) {
		t.Fatalf("peer has %v, self %v", said(peer.books["self"]), said(s.own()))
	}
}
