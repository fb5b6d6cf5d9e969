// Package replicas owns which replica of a zone has which proxy: it merges what each replica says of the proxies that are connected to it,
// and judges when a replica that is not heard of is gone.
//
// It is pure: no I/O, no goroutine, no clock. It never reads what a proxy presents.
package replicas

import "time"

// Claim is what a replica says of a proxy that serves and is connected to it.
type Claim struct {
	// Stamp orders the claims of a proxy. It follows the clock, and is above all claims that the replica had heard of, so that a proxy
	// that goes from one replica to another belongs to the other whatever their clocks say.
	Stamp uint64 `json:"stamp"`
	// Registration is what the proxy presents.
	Registration []byte `json:"registration"`
}

// Roster holds the claims of other replicas. What it says follows from the newest claim of each replica, whatever came before. It has
// one owner, whose calls must not overlap.
type Roster struct {
	claims map[string]map[string]Claim // by proxy and replica
}

// New makes a roster without claims.
func New() *Roster { return &Roster{claims: map[string]map[string]Claim{}} }

// Hear takes the newest claim of a replica.
func (r *Roster) Hear(replica, proxy string, c Claim) {
	if r.claims[proxy] == nil {
		r.claims[proxy] = map[string]Claim{}
	}
	r.claims[proxy][replica] = c
}

// Forget takes a claim away: the proxy has left that replica, or the replica is gone for good.
func (r *Roster) Forget(replica, proxy string) {
	delete(r.claims[proxy], replica)
	if len(r.claims[proxy]) == 0 {
		delete(r.claims, proxy)
	}
}

// Outdate forgets the claims of a proxy, below a stamp, by replicas that are not heard of: it has left them since, and nobody can say so.
func (r *Roster) Outdate(proxy string, stamp uint64, silent func(replica string) bool) {
	for replica, c := range r.claims[proxy] {
		if c.Stamp < stamp && silent(replica) {
			r.Forget(replica, proxy)
		}
	}
}

// Owner is the replica with the newest claim of a proxy; ok is false when none claims it.
func (r *Roster) Owner(proxy string) (replica string, c Claim, ok bool) {
	for name, other := range r.claims[proxy] {
		if !ok || other.Stamp > c.Stamp || other.Stamp == c.Stamp && name > replica {
			replica, c, ok = name, other, true
		}
	}
	return replica, c, ok
}

// Next is the stamp of a claim that is made now.
func (r *Roster) Next(proxy string, now time.Time) uint64 {
	_, c, _ := r.Owner(proxy)
	return max(c.Stamp+1, uint64(max(now.UnixNano(), 0)))
}

// Len is how many proxies other replicas claim.
func (r *Roster) Len() int { return len(r.claims) }
