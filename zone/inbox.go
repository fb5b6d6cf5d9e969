package zone

import (
	"sync"

	"github.com/zoneforge/zoneforge/xds/server"
)

// inbox is where other goroutines leave what the owner of the state has to do. Nobody who posts ever waits; progress of one
// proxy coalesces, so that it can't grow beyond the number of proxies and streams.
type inbox struct {
	wake chan struct{}

	mu sync.Mutex
	// Guarded by mu.
	events   []event
	progress map[string]server.Progress
}

// event runs on the owner's goroutine.
type event struct {
	run func()
	// connects names the proxy of a new stream.
	connects string
}

func newInbox() *inbox {
	return &inbox{wake: make(chan struct{}, 1), progress: map[string]server.Progress{}}
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

// unlessConnecting runs fn unless a stream of the proxy has just been posted; none can be posted meanwhile.
func (b *inbox) unlessConnecting(id string, fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.connects == id {
			return
		}
	}
	fn()
}
