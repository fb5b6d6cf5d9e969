package server

import (
	"runtime"
	"sync"
	"time"
)

// queue holds the streams for which something waits, each once, in the order in which it came; those with a request and those that have
// no configuration yet go first, but for every fourth, so that news go on while thousands of proxies come back. As many
// workers as there are processors bring it to them, one stream after the other, and let all else run between two: so a change for
// thousands of proxies neither keeps the owner of the state from the next one nor a proxy that has just come from its configuration,
// and the more there is to do, the more of it a stream is given at once. Workers are there while there is something to do.
//
// While endpoints come and go faster than each change could be delivered by itself, streams rest between two deliveries, see pace.
type queue struct {
	// after is time.AfterFunc, which tests replace.
	after func(time.Duration, func())

	mu sync.Mutex
	// Guarded by mu.
	urgent, waiting fifo
	resting         wheel
	pace            pace
	// turns counts those that were taken.
	turns   uint64
	workers int
}

func newQueue() queue {
	return queue{pace: newPace(), after: func(d time.Duration, f func()) { time.AfterFunc(d, f) }}
}

// fifo is a list of streams; the zero value is an empty one.
type fifo struct {
	streams []*stream
	first   int
}

func (f *fifo) push(st *stream) { f.streams = append(f.streams, st) }

// pop is nil when there is none.
func (f *fifo) pop() *stream {
	if f.first == len(f.streams) {
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

// addEndpoints has a stream looked at of which nothing but endpoints waits: when it may be given some again.
func (q *queue) addEndpoints(st *stream) {
	if st.queued.Load() || st.resting.Swap(true) {
		return
	}
	q.mu.Lock()
	now := q.pace.now()
	rest := q.pace.until(time.Duration(st.delivered.Load()), now) - now
	if rest > 0 && q.resting.put(st, rest) {
		q.after(notch, q.turn)
	}
	q.mu.Unlock()
	if rest <= 0 {
		st.resting.Store(false)
		q.add(st)
	}
}

// turn has those looked at that have rested, until none rests.
func (q *queue) turn() {
	q.mu.Lock()
	due := q.resting.turn()
	if q.resting.count > 0 {
		q.after(notch, q.turn)
	}
	q.mu.Unlock()
	for _, st := range due {
		st.resting.Store(false)
		q.add(st)
	}
}

// delivered takes note of a delivery of endpoints, and says when that was.
func (q *queue) delivered() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.pace.now()
	q.pace.count(now)
	return now
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
	if q.workers < runtime.GOMAXPROCS(0) {
		q.workers++
		go q.work()
	}
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
	for i := range 2 {
		if requests := (q.turns%4 != 0) == (i == 0); requests {
			if st := q.urgent.pop(); st != nil {
				st.urgent.Store(false)
				return st
			}
		} else if st := q.waiting.pop(); st != nil {
			st.queued.Store(false)
			return st
		}
	}
	q.urgent, q.waiting = fifo{}, fifo{}
	q.workers--
	return nil
}
