package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// restTime is how long launchers are watched while nothing happens. It is longer than a launcher takes to give back what it no longer
// needs after work.
const restTime = 20 * time.Second

// measureAgent watches the launchers beside all Envoys of both zones at rest.
func measureAgent(ctx context.Context, b *bench) ([]Row, error) {
	launchers := b.federation.Launchers()
	used := func() (sum time.Duration, err error) {
		for name, pid := range launchers {
			d, err := onProcessor(pid)
			if err != nil {
				return 0, fmt.Errorf("launcher of %s: %w", name, err)
			}
			sum += d
		}
		return sum, nil
	}
	// The work of starting them ends first.
	if err := rest(ctx, restTime/2); err != nil {
		return nil, err
	}
	before, err := used()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := rest(ctx, restTime); err != nil {
		return nil, err
	}
	after, err := used()
	if err != nil {
		return nil, err
	}
	share := 100 * (after - before).Seconds() / time.Since(began).Seconds() / float64(len(launchers))
	largest := map[string]int64{}
	for name, pid := range launchers {
		sizes, err := memoryOf(pid)
		if err != nil {
			return nil, fmt.Errorf("launcher of %s: %w", name, err)
		}
		for field, size := range sizes {
			largest[field] = max(largest[field], size)
		}
	}
	n := int64(len(launchers))
	mib := func(field string) float64 { return float64(largest[field]) / (1 << 20) }
	return []Row{
		row("launcher beside Envoy, largest resident", mib("Rss"), "MiB", n).atMost(15),
		row("launcher beside Envoy, largest of them of no file", mib("Anonymous"), "MiB", n),
		row("launcher beside Envoy, largest proportional share", mib("Pss"), "MiB", n),
		row("launcher beside Envoy, processor at rest", share, "% of a core", n).atMost(0.1),
	}, nil
}

func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// onProcessor is how long the threads of a process ran, to a nanosecond; a thread that ended in between is not in it.
func onProcessor(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, file := range threads {
		ran, _, _ := strings.Cut(firstLine(file), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += time.Duration(ns)
	}
	if sum == 0 {
		return 0, fmt.Errorf("process %d: no thread ran", pid)
	}
	return sum, nil
}

// memoryOf gives a process's memory in bytes, by the fields of smaps_rollup.
func memoryOf(pid int) (map[string]int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		var kib int64
		name, value, _ := strings.Cut(line, ":")
		if _, err := fmt.Sscanf(value, "%d kB", &kib); err == nil {
			out[name] = kib << 10
		}
	}
	if out["Rss"] == 0 {
		return nil, fmt.Errorf("process %d: no resident memory in its maps", pid)
	}
	return out, nil
}
