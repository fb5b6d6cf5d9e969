package server

import (
	"runtime"
	"time"
)

const (
	// plenty is how many deliveries a second and processor are enough: more would keep from the processors what changes and those who wait
	// for it, and each change would come later.
	plenty = 7000
	// longestRest is the most that a stream rests between two deliveries of endpoints.
	longestRest = time.Second
	// span is for how long deliveries are counted, and step what the rest grows by after a span in which twice as many were made as are
	// plenty, or shrinks by after one without any.
	span, step = 200 * time.Millisecond, 100 * time.Millisecond
)

// pace tells how long a stream rests between two deliveries of endpoints. One of all that changed costs little more than one of a single
// change: so while there are few they are made at once, and where there would be more than plenty, more changes wait for the next. It
// is not safe for concurrent use.
type pace struct {
	// now is the time since any moment.
	now func() time.Duration
	// plenty is how many deliveries there are in a span at most.
	plenty int
	// begun is when the span began that has not ended, counted what was delivered in it.
	begun   time.Duration
	counted int
	rest    time.Duration
}

func newPace() pace {
	began := time.Now()
	return pace{now: func() time.Duration { return time.Since(began) }, plenty: plenty * runtime.GOMAXPROCS(0) * int(span) / int(time.Second)}
}

// count takes note of a delivery.
func (p *pace) count(now time.Duration) {
	p.roll(now)
	p.counted++
}

// until is when a stream has rested that was given endpoints at a time.
func (p *pace) until(delivered, now time.Duration) time.Duration {
	p.roll(now)
	return delivered + p.rest
}

// roll ends a span that is over. Those in which nothing was delivered end together.
func (p *pace) roll(now time.Duration) {
	spans := (now - p.begun) / span
	if spans < 1 {
		return
	}
	p.rest += step * time.Duration(p.counted-p.plenty) / time.Duration(p.plenty)
	p.rest -= step * min(spans-1, longestRest/step)
	p.rest = min(max(p.rest, 0), longestRest)
	p.begun, p.counted = p.begun+spans*span, 0
}

const (
	// notch is what a wheel turns by; notches are more than fit into the longest rest.
	notch   = 10 * time.Millisecond
	notches = 128
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
