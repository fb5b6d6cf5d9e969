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

func TestGrowthFollowsCollectionsWhileProxiesReturn(t *testing.T) {
	var mu sync.Mutex
	var said []int
	heap := uint64(10 * returnedHeap)
	g := &growth{
		set:   func(percent int) int { mu.Lock(); defer mu.Unlock(); said = append(said, percent); return 0 },
		inUse: func() (uint64, uint64) { mu.Lock(); defer mu.Unlock(); return heap, 0 },
	}
	last := func() int { mu.Lock(); defer mu.Unlock(); return said[len(said)-1] }
	g.returning(30)
	if last() != 200 {
		t.Fatalf("%d %%, want 200", last())
	}
	mu.Lock()
	heap = 29 * returnedHeap
	mu.Unlock()
	for end := time.Now().Add(2 * time.Minute); last() != heapGrowth; runtime.GC() {
		if time.Now().After(end) {
			t.Fatalf("after collections it is %v", said)
		}
	}
	g.returning(0)
	mu.Lock()
	defer mu.Unlock()
	if said[len(said)-1] != heapGrowth || slices.Max(said) != 200 {
		t.Errorf("%v", said)
	}
	var none *growth
	none.returning(5)
}
