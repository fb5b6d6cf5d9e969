package zone

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
)

// inbox is where other goroutines leave what the owner of the state has to do. Nobody who posts ever waits; progress of one
// proxy coalesces, so that it can't grow beyond the number of proxies and streams.
type inbox struct {
	wake chan struct{}
	// progress is in parts, as a change that hits all has thousands of streams post at once, and each has to wait for those before it.
	progress [progressParts]progressPart

	mu sync.Mutex
	// Guarded by mu.
	events []event
	// holders are, by proxy, the different documents that were let in under its ID since it was last forgotten. What was made
	// for one of them may be given to the next stream, before the owner gets to it.
	holders map[string][]*admission.Proxy
	// elsewhere are proxies that other replicas of the zone have.
	elsewhere map[string]*admission.Proxy
}

// progressParts is far more than processors that could post at once.
const progressParts = 64

// progressPart holds the newest progress of some proxies.
type progressPart struct {
	mu sync.Mutex
	of map[string]server.Progress // guarded by mu; its room is kept, as it would be grown while others wait
}

var progressSeed = maphash.MakeSeed()

// maxHolders bounds the documents of one proxy whose streams overlap.
const maxHolders = 16

// event runs on the owner's goroutine.
type event struct {
	run func()
	// connects names the proxy of a new stream.
	connects string
}

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), holders: map[string][]*admission.Proxy{}, elsewhere: map[string]*admission.Proxy{}}
}

func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *inbox) post(e event) {
	b.mu.Lock()
	b.events = append(b.events, e)
	b.mu.Unlock()
	b.signal()
}

// admit posts the event of a proxy's new stream, unless the proxy may not succeed those who hold its ID.
func (b *inbox) admit(p *admission.Proxy, run func()) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.holders[p.ID]
	if other := b.elsewhere[p.ID]; other != nil {
		if err := p.Succeed(other); err != nil {
			return err
		}
	}
	for _, other := range held {
		if err := p.Succeed(other); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(held, func(other *admission.Proxy) bool { return other.Hash == p.Hash }) {
		if len(held) >= maxHolders {
			return fmt.Errorf("%w: it came with %d documents while its streams overlap; wait until they have ended", admission.ErrDocument, len(held))
		}
		b.holders[p.ID] = append(held, p)
	}
	b.events = append(b.events, event{connects: p.ID, run: run})
	b.signal()
	return nil
}

func (b *inbox) postProgress(id string, p server.Progress) {
	part := &b.progress[maphash.String(progressSeed, id)%progressParts]
	part.mu.Lock()
	if part.of == nil {
		part.of = map[string]server.Progress{}
	}
	part.of[id] = p
	part.mu.Unlock()
	b.signal()
}

// others notes what another replica has under an ID; nil for nothing.
func (b *inbox) others(id string, p *admission.Proxy) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p == nil {
		delete(b.elsewhere, id)
		return
	}
	b.elsewhere[id] = p
}

// take gives all that was posted. Progress is taken before events, so that of a proxy that began meanwhile none is given without the event of
// its stream.
func (b *inbox) take() ([]event, map[string]server.Progress) {
	progress := map[string]server.Progress{}
	for i := range b.progress {
		part := &b.progress[i]
		part.mu.Lock()
		maps.Copy(progress, part.of)
		clear(part.of)
		part.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events, progress
}

// unlessConnecting runs fn, which forgets a proxy, unless a stream of it has just been posted; none can be posted meanwhile.
func (b *inbox) unlessConnecting(id string, fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.connects == id {
			return
		}
	}
	delete(b.holders, id)
	fn()
}
