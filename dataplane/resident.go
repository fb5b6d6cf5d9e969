package dataplane

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"go.uber.org/zap"
)

const (
	// trimInterval is how often is looked whether there is anything to give back, which takes some microseconds.
	trimInterval = 5 * time.Second
	// fewFiles is how much of the program may stay in memory, in bytes: a little less than the work at rest brings back in half a minute.
	fewFiles = 3 << 20
	// muchFree is how much memory of no file must have come for the heap to be looked through for what can be given back, in bytes.
	muchFree = 512 << 10
	// mostPauses is for how many looks the heap is left alone of one that grows it all the time.
	mostPauses = 12
	// mostLooks is after how many looks the heap is given back in any case. A heap at rest is collected every two minutes anyway, which brings
	// 5 MB of the program back; done a little sooner and here, they are dropped in the same moment.
	mostLooks = 20
	// smallHeap is how far the heap may grow over what is in use before it is collected, in percent: there is little in it, so
	// that collecting is cheap, and it would otherwise double.
	smallHeap = 50
)

// keepSmall keeps the launcher's memory as small as its work, until ctx ends: there is one of it beside each Envoy. The program
// holds the control planes, too, and starting it touches most of it; what isn't used again is of no use to this process. A scrape
// touches a fifth of it. Giving that back takes some hundred microseconds, which is nothing even at each look, and a few milliseconds with
// the heap.
func keepSmall(ctx context.Context, log *zap.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(smallHeap)
	}
	program, err := openProgram()
	if err != nil {
		log.Warn("memory of the program can't be given back", zap.Error(err))
		return
	}
	defer program.close()
	t := trimmer{resident: program.resident, drop: program.drop, free: debug.FreeOSMemory}
	ticker := time.NewTicker(trimInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := t.look(); err != nil {
			log.Warn("memory of the program can't be given back", zap.Error(err))
			return
		}
	}
}

// trimmer decides what is given back when.
type trimmer struct {
	// resident is how much memory is resident: of no file, and of files.
	resident   func() (own, files int64, err error)
	free       func()
	drop       func() error
	least      int64 // what was resident of no file when the heap was given back last
	since      int   // looks since then
	pause, due int   // looks to leave the heap alone for after the next time, and now
}

func (t *trimmer) look() error {
	own, files, err := t.resident()
	if err != nil {
		return err
	}
	t.since++
	worked, collect := files > fewFiles, t.since >= mostLooks
	switch {
	case t.due > 0:
		t.due--
	case !worked:
		t.pause = 0
	case own > t.least+muchFree:
		collect = true
		t.pause = min(2*t.pause+1, mostPauses)
		t.due = t.pause
	}
	if collect {
		t.free()
		t.since = 0
		if t.least, _, err = t.resident(); err != nil {
			return err
		}
	}
	if !worked && !collect {
		return nil
	}
	return t.drop()
}
