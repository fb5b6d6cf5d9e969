package server

import (
	"runtime"
	"sync"
	"time"
)

// queue holds the streams for which something waits, in three lines, in each of them once and in the order in which it came. Those with a
// request and those that have no configuration yet go first; then those with another configuration; then those of which nothing but
// endpoints waits, while there is room for it, see pace. One in four goes before those with a request, in turn of either other line,
// so that news go on while thousands of proxies come back.
//
// As many workers as there are processors bring it to them, one stream after the other, and let all else run between two: so a change for
// thousands of proxies neither keeps the owner of the state from the next one nor a proxy that has just come from its configuration,
// and the more there is to do, the more of it a stream is given at once. Workers are there while there is something to do.
type queue struct {
	// after is time.AfterFunc, which tests replace.
	after func(time.Duration, func())

	mu sync.Mutex
	// Guarded by mu.
	urgent, waiting, paced fifo
	pace                   pace
	// turns counts those that were taken.
	turns   uint64
	workers int
	// awaiting says that it will be asked again whether there is room.
	awaiting bool
}

func newQueue() queue {
	return queue{pace: newPace(), after: func(d time.Duration, f func()) { time.AfterFunc(d, f) }}
}

// fifo is a list of streams; the zero value is an empty one.
type fifo struct {
	streams []*stream
	first   int
}

// push makes use of the room of those that were taken, so that a list that never ends takes no more of it than it needs.
func (f *fifo) push(st *stream) {
	if f.first > len(f.streams)/2 && len(f.streams) == cap(f.streams) {
		n := copy(f.streams, f.streams[f.first:])
		clear(f.streams[n:])
		f.streams, f.first = f.streams[:n], 0
	}
	f.streams = append(f.streams, st)
}

func (f *fifo) empty() bool { return f.first == len(f.streams) }

// pop is nil when there is none.
func (f *fifo) pop() *stream {
	if f.empty() {
		return nil
	}
	st := f.streams[f.first]
	f.streams[f.first] = nil
	if f.first++; f.first == len(f.streams) {
		f.streams, f.first = f.streams[:0], 0
	}
	return st
}

// add has a stream looked at after those that wait.
func (q *queue) add(st *stream) {
	if !st.queued.Swap(true) {
		q.push(&q.waiting, st)
	}
}

// addEndpoints has a stream looked at of which nothing but endpoints waits, once there is room for it.
func (q *queue) addEndpoints(st *stream) {
	if st.queued.Load() || st.paced.Swap(true) {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	st.since = q.pace.now()
	q.paced.push(st)
	q.start()
}

// addUrgent has a stream looked at that has a request, or that waits for its first configuration.
func (q *queue) addUrgent(st *stream) {
	if !st.urgent.Swap(true) {
		q.push(&q.urgent, st)
	}
}

func (q *queue) push(to *fifo, st *stream) {
	q.mu.Lock()
	defer q.mu.Unlock()
	to.push(st)
	q.start()
}

// start has another worker begin, if there is something to do for one. It needs mu.
func (q *queue) start() {
	switch {
	case q.workers >= runtime.GOMAXPROCS(0):
	case q.urgent.empty() && q.waiting.empty() && !q.room():
		q.await()
	default:
		q.workers++
		go q.work()
	}
}

// room says whether one of those that wait for room may be looked at. It needs mu.
func (q *queue) room() bool {
	return !q.paced.empty() && q.pace.room(q.paced.streams[q.paced.first].since)
}

// await has it asked again whether there is room, while somebody waits for it. It needs mu.
func (q *queue) await() {
	if !q.awaiting && !q.paced.empty() {
		q.awaiting = true
		q.after(notch, q.again)
	}
}

func (q *queue) again() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.awaiting = false
	q.start()
}

func (q *queue) work() {
	for st := q.next(); st != nil; st = q.next() {
		st.news()
		runtime.Gosched()
	}
}

// next is nil when the worker has to end. What comes for a stream from then on is seen, or has it queued again.
func (q *queue) next() *stream {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turns++
	of := [...]func() *stream{q.takeUrgent, q.takeWaiting, q.takePaced}
	switch q.turns % 8 {
	case 4:
		of = [...]func() *stream{q.takeWaiting, q.takePaced, q.takeUrgent}
	case 0:
		of = [...]func() *stream{q.takePaced, q.takeWaiting, q.takeUrgent}
	}
	for _, take := range of {
		if st := take(); st != nil {
			return st
		}
	}
	q.urgent, q.waiting = fifo{}, fifo{}
	if q.paced.empty() {
		q.paced = fifo{}
	}
	q.workers--
	q.await()
	return nil
}

func (q *queue) takeUrgent() *stream {
	st := q.urgent.pop()
	if st != nil {
		st.urgent.Store(false)
	}
	return st
}

func (q *queue) takeWaiting() *stream {
	st := q.waiting.pop()
	if st != nil {
		st.queued.Store(false)
	}
	return st
}

func (q *queue) takePaced() *stream {
	if !q.room() {
		return nil
	}
	st := q.paced.pop()
	q.pace.take()
	st.paced.Store(false)
	return st
}
