package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// apart has this process leave the first of its processors to the Envoys under load: where both wander, it is chance that decides who
// waits for whom. It gives what binds an Envoy to that processor, and what undoes it for this process. A machine of one has them share it.
func apart() (bind func(pid int) error, restore func() error, err error) {
	var all, first, others unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, nil, fmt.Errorf("processors of this process: %w", err)
	}
	for i := range len(all) * 64 {
		switch {
		case !all.IsSet(i):
		case first.Count() == 0:
			first.Set(i)
		default:
			others.Set(i)
		}
	}
	if others.Count() == 0 {
		others = first
	}
	self := unix.Getpid()
	bind = func(pid int) error { return bindThreads(pid, &first) }
	restore = func() error { return bindThreads(self, &all) }
	return bind, restore, bindThreads(self, &others)
}

// bindThreads binds all threads of a process. Those that begin later are where the one is that begins them, so it looks twice.
func bindThreads(pid int, to *unix.CPUSet) error {
	for range 2 {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return err
		}
		for _, t := range threads {
			id, err := strconv.Atoi(filepath.Base(t))
			if err != nil {
				return err
			}
			if err := unix.SchedSetaffinity(id, to); err != nil && !errors.Is(err, unix.ESRCH) { // it may have ended
				return fmt.Errorf("bind thread %d of process %d: %w", id, pid, err)
			}
		}
	}
	return nil
}
