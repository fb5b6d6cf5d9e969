package server

import (
	"math"
	"runtime"
	"syscall"
	"time"
)

const (
	// share is how much of the processors a zone takes before streams rest between two deliveries of endpoints: whoever waits for something
	// else, and the way of each endpoint to be one is a dozen of such waits, finds one that has nothing to do. What a span takes too much is
	// made up for by the next ones in part alone, so of two processors it is a little less than one.
	share = 0.42
	// few is how many deliveries a second and processor are not what keeps them busy.
	few = 500
	// longestRest is the most that a stream rests between two deliveries of endpoints.
	longestRest = 2 * time.Second
	// span is for how long it is looked at, and step what the rest grows by after a span in which twice as much was taken of the processors
	// as the share, or shrinks by after one in which nothing was.
	span, step = 200 * time.Millisecond, 100 * time.Millisecond
)

// pace tells how long a stream rests between two deliveries of endpoints. One of all that changed costs little more than one of a single
// change: so while there is room they are made at once, and where there would be more than the processors have room for, more changes
// wait for the next. It is not safe for concurrent use.
type pace struct {
	// now is the time since any moment, and used what this process had of the processors until now.
	now, used func() time.Duration
	// most is how much of the processors may be taken in a span, few how many deliveries may be made in any case.
	most time.Duration
	few  int
	// begun is when the span began that has not ended, had what was used until then, counted what was delivered in it.
	begun, had time.Duration
	counted    int
	rest       time.Duration
}

func newPace() pace {
	began, processors := time.Now(), runtime.GOMAXPROCS(0)
	return pace{now: func() time.Duration { return time.Since(began) }, used: processorTime, had: processorTime(),
		most: time.Duration(share * float64(processors) * float64(span)), few: few * processors * int(span) / int(time.Second)}
}

// processorTime is that of this process.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0 // it can't fail, and where it did streams would not rest
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
	used := p.used()
	over := float64(used-p.had)/float64(p.most) - float64(spans)
	if p.counted < p.few {
		over = min(over, float64(p.counted)/float64(p.few)-float64(spans))
	}
	p.rest += time.Duration(math.Round(min(over, float64(longestRest/step)) * float64(step)))
	p.rest = min(max(p.rest, 0), longestRest)
	p.begun, p.had, p.counted = p.begun+spans*span, used, 0
}

const (
	// notch is what a wheel turns by; notches are more than fit into the longest rest.
	notch   = 10 * time.Millisecond
	notches = 256
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
