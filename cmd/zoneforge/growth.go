package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// heapGrowth is how far a zone's heap may grow over what is in use before it is collected, in percent. Most of it stays for as long as
	// its proxies do, so letting it double would be half of its memory for nothing, and garbage between what stays can't be given back. Less
	// is not for nothing either, as it is collected more often while proxies join: with 10,000 of them each takes 4 KiB less at 40 % than at
	// 50, for the same processor time; at 25 that was a third more.
	heapGrowth = 40
	// returnedHeap is about what the heap grows by for each proxy that comes back, with what heapGrowth leaves for it.
	returnedHeap = 48 << 10
	// mostGrowth bounds the growth while proxies come back, in percent: what is in use is known of the last collection alone.
	mostGrowth = 1000
	// A heap that was as large as it is, but for change percent, for the time calm may grow by what is allocated in spacing, up to
	// busyGrowth percent: then all of that is garbage, as of endpoints that come and go, and to look through the same heap for it twice as
	// often costs twice as much. While proxies join it may not: what they leave between what stays could not be given back.
	change, calm        = 5, 30 * time.Second
	spacing, busyGrowth = 8 * time.Second, 100
)

// growth sets by how much a zone's heap grows until it is collected. One that starts again has it collected less often while the proxies
// come back that it knows: until it is as large as it will be anyway, it would be collected again and again for little.
type growth struct {
	set   func(percent int) int
	inUse func() heapUse
	now   func() time.Time

	mu sync.Mutex
	// Guarded by mu. goal is how large the heap may be for now, 0 for no goal; percent what was set; found what the last collection found, and at
	// when that was noticed; since from when on the heap was about as large as level.
	goal      uint64
	percent   int
	found     heapUse
	at, since time.Time
	level     uint64
}

// heapUse is what the last collection found, in bytes of the heap and of what else was looked through, and all bytes that were ever
// allocated.
type heapUse struct{ heap, roots, allocated uint64 }

// newGrowth sets the growth for a zone at rest. It is nil, and leaves everything as it is, where GOGC is set.
func newGrowth() *growth {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	g := &growth{set: debug.SetGCPercent, inUse: inUse, now: time.Now}
	g.adapt(heapGrowth)
	g.follow()
	return g
}

func inUse() heapUse {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return heapUse{samples[0].Value.Uint64(), samples[1].Value.Uint64() + samples[2].Value.Uint64(), samples[3].Value.Uint64()}
}

// returning is told how many proxies are about to come back, and 0 when no more do.
func (g *growth) returning(proxies int) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.goal = uint64(proxies) * returnedHeap
	use := g.inUse()
	g.adapt(growthTo(g.goal, use.heap, use.roots))
}

// collection adapts the growth to what a collection found.
func (g *growth) collection() {
	g.mu.Lock()
	defer g.mu.Unlock()
	use, now := g.inUse(), g.now()
	if slack := g.level * change / 100; use.heap > g.level+slack || use.heap < g.level-slack {
		g.level, g.since = use.heap, now
	}
	percent := growthTo(g.goal, use.heap, use.roots)
	if g.goal == 0 && now.Sub(g.since) >= calm {
		percent = growthOf(use, use.allocated-g.found.allocated, now.Sub(g.at))
	}
	g.found, g.at = use, now
	g.adapt(percent)
}

// adapt sets the growth, which stops everything for a moment, if it is another. It needs mu.
func (g *growth) adapt(percent int) {
	if percent != g.percent {
		g.percent = percent
		g.set(percent)
	}
}

// growthTo is the growth by which a heap reaches a goal, in percent of all that is in use.
func growthTo(goal, heap, roots uint64) int {
	if goal <= heap {
		return heapGrowth
	}
	return int(min(max((goal-heap)*100/max(heap+roots, 1), heapGrowth), mostGrowth))
}

// growthOf is the growth of a heap in which some bytes were allocated between its last two collections, in percent of all that is in use.
func growthOf(use heapUse, allocated uint64, between time.Duration) int {
	spaced := float64(allocated) * float64(spacing) / float64(max(between, time.Millisecond))
	percent := int(100 * spaced / float64(max(use.heap+use.roots, 1)))
	return min(max(percent/10*10, heapGrowth), busyGrowth)
}

// collected has a pointer, or it would share its room with others, and not be collected by itself.
type collected struct{ _ *collected }

// follow adapts after each collection.
func (g *growth) follow() {
	runtime.AddCleanup(new(collected), func(g *growth) {
		g.collection()
		g.follow()
	}, g)
}
