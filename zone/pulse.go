package zone

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// stoodStill is after how long without a beat a replica is taken to have stood still.
	stoodStill = 3 * tellEvery
	// settling is how long it may take after that to hear what happened meanwhile.
	settling = 10 * time.Second
)

// pulse tells a replica that has stood still, as one that was paused: streams that ended meanwhile say nothing of their proxies, which may be
// at another replica that this one has yet to hear from. Safe for concurrent use.
type pulse struct{ last, until atomic.Int64 }

// run beats until ctx ends.
func (p *pulse) run(ctx context.Context) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.beat(now)
		}
	}
}

// beat is called every tellEvery.
func (p *pulse) beat(now time.Time) {
	if p.missed(now) {
		p.until.Store(now.Add(settling).UnixNano())
	}
	p.last.Store(now.UnixNano())
}

func (p *pulse) missed(now time.Time) bool {
	last := p.last.Load()
	return last != 0 && now.Sub(time.Unix(0, last)) > stoodStill
}

// unsettled says whether this replica stands still now and then, or did a moment ago.
func (p *pulse) unsettled(now time.Time) bool {
	return p.missed(now) || now.UnixNano() < p.until.Load()
}

// park keeps the endpoints of a proxy whose last stream ended while this replica stood still, until another replica says that it has it, or
// the grace ends. It reports whether it did.
func (c *core) park(p *proxy) bool {
	if c.siblings == nil || !c.siblings.pulse.unsettled(time.Now()) {
		return false
	}
	known, ok := c.state.Proxy(p.id)
	if !ok || known.Opening {
		return false
	}
	if _, _, claimed := c.siblings.roster.Owner(p.id); claimed {
		return false
	}
	// Both before anything is built, so that nobody sees it go and come.
	c.state.Unregister(p.id)
	known.Refused = nil
	c.state.Register(known, false)
	c.restored[p.id] = &proxy{id: p.id, since: p.since}
	if c.graceEnds == nil {
		c.graceEnds = time.After(c.grace)
	}
	c.log.Info("proxy's stream ended while this replica stood still", zap.String("proxy", p.id))
	return true
}
