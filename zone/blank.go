package zone

import (
	"maps"
	"slices"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/zone/state"
)

// blank is what a zone keeps as it is that knows none of its endpoints, as it lost its state or came back with a new disk: the proxies that
// come back first still have those that come back last, and so have other zones. Until the grace ends, an endpoint that isn't known is
// no reason to take it away. A zone that is new is blank only until global says so.
type blank struct {
	// lost says that there was a state.
	lost bool
	// given are the endpoints that were known to be there since, and kept those of which none is known. By name.
	given, kept map[string]bool
	// heard is when global gave the keys by which proxies can come back.
	heard time.Time
}

func (b *blank) heardOfKeys(now time.Time) {
	if b != nil && b.heard.IsZero() {
		b.heard = now
	}
}

// more is by how much the grace is longer, as nobody can come back before the zone has heard of global.
func (b *blank) more(grace time.Duration, now time.Time) time.Duration {
	switch {
	case b == nil:
		return 0
	case b.heard.IsZero():
		return grace
	}
	return b.heard.Add(grace).Sub(now)
}

// keeps tells whether clients keep the endpoints that they may have. A nil blank keeps none.
func (b *blank) keeps(e *ir.Endpoints) bool {
	if b == nil {
		return false
	}
	empty := !slices.ContainsFunc(e.Localities, func(l ir.Locality) bool { return len(l.Endpoints) > 0 })
	if empty && !b.given[e.Name] {
		b.kept[e.Name] = true
		return true
	}
	b.given[e.Name] = true
	delete(b.kept, e.Name)
	return false
}

// welcomed is told what global has of the zone's offers; nil when it doesn't say.
func (c *core) welcomed(offered *kdsv1.Digest) {
	if c.blank != nil && offered.GetCount() == 0 && (offered != nil || !c.blank.lost) {
		c.endBlank()
	}
}

// offer tells other zones what this one has; one that is blank can't know yet.
func (c *core) offer() {
	if c.blank == nil {
		c.report.setOffer(c.state.Offer())
	}
}

// endBlank lets go of what did not come back.
func (c *core) endBlank() {
	if c.blank == nil {
		return
	}
	kept := slices.Collect(maps.Keys(c.blank.kept))
	c.blank = nil
	var work state.Work
	c.endpoints(kept, nil, nil, &work)
	c.metrics.work(work)
	c.offer()
}
