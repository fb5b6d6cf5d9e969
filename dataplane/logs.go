package dataplane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// LogPipe is where Envoy writes its access logs: the first file that its launcher hands on, opened by name. A line is
// KIND;TARGET;TEXT, or an object whose first member, of no name, is KIND;TARGET. KIND is file or tcp. So a file that can't be written, or a receiver that is away, costs its lines and
// not the listener: Envoy refuses one whose log it can't open.
const LogPipe = "/dev/fd/3"

// Bounds of what the forwarder holds.
const (
	maxLogLine    = 256 << 10
	maxLogTargets = 64
	// maxLogQueue is what may wait for one target, in bytes.
	maxLogQueue = 4 << 20
	// minLogWait and maxLogWait bound the wait before a target is tried again.
	minLogWait = 100 * time.Millisecond
	maxLogWait = 10 * time.Second
	// logGrace is how long the forwarder goes on after Envoy has ended.
	logGrace = 2 * time.Second
)

// logTarget writes lines to one place. Neither method is called by two goroutines at once.
type logTarget interface {
	// write writes whole lines, or fails; what it has written of them then may be written again.
	write(lines []byte) error
	close()
}

// logForwarder takes the lines of one Envoy out of a pipe, never keeps Envoy waiting, and counts what is lost.
type logForwarder struct {
	reader, writer *os.File
	log            *zap.Logger
	stdout, stderr io.Writer
	// dial opens a target; tests give another.
	dial func(kind, name string) (logTarget, error)

	mu    sync.Mutex
	sinks map[string]*logSink // guarded by mu
	// unreadable counts lines that are too long, or not from a configuration of ours; guarded by mu.
	unreadable uint64
}

// logSink is the queue of one target.
type logSink struct {
	kind, name string
	wake       chan struct{}

	mu sync.Mutex
	// All below is guarded by mu. queue holds whole lines, of which there are queued.
	queue    []byte
	queued   uint64
	closed   bool
	written  uint64
	lost     uint64
	reported uint64
}

func newLogForwarder(stdout, stderr io.Writer, log *zap.Logger) (*logForwarder, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe of access logs: %w", err)
	}
	widen(w)
	f := &logForwarder{reader: r, writer: w, log: log, stdout: stdout, stderr: stderr, sinks: map[string]*logSink{}}
	f.dial = f.open
	return f, nil
}

// run forwards until the pipe has no writer any more; stop ends what then still waits for a target. It returns when all
// goroutines have ended.
func (f *logForwarder) run(stop context.Context) {
	var sinks sync.WaitGroup
	defer sinks.Wait()
	defer f.closeSinks()
	lines := bufio.NewReaderSize(f.reader, maxLogLine)
	for tooLong := false; ; {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			tooLong = true
			continue
		case err != nil:
			return
		case tooLong:
			tooLong = false
			f.unread()
			continue
		}
		f.take(stop, line, &sinks)
	}
}

func (f *logForwarder) unread() {
	f.mu.Lock()
	f.unreadable++
	f.mu.Unlock()
}

func (f *logForwarder) closeSinks() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sinks {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.signal()
	}
}

// take puts a line into the queue of its target.
func (f *logForwarder) take(stop context.Context, line []byte, sinks *sync.WaitGroup) {
	kind, name, text, ok := splitLine(line)
	if !ok {
		f.unread()
		return
	}
	key := kind + ";" + name
	f.mu.Lock()
	s := f.sinks[key]
	if s == nil {
		if len(f.sinks) >= maxLogTargets {
			f.unreadable++
			f.mu.Unlock()
			return
		}
		s = &logSink{kind: kind, name: name, wake: make(chan struct{}, 1)}
		f.sinks[key] = s
		sinks.Add(1)
		go func() {
			defer sinks.Done()
			f.serve(stop, s)
		}()
	}
	f.mu.Unlock()
	s.put(text)
}

