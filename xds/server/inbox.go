package server

import "sync"

// maxChanges is how many changes of endpoints wait for a stream one by one; with more, all are looked at again.
const maxChanges = 64

// inbox is what others have for a stream. Newer snapshots replace older ones, and changes of endpoints say no more than which, so that
// a stream that is behind is given the newest of all at once, and a slow proxy takes no more room than another.
type inbox struct {
	mu sync.Mutex
	// Guarded by mu.
	content
}

// content of an inbox.
type content struct {
	// ack is no more than an acknowledgement of endpoints, request what else the proxy sent after it; nil for nothing.
	ack, request request
	snapshot     *snapshot
	// endpointRev is the newest revision of endpoints that it was told of, and stays.
	endpointRev uint64
	// changed are the names of the endpoints that changed.
	changed        []string
	changes        int
	allChanged     bool
	retry, release bool
}

func (b *inbox) setSnapshot(want *snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.snapshot = want
}

func (b *inbox) setRequest(r request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.request = r
}

// setAck leaves an acknowledgement of endpoints, unless there is one: a proxy has no more than one response to acknowledge.
func (b *inbox) setAck(r request) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ack != nil {
		return false
	}
	b.ack = r
	return true
}

// setEndpoints says which endpoints changed. It keeps names.
func (b *inbox) setEndpoints(revision uint64, names []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endpointRev = revision
	switch b.changes++; {
	case b.changes == 1:
		b.changed = names[:len(names):len(names)] // others have it, too
	case b.changes > maxChanges:
		b.changed, b.allChanged = nil, true
	default:
		b.changed = append(b.changed, names...)
	}
}

func (b *inbox) setRetry() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.retry = true
}

func (b *inbox) setRelease() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.release = true
}

func (b *inbox) take() content {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.content
	b.content = content{endpointRev: out.endpointRev}
	return out
}

// empty says whether nothing of a proxy's configuration waits.
func (b *inbox) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.snapshot == nil && b.changes == 0
}

// nothing says whether there is nothing to do.
func (b *inbox) nothing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.request == nil && b.ack == nil && b.snapshot == nil && b.changes == 0 && !b.retry && !b.release
}
