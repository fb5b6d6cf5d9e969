package zone

import (
	"fmt"
	"slices"
	"sync"

	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
)

// inbox is where other goroutines leave what the owner of the state has to do. Nobody who posts ever waits; progress of one
// proxy coalesces, so that it can't grow beyond the number of proxies and streams.
type inbox struct {
	wake chan struct{}

	mu sync.Mutex
	// Guarded by mu.
	events   []event
	progress map[string]server.Progress
	// holders are, by proxy, the different documents that were let in under its ID since it was last forgotten. What was made
	// for one of them may be given to the next stream, before the owner gets to it.
	holders map[string][]*admission.Proxy
}

// maxHolders bounds the documents of one proxy whose streams overlap.
const maxHolders = 16

// event runs on the owner's goroutine.
type event struct {
	run func()
	// connects names the proxy of a new stream.
	connects string
}

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), progress: map[string]server.Progress{}, holders: map[string][]*admission.Proxy{}}
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
	b.mu.Lock()
	b.progress[id] = p
	b.mu.Unlock()
	b.signal()
}

// take gives all that was posted.
func (b *inbox) take() ([]event, map[string]server.Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events, progress := b.events, b.progress
	b.events, b.progress = nil, map[string]server.Progress{}
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
