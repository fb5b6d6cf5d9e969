package gossip

import (
	"maps"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// Whatever a replica sends, it is refused whole, or taken in a way that a second copy doesn't change; what this replica says of itself
// stays its own.
func FuzzMerge(f *testing.F) {
	other := newState("b", time.Minute)
	other.write("k", []byte("v"), time.Unix(1, 0))
	other.write("l", nil, time.Unix(2, 0))
	d, _ := other.since(other.start)
	c, _ := other.answer(want{Owner: "b"})
	for _, seed := range []frame{
		{From: "b", Summaries: other.summaries()}, {From: "b", Delta: &d, Contents: []content{c}}, {From: "b", Wants: []want{*other.wants("b"), {Owner: "a"}}},
		{From: "b", Contents: []content{{Owner: "a", Version: 1 << 40, Items: []item{{Key: "mine", Version: 7, Value: []byte("forged")}}}}},
	} {
		b, err := encode(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"format": 1, "records": []}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decode(b)
		if err != nil {
			return
		}
		g, err := New(Config{Name: "a", Insecure: true, Grace: time.Minute, Now: func() time.Time { return time.Unix(1000, 0) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Put("mine", []byte("own")); err != nil {
			t.Fatal(err)
		}
		g.outboxes["b"] = newOutbox(g, &memberlist.Node{Name: "b"})
		g.receiveLocked(got)
		once := map[string]map[string]string{}
		for owner, b := range g.state.books {
			once[owner] = said(b)
		}
		g.receiveLocked(got)
		for owner, b := range g.state.books {
			if !maps.Equal(said(b), once[owner]) {
				t.Fatalf("of %s: %v, and after a second copy %v", owner, once[owner], said(b))
			}
		}
		if own := g.state.own().records; len(own) != 1 || string(own["mine"].Value) != "own" {
			t.Fatalf("what another said of this replica counts: %v", own)
		}
		reply, _, _ := g.outboxes["b"].next()
		raw, err := encode(reply)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(raw); err != nil {
			t.Fatalf("the answer to it is no frame: %v", err)
		}
		g.state.expire(time.Unix(1e6, 0), g.config.Gone)
	})
}
