package server

import (
	"runtime"
	"syscall"
	"time"
)

const (
	// share is how much of the processors a zone takes before changes of endpoints wait: whoever waits for something else, and the way of
	// each endpoint to be one is a dozen of such waits, finds one that has nothing to do. Of two processors it is a little less than one.
	share = 0.43
	// saved is how much time's share can be saved up while less is taken, so that what takes the processors for a moment, as a collection of
	// garbage does, has nothing wait; and owed how much of what was taken beyond the share is made up for, so that nothing waits for what
	// was long ago.
	saved, owed = time.Second, 500 * time.Millisecond
	// few is how many deliveries a second and processor are made in any case.
	few = 1000
	// longestWait is after how long a stream is given what waits in any case.
	longestWait = 4 * time.Second
	// glance is how often it is looked at what was taken, and notch after how long it is asked again whether there is room.
	glance, notch = 2 * time.Millisecond, 5 * time.Millisecond
)

// pace tells whether there is room to deliver changes of endpoints. A delivery of all that changed costs little more than one of a single
// change: so while there is room they are made at once, and where there would be more than the processors have room for, the streams wait
// in a line, and what changes meanwhile comes with the rest. It is not safe for concurrent use.
type pace struct {
	// now is the time since any moment, and used what this process had of the processors until now.
	now, used func() time.Duration
	// processors is how many may be taken, few how many deliveries a second are made in any case.
	processors, few float64
	// looked is when it was looked at what was taken, had what that was.
	looked, had time.Duration
	// credit is the processor time that may still be taken; it is less than nothing where too much was. free are deliveries that need none.
	credit time.Duration
	free   float64
}

func newPace() pace {
	began, processors := time.Now(), float64(runtime.GOMAXPROCS(0))
	p := pace{now: func() time.Duration { return time.Since(began) }, used: processorTime, processors: share * processors, few: few * processors}
	p.had, p.credit = p.used(), p.worth(saved)
	return p
}

// processorTime is that of this process.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0 // it can't fail, and where it did nothing would wait
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// room says whether a stream that waits since a moment may be given endpoints now.
func (p *pace) room(since time.Duration) bool {
	now := p.now()
	if past := now - p.looked; past >= glance {
		used := p.used()
		p.credit += p.worth(past) - (used - p.had)
		p.credit = min(max(p.credit, -p.worth(owed)), p.worth(saved))
		p.free = min(p.free+past.Seconds()*p.few, 2*notch.Seconds()*p.few)
		p.looked, p.had = now, used
	}
	return p.credit > 0 || p.free >= 1 || now-since >= longestWait
}

// worth is the processor time that may be taken in some time.
func (p *pace) worth(past time.Duration) time.Duration {
	return time.Duration(p.processors * float64(past))
}

// take takes note of a stream that is looked at.
func (p *pace) take() {
	if p.credit <= 0 && p.free >= 1 {
		p.free--
	}
}
