package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// countedWarm requests come before those that are counted: connections, counters and caches are made at first use.
	countedWarm = 50
	counted     = 300
	// countedTime is how long an Envoy that is counted may take to serve: each instruction costs it fifty.
	countedTime = 3 * time.Minute
)

// measureInstructions counts the instructions of Envoy's worker for a request to each variant. What the kernel does is not in it. Unlike
// time they are the same on a machine that does other work, to a part in a thousand.
func measureInstructions(ctx context.Context, b *bench) (rows []Row, err error) {
	if _, err := exec.LookPath("valgrind"); err != nil {
		return nil, fmt.Errorf("instructions are counted by valgrind: %w (install it)", err)
	}
	host := b.near().Host(upstreamHost)
	sides := variantSides()
	var counts []float64
	err = b.withPaths(ctx, host, func(func(int) error) error {
		dir, err := os.MkdirTemp(b.federation.Logs(), "counted-")
		if err != nil {
			return err
		}
		file, err := b.variantFile(ctx, dir, host)
		if err != nil {
			return err
		}
		counts, err = b.count(ctx, dir, file, len(sides))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w (what the Envoys said is in %s)", err, b.federation.Logs())
	}
	for side, name := range sides {
		rows = append(rows, row("instructions of Envoy a request, "+name, counts[side], "", counted))
	}
	return rows, nil
}

// count sends requests to each gateway of one Envoy, one after another, and gives the instructions of each.
func (b *bench) count(ctx context.Context, dir, file string, sides int) (counts []float64, err error) {
	envoy, err := b.startEnvoy(ctx, dir, "counted", file, "valgrind", "--tool=callgrind", "--separate-threads=yes", "--callgrind-out-file="+filepath.Join(dir, "counted"))
	if err != nil {
		return nil, err
	}
	defer envoy.kill() // it has nothing more to say
	for side := range sides {
		h, err := hammerOf(ctx, b.variantAt(side), countedTime, 1, []*child{envoy})
		if err != nil {
			return nil, err
		}
		err = h.send(countedWarm)
		if err == nil {
			err = control(ctx, envoy, "--zero")
		}
		if err == nil {
			err = h.send(counted)
		}
		if err == nil {
			err = control(ctx, envoy, "--dump=side")
		}
		if err = errors.Join(err, h.close()); err != nil {
			return nil, err
		}
		n, err := mostCounted(fmt.Sprintf("%s.%d-*", filepath.Join(dir, "counted"), side+1))
		if err != nil {
			return nil, err
		}
		counts = append(counts, float64(n)/counted)
	}
	return counts, nil
}

// control has an Envoy that is counted do something, and waits until it is done.
func control(ctx context.Context, envoy *child, what string) error {
	out, err := exec.CommandContext(ctx, "callgrind_control", what, strconv.Itoa(envoy.cmd.Process.Pid)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("callgrind_control %s: %w: %s", what, err, out)
	}
	return nil
}

// mostCounted is the instructions of the busiest thread among those of one dump, a file each.
func mostCounted(files string) (most int64, err error) {
	all, err := filepath.Glob(files)
	if err != nil {
		return 0, err
	}
	for _, file := range all {
		data, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		for line := range bytes.Lines(data) {
			if total, ok := strings.CutPrefix(string(line), "totals: "); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(total), 10, 64)
				if err != nil {
					return 0, fmt.Errorf("%s: %w", file, err)
				}
				most = max(most, n)
			}
		}
	}
	if most == 0 {
		return 0, fmt.Errorf("no instructions are counted in %s", files)
	}
	return most, nil
}
