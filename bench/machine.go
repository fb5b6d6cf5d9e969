package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machine says what was measured on, in one line, and whether others used it, as the figures are theirs then, too. It is asked before
// anything of ours runs.
func machine() string {
	kernel := firstLine("/proc/sys/kernel/osrelease")
	processor := runtime.GOARCH
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				processor = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores of %s, %s %s, %s%s", runtime.NumCPU(), processor, runtime.GOOS, kernel, runtime.Version(), busy())
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

// busy tells of others' work where there was any.
func busy() string {
	load, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	if v, err := strconv.ParseFloat(load, 64); err != nil || v < float64(runtime.NumCPU())/2 {
		return ""
	}
	return ", busy with other work before (load " + load + ")"
}

// commit is that of the checkout, as git names it.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// measureSync is how long this disk takes to keep what a database writes at a commit.
func measureSync(dir string, n int) (*latency, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return nil, fmt.Errorf("fsync: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, 4096)
	l := newLatency("fsync of this disk")
	for range n {
		if _, err := f.Write(page); err != nil {
			return nil, fmt.Errorf("fsync: %w", err)
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return nil, fmt.Errorf("fsync: %w", err)
		}
		l.add(time.Since(began))
	}
	return l, nil
}
