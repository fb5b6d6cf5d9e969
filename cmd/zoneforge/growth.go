package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
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
)

// growth has a zone that starts again collect its heap less often while the proxies come back that it knows: until it is as large as it will
// be anyway, it would be collected again and again for little.
type growth struct {
	set   func(percent int) int
	inUse func() (heap, roots uint64)

	mu sync.Mutex
	// goal is how large the heap may be for now; 0 for heapGrowth alone. Guarded by mu.
	goal uint64
}

// newGrowth sets the growth for a zone at rest. It is nil, and leaves everything as it is, where GOGC is set.
func newGrowth() *growth {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	g := &growth{set: debug.SetGCPercent, inUse: inUse}
	g.set(heapGrowth)
	return g
}

// inUse is what the last collection found: bytes of the heap, and of what else was looked through.
func inUse() (heap, roots uint64) {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64(), samples[1].Value.Uint64() + samples[2].Value.Uint64()
}

// returning is told how many proxies are about to come back, and 0 when no more do.
func (g *growth) returning(proxies int) {
	if g == nil {
		return
	}
	g.mu.Lock()
	before := g.goal
	g.goal = uint64(proxies) * returnedHeap
	g.mu.Unlock()
	if g.adapt() && before == 0 {
		g.follow()
	}
}

// adapt sets the growth by what is in use. It says whether it has to be set again after the next collection.
func (g *growth) adapt() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	heap, roots := g.inUse()
	g.set(growthTo(g.goal, heap, roots))
	return g.goal > 0
}

// growthTo is the growth by which a heap reaches a goal, in percent of all that is in use.
func growthTo(goal, heap, roots uint64) int {
	if goal <= heap {
		return heapGrowth
	}
	return int(min(max((goal-heap)*100/max(heap+roots, 1), heapGrowth), mostGrowth))
}

// collected has a pointer, or it would share its room with others, and not be collected by itself.
type collected struct{ _ *collected }

// follow adapts after each collection, until proxies return no more.
func (g *growth) follow() {
	runtime.AddCleanup(new(collected), func(g *growth) {
		if g.adapt() {
			g.follow()
		}
	}, g)
}
