package kds

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// FeatureSiblings is what a zone names in its Hello that wants to know which of its other replicas are connected to global.
const FeatureSiblings = "siblings"

// SetSiblings gives the newest that is known of the zone's other replicas, which a zone that asked for it is told in the Welcome, and at
// once when it changes. s is not to be changed any more.
func (g *Global) SetSiblings(s *kdsv1.Siblings, now time.Time) {
	if !g.asksSiblings || proto.Equal(g.siblings, s) {
		return
	}
	g.siblings = s
	if g.state >= Steady && g.state != Closed {
		g.beat(now)
	}
}

func asksSiblings(h *kdsv1.Hello) bool { return slices.Contains(h.GetFeatures(), FeatureSiblings) }