// splitLine takes the target off a line.
func splitLine(line []byte) (kind, name string, text []byte, ok bool) {
	if object, isObject := bytes.CutPrefix(line, []byte(`{"":"`)); isObject {
		to, rest, closed := bytes.Cut(object, []byte(`"`))
		k, n, cut := bytes.Cut(to, []byte(";"))
		text = append([]byte("{"), bytes.TrimPrefix(rest, []byte(","))...)
		kind, name, ok = string(k), string(n), closed && cut
	} else {
		k, rest, cut := bytes.Cut(line, []byte(";"))
		n, after, named := bytes.Cut(rest, []byte(";"))
		kind, name, text, ok = string(k), string(n), after, cut && named
	}
	return kind, name, text, ok && name != "" && (kind == "file" || kind == "tcp")
}

func (s *logSink) put(text []byte) {
	s.mu.Lock()
	if len(s.queue)+len(text) > maxLogQueue {
		s.lost++
	} else {
		s.queue = append(s.queue, text...)
		s.queued++
	}
	s.mu.Unlock()
	s.signal()
}

func (s *logSink) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// next is what waits; done when there will be no more.
func (s *logSink) next() (lines []byte, count uint64, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, count, s.queue, s.queued = s.queue, s.queued, nil, 0
	return lines, count, s.closed
}

// serve writes what comes for one target until the queue is closed and empty, or stop ends.
func (f *logForwarder) serve(stop context.Context, s *logSink) {
	var target logTarget
	defer func() {
		if target != nil {
			target.close()
		}
	}()
	for {
		lines, count, done := s.next()
		switch {
		case len(lines) > 0:
			if target = f.deliver(stop, s, target, lines); target == nil {
				s.giveUp(count)
				return
			}
			s.mu.Lock()
			s.written += count
			s.mu.Unlock()
		case done:
			return
		default:
			select {
			case <-s.wake:
			case <-stop.Done():
				return
			}
		}
	}
}

// deliver writes lines, however often the target has to be opened for that, and returns the target; nil when stop ended first.
func (f *logForwarder) deliver(stop context.Context, s *logSink, target logTarget, lines []byte) logTarget {
	for wait := time.Duration(0); ; {
		var err error
		if target == nil {
			target, err = f.dial(s.kind, s.name)
		}
		if err == nil {
			if err = target.write(lines); err == nil {
				if wait > 0 {
					f.log.Info("access logs are written again", zap.String("target", s.name), zap.Uint64("lost", s.lostSince()))
				}
				return target
			}
			target.close()
		}
		target = nil
		if wait == 0 {
			f.log.Warn("access logs can't be written", zap.String("target", s.name), zap.Error(err))
		}
		wait = min(max(2*wait, minLogWait), maxLogWait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-stop.Done():
			timer.Stop()
			return nil
		}
	}
}

// giveUp counts what will never be written.
func (s *logSink) giveUp(count uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost += count + s.queued
	s.queue, s.queued = nil, 0
}

// lostSince is how many lines were lost since it was last asked.
func (s *logSink) lostSince() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.lost - s.reported
	s.reported = s.lost
	return lost
}

// metrics are the counts in Prometheus's format, without labels of the proxy.
func (f *logForwarder) metrics(w io.Writer) {
	f.mu.Lock()
	unreadable := f.unreadable
	sinks := make([]*logSink, 0, len(f.sinks))
	for _, s := range f.sinks {
		sinks = append(sinks, s)
	}
	f.mu.Unlock()
	var written, lost strings.Builder
	for _, s := range sinks {
		s.mu.Lock()
		fmt.Fprintf(&written, "zoneforge_access_log_lines_total{target=%q} %d\n", s.name, s.written)
		fmt.Fprintf(&lost, "zoneforge_access_log_lost_total{target=%q} %d\n", s.name, s.lost)
		s.mu.Unlock()
	}
	fmt.Fprintf(w, "# TYPE zoneforge_access_log_lines_total counter\n%s# TYPE zoneforge_access_log_lost_total counter\n%s", &written, &lost)
	fmt.Fprintf(w, "# TYPE zoneforge_access_log_unreadable_total counter\nzoneforge_access_log_unreadable_total{} %d\n", unreadable)
}
