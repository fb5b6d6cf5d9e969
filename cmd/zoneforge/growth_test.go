package main

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestGrowthLeadsToTheGoal(t *testing.T) {
	for _, c := range []struct {
		goal, heap, roots uint64
		want              int
	}{
		{0, 100, 0, heapGrowth},
		{100, 100, 0, heapGrowth},
		{140, 100, 0, heapGrowth}, // what it may grow by anyway
		{300, 100, 0, 200},
		{300, 100, 100, 100},
		{1 << 40, 1, 0, mostGrowth},
		{1 << 40, 0, 0, mostGrowth},
	} {
		if got := growthTo(c.goal, c.heap, c.roots); got != c.want {
			t.Errorf("to %d from %d and %d: %d %%, want %d", c.goal, c.heap, c.roots, got, c.want)
		}
	}
}

// A heap that has been as large as it is for a while is collected at most every eight seconds, as far as its double allows; one that grows or
// shrinks as often as any.
func TestGrowthOfASteadyHeapSpacesCollections(t *testing.T) {
	const mib = 1 << 20
	clock, use, percent := time.Unix(1e9, 0), heapUse{roots: 50 * mib}, 0
	g := &growth{set: func(p int) int { percent = p; return 0 }, inUse: func() heapUse { return use }, now: func() time.Time { return clock }}
	for _, c := range []struct {
		what            string
		passed          time.Duration
		heap, allocated uint64 // MiB
		want            int
	}{
		{"the first collection", time.Second, 400, 180, heapGrowth},
		{"much is allocated, but for a short time", 4 * time.Second, 400, 180, heapGrowth},
		{"for longer", calm - 5*time.Second, 410, 180, heapGrowth},
		{"for long", 4 * time.Second, 400, 180, 80},
		{"more", time.Second, 395, 180, busyGrowth},
		{"little", time.Minute, 400, 180, heapGrowth},
		{"much again", 4 * time.Second, 405, 180, 70},
		{"at once", 0, 405, 0, heapGrowth},
		{"proxies join", 4 * time.Second, 421, 180, heapGrowth},
		{"and more", calm - time.Second, 440, 1800, heapGrowth},
		{"none do for a while", time.Second, 440, 180, busyGrowth},
		{"they go", time.Second, 300, 180, heapGrowth},
	} {
		clock, use.heap, use.allocated = clock.Add(c.passed), c.heap*mib, use.allocated+c.allocated*mib
		if g.collection(); percent != c.want {
			t.Errorf("%s: %d %%, want %d", c.what, percent, c.want)
		}
	}
}

func TestGrowthFollowsCollections(t *testing.T) {
	var mu sync.Mutex
	var said []int
	use, clock := heapUse{heap: 10 * returnedHeap}, time.Unix(0, 0)
	g := &growth{
		set:   func(percent int) int { mu.Lock(); defer mu.Unlock(); said = append(said, percent); return 0 },
		inUse: func() heapUse { mu.Lock(); defer mu.Unlock(); return use },
		// Between two collections a minute passes, and something is allocated.
		now: func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			clock = clock.Add(time.Minute)
			use.allocated += 60 * returnedHeap
			return clock
		},
	}
	last := func() int { mu.Lock(); defer mu.Unlock(); return said[len(said)-1] }
	await := func(percent int) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); last() != percent; runtime.GC() {
			if time.Now().After(end) {
				t.Fatalf("after collections it is %v, want %d", said, percent)
			}
		}
	}
	g.returning(30)
	if last() != 200 {
		t.Fatalf("%d %%, want 200", last())
	}
	g.follow()
	mu.Lock()
	use.heap = 29 * returnedHeap
	mu.Unlock()
	await(heapGrowth)
	g.returning(0)
	mu.Lock()
	use.heap = 10 * returnedHeap
	mu.Unlock()
	await(80)
	if slices.Max(said) != 200 {
		t.Errorf("%v", said)
	}
	var none *growth
	none.returning(5)
}
