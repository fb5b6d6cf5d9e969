package zones

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/zoneforge/zoneforge/global/store"
)

// maxBatch bounds the operations that reports share a commit up to, as the store takes so many in one transaction.
const maxBatch = 90

// commits puts reports into the store. While one commit is under way, what others have to write waits and goes together: alone a
// report waits for nothing, and when a thousand zones report at the same time they make a few dozen changes for everybody to
// be told of rather than a thousand. It is safe for concurrent use.
type commits struct {
	store Store
	now   func() time.Time
	turn  chan struct{} // admits one who commits

	mu      sync.Mutex
	waiting []*report // guarded by mu
}

// report is what one zone has to write.
type report struct {
	zone  string
	claim store.Claim
	ops   []store.Op
	done  chan struct{} // closed when the rest is set
	at    int64
	err   error
}

func newCommits(s Store, now func() time.Time) *commits {
	return &commits{store: s, now: now, turn: make(chan struct{}, 1)}
}

// commit gives the revision at which the operations are in the store. Those of two reports that wait must not touch the same keys.
func (c *commits) commit(ctx context.Context, zone string, claim store.Claim, ops []store.Op) (revision int64, err error) {
	r := &report{zone: zone, claim: claim, ops: ops, done: make(chan struct{})}
	c.mu.Lock()
	c.waiting = append(c.waiting, r)
	c.mu.Unlock()
	for {
		select {
		case <-r.done:
			return r.at, r.err
		case c.turn <- struct{}{}:
			c.next()
			<-c.turn
		case <-ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			c.waiting = slices.DeleteFunc(c.waiting, func(o *report) bool { return o == r })
			return 0, ctx.Err()
		}
	}
}

// next commits what waits, as far as it goes together.
func (c *commits) next() {
	c.mu.Lock()
	n, ops := 0, 0
	for n < len(c.waiting) && (n == 0 || ops+len(c.waiting[n].ops) <= maxBatch) {
		ops += len(c.waiting[n].ops)
		n++
	}
	batch := slices.Clone(c.waiting[:n])
	c.waiting = slices.Delete(c.waiting, 0, n)
	c.mu.Unlock()
	if n == 0 {
		return
	}
	// It is for others, too, so it doesn't end with the stream of whoever has the turn.
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	at, err := c.write(ctx, batch)
	if err != nil && n > 1 && ctx.Err() == nil && !everybodys(err) {
		// Whatever is wrong with one is not the others'.
		for _, r := range batch {
			r.at, r.err = c.write(ctx, []*report{r})
			close(r.done)
		}
		return
	}
	for _, r := range batch {
		r.at, r.err = at, err
		close(r.done)
	}
}

// everybodys says that an error is the store's, whatever is written.
func everybodys(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrUnknownOutcome) || errors.Is(err, store.ErrNoSpace) || errors.Is(err, store.ErrFull)
}

func (c *commits) write(ctx context.Context, batch []*report) (int64, error) {
	change := store.Change{Author: author(batch[0].zone), Time: c.now(), Internal: true}
	for _, r := range batch {
		change.Ops = append(change.Ops, r.ops...)
		change.Claims = append(change.Claims, r.claim)
	}
	done, err := c.store.Commit(ctx, change)
	return done.Revision, err
}
