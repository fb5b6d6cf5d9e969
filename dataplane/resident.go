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
	// fewFiles is how much of the program may stay in memory, in bytes. At rest it needs half of that.
	fewFiles = 5 << 20
	// smallHeap is how far the heap may grow over what is in use before it is collected, in percent: there is little in it, so
	// that collecting is cheap, and it would otherwise double.
	smallHeap = 50
)

// keepSmall keeps the launcher's memory as small as its work, until ctx ends: there is one of it beside each Envoy. The program
// holds the control planes, too, and starting it touches most of it; what isn't used again is of no use to this process. A scrape
// touches a fifth of it. Giving that back takes a few milliseconds.
func keepSmall(ctx context.Context, log *zap.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(smallHeap)
	}
	ticker := time.NewTicker(trimInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		files, err := residentFiles()
		if err == nil && files > fewFiles {
			debug.FreeOSMemory()
			err = dropProgram()
		}
		if err != nil {
			log.Warn("memory of the program can't be given back", zap.Error(err))
			return
		}
	}
}
