package kds

import (
	"testing"

	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// A zone that asks for it is told which of its replicas are connected, with the Welcome, at once when that changes, and never twice the same; one that
// doesn't ask is told nothing.
func TestSiblingsAreToldToWhoAsks(t *testing.T) {
	for _, asks := range []bool{true, false} {
		c := newCluster()
		if asks {
			c.zone.cfg.Features = []string{FeatureSiblings}
		}
		g := NewGlobal(c.cfg, c.now)
		var told []*kdsv1.Siblings
		carry := func() (frames int) {
			t.Helper()
			for _, f := range g.Ready().Frames {
				frames++
				c.zone.Receive(f.GlobalFrame, c.now)
			}
			for _, e := range c.zone.Ready().Events {
				if e.Siblings != nil {
					told = append(told, e.Siblings)
				}
			}
			return frames
		}
		c.zone.Connect(c.now)
		g.Receive(c.zone.Ready().Frames[0], c.now)
		first, second := &kdsv1.Siblings{Connected: []string{"b"}}, &kdsv1.Siblings{Gone: []string{"b"}, All: true}
		g.SetSiblings(first, c.now)
		g.Admit(Verdict{}, c.now)
		carry()
		g.SetSiblings(proto.CloneOf(first), c.now)
		if n := carry(); n != 0 {
			t.Errorf("asks %v: what is no news took %d frames", asks, n)
		}
		g.SetSiblings(second, c.now)
		want := 0
		if asks {
			want = 2
		}
		if n := carry(); n != want/2 {
			t.Errorf("asks %v: news took %d frames", asks, n)
		}
		if len(told) != want || asks && (!proto.Equal(told[0], first) || !proto.Equal(told[1], second)) {
			t.Errorf("asks %v: told %v", asks, told)
		}
		if r := c.zone.Ready(); r.Closed != nil {
			t.Errorf("asks %v: the stream ended: %v", asks, r.Closed)
		}
	}
}
