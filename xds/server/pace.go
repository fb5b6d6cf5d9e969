package server

import (
	"runtime"
	"time"
)

const (
	// longestRest is the most that a stream rests between two deliveries of endpoints, so that what changes is still with all proxies
	// within a quarter of a second.
	longestRest = 200 * time.Millisecond
	// sparse is how many deliveries a second a processor makes at once. From twice as many on, streams rest for longest.
	sparse = 4000
	// span is for how long deliveries are counted.
	span = 200 * time.Millisecond
)

// pace tells how long a stream rests between two deliveries of endpoints. One of all that changed costs little more than one of a single
// change: so while there are few they are made at once, and the more there are, the more changes wait for the next. It is not safe
// for concurrent use.
type pace struct {
	// now is the time since any moment.
	now func() time.Duration
	// many is how many deliveries a second are made at once.
	many int
	// begun is when the span began that has not ended, counted what was delivered in it, and rate what was in the one before, a second.
	begun         time.Duration
	counted, rate int
}

func newPace() pace {
	began := time.Now()
	return pace{now: func() time.Duration { return time.Since(began) }, many: sparse * runtime.GOMAXPROCS(0)}
}

// count takes note of a delivery.
func (p *pace) count(now time.Duration) {
	p.roll(now)
	p.counted++
}

// rest is how long a stream rests after a delivery.
func (p *pace) rest(now time.Duration) time.Duration {
	p.roll(now)
	return longestRest * time.Duration(min(max(p.rate-p.many, 0), p.many)) / time.Duration(p.many)
}

// roll ends a span that is over.
func (p *pace) roll(now time.Duration) {
	if took := now - p.begun; took >= span {
		p.rate = int(float64(p.counted) / took.Seconds())
		p.begun, p.counted = now, 0
	}
}

const (
	// notch is what a wheel turns by; notches are more than fit into the longest rest.
	notch   = 5 * time.Millisecond
	notches = 64
)

// wheel holds streams until they have rested, to a notch. The zero value is an empty one.
type wheel struct {
	at    int
	of    [notches][]*stream
	count int
}

// put has a stream rest. It says whether the wheel was empty, and has to be turned from now on.
func (w *wheel) put(st *stream, rest time.Duration) (first bool) {
	at := (w.at + 1 + int(min(rest, longestRest)/notch)) % notches
	w.of[at] = append(w.of[at], st)
	w.count++
	return w.count == 1
}

// turn gives those that have rested.
func (w *wheel) turn() []*stream {
	w.at = (w.at + 1) % notches
	due := w.of[w.at]
	w.of[w.at] = nil
	w.count -= len(due)
	return due
}
