package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// endTime is how long a process may take to end after SIGTERM.
	endTime = 20 * time.Second
	// ticksPerSecond is the unit in which Linux counts processor time (USER_HZ).
	ticksPerSecond = 100
)

// child is one process of the product, measured from outside by /proc.
type child struct {
	name, log string
	cmd       *exec.Cmd
	done      chan struct{} // closed when it has ended
}

// launch starts a process with its output appended to a file. It ends with this process, whatever becomes of it.
func launch(dir, name, binary string, args ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(dir, name+".log"), cmd: exec.Command(binary, args...), done: make(chan struct{})}
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.Dir = out, out, dir
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// What measures is the one client that asks as often as it can.
	c.cmd.Env = append(os.Environ(), "ZONEFORGE_REST_RATE=0")
	started := make(chan error)
	go func() {
		// The signal of a parent's death is bound to the thread that started the child, so the thread waits for it.
		runtime.LockOSThread()
		started <- c.cmd.Start()
		_ = c.cmd.Wait() // how it ended is in its state
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// ended is nil while the process runs, and otherwise says how it ended with the end of its log.
func (c *child) ended() error {
	select {
	case <-c.done:
		said, _ := os.ReadFile(c.log)
		return fmt.Errorf("%s has ended (%s): %s", c.name, c.cmd.ProcessState, said[max(0, len(said)-2000):])
	default:
		return nil
	}
}

// kill ends the process as a crash does.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// stop asks the process to end, and kills it when it does not.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(endTime)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-timer.C:
		c.kill()
		return fmt.Errorf("%s did not end within %s and was killed", c.name, endTime)
	}
}

// cpu is the processor time that the process took until now.
func (c *child) cpu() (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything; utime and stime are the 14th and 15th of all.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	var sum int64
	for _, at := range []int{11, 12} {
		ticks, err := strconv.ParseInt(string(fields[at]), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += ticks
	}
	return time.Duration(sum) * time.Second / ticksPerSecond, nil
}

// memory is what the process has resident, in bytes.
func (c *child) memory() (int64, error) { return c.status("VmRSS:") }

// mostMemory is the most that the process ever had resident, in bytes.
func (c *child) mostMemory() (int64, error) { return c.status("VmHWM:") }

// status is a number of kilobytes in the process's status, in bytes.
func (c *child) status(field string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s: no %s in its status", c.name, field)
}

// until calls ok until it gives no error, as long as the time lasts and all processes run.
func until(ctx context.Context, what string, limit time.Duration, running []*child, ok func() error) error {
	over := time.NewTimer(limit)
	defer over.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		last := ok()
		if last == nil {
			return nil
		}
		for _, c := range running {
			if err := c.ended(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-over.C:
			return fmt.Errorf("%s: not within %s: %w", what, limit, last)
		case <-tick.C:
		}
	}
}
