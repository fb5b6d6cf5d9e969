package zone

import (
	"maps"
	"slices"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/zone/state"
)

// blank is what a zone keeps as it is that lost its state, and with it all that it knew of its endpoints: the proxies that come back first
// still have those that come back last, and so have other zones. Until the grace ends, an endpoint that isn't known is no reason to
// take it away.
type blank struct {
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
	c.endpoints(kept, nil, &work)
	c.metrics.work(work)
	c.offer()
}
