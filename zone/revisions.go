package zone

import (
	"math"
	"slices"
	"time"

	"github.com/zoneforge/zoneforge/sync/kds"
)

// maxLive is how many of the newest revisions' times are kept and reported.
const maxLive = 100

// revisions tells since when each revision of global is live: on all proxies that it touches. A proxy that is given
// something by a revision owes it an acknowledgement; a revision is live when nothing is owed to it or to one before it.
// It is pure and for one goroutine.
type revisions struct {
	epoch string
	// taken is the newest revision that became configuration.
	taken   uint64
	pending []*pending // by revision, growing
	live    []kds.Live // the newest last, at most maxLive
}

type pending struct {
	revision uint64
	owed     int
	// known says that it was taken before this process began: proxies that were there then owe it, and may never come back, so
	// no later revision waits for it.
	known bool
}

// debt is what a proxy owes for a revision: it is paid when the proxy acknowledged config and endpoints, both counted by this
// process and not by global.
type debt struct {
	to        *pending
	config    uint64
	endpoints uint64
}

// unpayable is the config of a debt that no acknowledgement pays, as what it is for could not be built.
const unpayable = math.MaxUint64

// payable makes the debts that could not be paid payable by the next config.
func payable(debts []debt, config uint64) {
	for i := range debts {
		if debts[i].config == unpayable {
			debts[i].config = config
		}
	}
}

// begin is told of the epoch before each revision. What was of another one is void, as a restored backup may reach the same numbers.
func (r *revisions) begin(epoch string) {
	if r.epoch != epoch {
		r.pending, r.live = nil, nil
	}
	r.epoch = epoch
}

// take begins a revision. One that is lower voids what was pending before.
func (r *revisions) take(revision uint64) *pending {
	if n := len(r.pending); n > 0 && r.pending[n-1].revision == revision {
		return r.pending[n-1]
	}
	if revision < r.taken {
		r.pending, r.live = nil, nil
	}
	r.taken = revision
	p := &pending{revision: revision}
	r.pending = append(r.pending, p)
	return p
}

// newest is the newest revision that is not live yet, nil when all are.
func (r *revisions) newest() *pending {
	if len(r.pending) == 0 {
		return nil
	}
	return r.pending[len(r.pending)-1]
}

// settle turns what is owed nothing into live. It reports whether anything was.
func (r *revisions) settle(now time.Time) bool {
	if len(r.pending) > 1 && r.pending[0].known {
		r.pending = slices.Delete(r.pending, 0, 1)
	}
	n := 0
	for n < len(r.pending) && r.pending[n].owed <= 0 {
		// A repair at the same revision doesn't move the time at which it became live.
		if len(r.live) == 0 || r.live[len(r.live)-1].Revision < r.pending[n].revision {
			r.live = append(r.live, kds.Live{Revision: r.pending[n].revision, Since: now})
		}
		n++
	}
	r.pending = slices.Delete(r.pending, 0, n)
	if len(r.live) > maxLive {
		r.live = slices.Delete(r.live, 0, len(r.live)-maxLive)
	}
	return n > 0
}

// owe adds a debt, merged into one to the same revision.
func owe(debts []debt, d debt) []debt {
	if n := len(debts); n > 0 && debts[n-1].to == d.to {
		debts[n-1].config, debts[n-1].endpoints = max(debts[n-1].config, d.config), max(debts[n-1].endpoints, d.endpoints)
		return debts
	}
	d.to.owed++
	return append(debts, d)
}

// pay takes away the debts that are paid.
func pay(debts []debt, config, endpoints uint64) []debt {
	return slices.DeleteFunc(debts, func(d debt) bool {
		if d.config > config || d.endpoints > endpoints {
			return false
		}
		d.to.owed--
		return true
	})
}

// forgive takes all debts away, as those of a proxy that has gone.
func forgive(debts []debt) {
	for _, d := range debts {
		d.to.owed--
	}
}
