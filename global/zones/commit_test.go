package zones

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
)

// slow is a store whose commits wait to be let go, and in which one key conflicts.
type slow struct {
	began, goOn chan struct{}
	conflict    resource.Key

	mu   sync.Mutex
	done [][]store.Op
}

func (s *slow) Snapshot() *store.Snapshot { return nil }

func (s *slow) Confirm(context.Context) (*store.Snapshot, error) { return nil, nil }

func (s *slow) Claim(context.Context, string) (store.Claim, error) { return store.Claim{}, nil }

func (s *slow) Release(context.Context, store.Claim) error { return nil }

func (s *slow) Away() bool { return false }

func (s *slow) Wait(context.Context, int64) (*store.Snapshot, error) { return nil, nil }

func (s *slow) Commit(_ context.Context, c store.Change) (store.Committed, error) {
	s.began <- struct{}{}
	<-s.goOn
	for _, op := range c.Ops {
		if op.Key == s.conflict {
			return store.Committed{}, store.ErrConflict
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, c.Ops)
	return store.Committed{Revision: int64(len(s.done))}, nil
}

// waits blocks until so many reports wait.
func (c *commits) waits(t *testing.T, n int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		c.mu.Lock()
		have := len(c.waiting)
		c.mu.Unlock()
		if have == n {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%d reports wait, not %d", have, n)
		}
	}
}

func TestReportsThatWaitGoTogether(t *testing.T) {
	s := &slow{began: make(chan struct{}), goOn: make(chan struct{}), conflict: serviceKey("zone-7.echo")}
	c := newCommits(s, time.Now)
	var mu sync.Mutex
	got := map[string]error{}
	var wg sync.WaitGroup
	report := func(ctx context.Context, zone string) {
		wg.Go(func() {
			_, err := c.commit(ctx, zone, store.Claim{}, []store.Op{{Key: serviceKey(zone + ".echo"), Delete: true}, {Key: serviceKey(zone + ".other"), Delete: true}})
			mu.Lock()
			defer mu.Unlock()
			got[zone] = err
		})
	}
	report(t.Context(), "first")
	<-s.began
	for i := range 10 {
		report(t.Context(), fmt.Sprint("zone-", i))
	}
	given, giveUp := context.WithCancel(t.Context())
	report(given, "gone")
	c.waits(t, 11)
	giveUp()
	c.waits(t, 10)
	close(s.goOn)
	go func() {
		for range s.began {
		}
	}()
	wg.Wait()
	close(s.began)
	for zone, err := range got {
		switch {
		case zone == "zone-7" && !errors.Is(err, store.ErrConflict), zone == "gone" && !errors.Is(err, context.Canceled):
			t.Errorf("%s: %v", zone, err)
		case zone != "zone-7" && zone != "gone" && err != nil:
			t.Errorf("%s pays for another: %v", zone, err)
		}
	}
	// The first alone; then all that waited at once, which one of them spoilt, so each by itself.
	if len(got) != 12 || len(s.done) != 10 {
		t.Errorf("%d answers to 12 reports, %d commits", len(got), len(s.done))
	}
}

func TestReportsShareACommit(t *testing.T) {
	s := &slow{began: make(chan struct{}), goOn: make(chan struct{})}
	c := newCommits(s, time.Now)
	var wg sync.WaitGroup
	report := func(zone string, ops int) {
		wg.Go(func() {
			var list []store.Op
			for i := range ops {
				list = append(list, store.Op{Key: serviceKey(fmt.Sprintf("%s.%d", zone, i)), Delete: true})
			}
			if _, err := c.commit(t.Context(), zone, store.Claim{}, list); err != nil {
				t.Error(err)
			}
		})
	}
	report("first", 1)
	<-s.began
	for i := range 9 {
		report(fmt.Sprint("zone-", i), maxBatch/4)
	}
	report("large", 3*maxBatch)
	c.waits(t, 10)
	close(s.goOn)
	go func() {
		for range s.began {
		}
	}()
	wg.Wait()
	close(s.began)
	total := 0
	for i, ops := range s.done {
		total += len(ops)
		if i > 0 && len(ops) > maxBatch && len(ops) != 3*maxBatch {
			t.Errorf("commit %d has %d operations", i, len(ops))
		}
	}
	// The first, the large one, and the others by fours, which the large one may cut in two.
	if want := 1 + 9*(maxBatch/4) + 3*maxBatch; total != want || len(s.done) > 6 {
		t.Errorf("%d of %d operations in %d commits", total, want, len(s.done))
	}
}
