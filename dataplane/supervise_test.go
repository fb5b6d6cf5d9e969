package dataplane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
)

// The test's own binary plays the process, so that signals, groups and deaths are real.
func TestMain(m *testing.M) {
	if mode := os.Getenv("ZONEFORGE_TEST_PROCESS"); mode != "" {
		os.Exit(play(mode, os.Getenv("ZONEFORGE_TEST_SOCKET")))
	}
	os.Exit(m.Run())
}

func play(mode, socket string) int {
	switch mode {
	case "crash":
		fmt.Println("crashed")
		return 3
	case "end":
		fmt.Println("ended")
		return 0
	case "launcher":
		if err := os.Setenv("ZONEFORGE_TEST_PROCESS", "stubborn"); err != nil {
			return 1
		}
		s, err := New(Config{Path: os.Args[0], AdminSocket: socket, Stdout: os.Stdout, Log: zap.NewNop()})
		if err != nil || s.Run(context.Background()) != nil {
			return 1
		}
		return 0
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM)
	if mode == "serve" {
		listener, err := net.Listen("unix", socket)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/stats" {
				fmt.Fprintf(w, "listener.admin.downstream_cx_active: 1\nlistener.0.0.0.0_80.downstream_cx_active: %s\n", os.Getenv("ZONEFORGE_TEST_ACTIVE"))
				return
			}
			fmt.Println(r.Method, r.URL)
		}))
	}
	fmt.Println("ready")
	for range signals {
		fmt.Println("SIGTERM")
		if mode == "serve" {
			return 0
		}
	}
	return 1
}

// run starts a supervisor of a process in a mode. lines yields its output; done its result.
func run(t *testing.T, mode string, change func(*Config)) (lines *bufio.Scanner, stop func(), done chan error) {
	t.Helper()
	// Paths of sockets are short; those of t.TempDir need not be.
	dir, err := os.MkdirTemp("", "zf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "admin.sock")
	t.Setenv("ZONEFORGE_TEST_PROCESS", mode)
	t.Setenv("ZONEFORGE_TEST_SOCKET", socket)
	r, w := io.Pipe()
	c := Config{
		Path: os.Args[0], AdminSocket: socket, Stdout: w, Log: zap.NewNop(),
		BackoffMin: time.Millisecond, BackoffMax: 2 * time.Millisecond, Drain: 50 * time.Millisecond,
	}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.admin.Timeout = time.Minute // what is slow here is the machine
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	done = make(chan error, 1)
	go func() {
		err := s.Run(ctx)
		w.Close()
		done <- err
	}()
	return bufio.NewScanner(r), cancel, done
}

func expect(t *testing.T, lines *bufio.Scanner, want ...string) {
	t.Helper()
	for _, w := range want {
		if !lines.Scan() || lines.Text() != w {
			t.Fatalf("got %q, want %q", lines.Text(), w)
		}
	}
}

func TestStopDrainsFirst(t *testing.T) {
	lines, stop, done := run(t, "serve", nil)
	expect(t, lines, "ready")
	stop()
	expect(t, lines, "POST /healthcheck/fail", "POST /drain_listeners?graceful", "SIGTERM")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStopWaitsForOpenConnectionsAlone(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		t.Setenv("ZONEFORGE_TEST_ACTIVE", "0")
		lines, stop, done := run(t, "serve", func(c *Config) { c.Drain = time.Hour })
		expect(t, lines, "ready")
		stop()
		expect(t, lines, "POST /healthcheck/fail", "POST /drain_listeners?graceful", "SIGTERM")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("busy", func(t *testing.T) {
		t.Setenv("ZONEFORGE_TEST_ACTIVE", "1")
		const drain = 400 * time.Millisecond
		lines, stop, done := run(t, "serve", func(c *Config) { c.Drain = drain })
		expect(t, lines, "ready")
		begun := time.Now()
		stop()
		expect(t, lines, "POST /healthcheck/fail", "POST /drain_listeners?graceful", "SIGTERM")
		if took := time.Since(begun); took < drain {
			t.Errorf("it ended after %s, with a connection open", took)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestStopKillsTheStubborn(t *testing.T) {
	lines, stop, done := run(t, "stubborn", func(c *Config) { c.Grace = 100 * time.Millisecond })
	expect(t, lines, "ready")
	stop()
	go func() { // it may say that it was asked to end, or be killed before it comes to that
		for lines.Scan() {
		}
	}()
	if err := <-done; !errors.Is(err, ErrKilled) {
		t.Errorf("got %v, want ErrKilled", err)
	}
}

func TestCrashIsRestarted(t *testing.T) {
	lines, stop, done := run(t, "crash", nil)
	expect(t, lines, "crashed", "crashed", "crashed", "crashed")
	stop()
	// A process in its last breath must not be blocked by its output.
	go func() {
		for lines.Scan() {
		}
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestEndingUnaskedIsACrash(t *testing.T) {
	lines, stop, done := run(t, "end", nil)
	expect(t, lines, "ended", "ended", "ended")
	stop()
	go func() {
		for lines.Scan() {
		}
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestConnections(t *testing.T) {
	for stats, want := range map[string]int{
		"": 0,
		"listener.0.0.0.0_80.downstream_cx_active: 0\n":                                                       0,
		"listener.admin.downstream_cx_active: 1\nlistener.admin.main_thread.downstream_cx_active: 1\n":        0,
		"listener.0.0.0.0_80.downstream_cx_active: 3\nlistener.0.0.0.0_80.worker_0.downstream_cx_active: 3\n": 3,
		"listener.[__]_80.downstream_cx_active: 2\nlistener.127.0.0.1_81.downstream_cx_active: 1\n":           3,
		"listener.0.0.0.0_80.downstream_cx_active: many\n":                                                    1,
		"no healthy upstream": 1,
	} {
		if got := connections(stats); got != want {
			t.Errorf("%q: %d, want %d", stats, got, want)
		}
	}
}

func TestMissingProgram(t *testing.T) {
	_, _, done := run(t, "end", func(c *Config) { c.Path = filepath.Join(t.TempDir(), "missing") })
	if err := <-done; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want os.ErrNotExist", err)
	}
}

func TestNoOrphanWhenTheLauncherDies(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "ZONEFORGE_TEST_PROCESS=launcher")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	expect(t, lines, "ready")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The child holds the other end of the output: it ends when the last of both is gone.
	if lines.Scan() {
		t.Errorf("got %q, want the end", lines.Text())
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the launcher was not killed")
	}
}

func TestBackoff(t *testing.T) {
	s, err := New(Config{Path: "envoy", Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		crashes  int
		from, to time.Duration
	}{
		{0, 100 * time.Millisecond, 200 * time.Millisecond},
		{1, 200 * time.Millisecond, 400 * time.Millisecond},
		{7, 12800 * time.Millisecond, 25600 * time.Millisecond},
		{8, 15 * time.Second, 30 * time.Second},
		{1 << 30, 15 * time.Second, 30 * time.Second},
	} {
		if from, to := s.backoff(c.crashes, 0), s.backoff(c.crashes, 1); from != c.from || to != c.to {
			t.Errorf("after %d crashes: %s to %s, want %s to %s", c.crashes, from, to, c.from, c.to)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for want, c := range map[string]Config{
		"path":   {Log: zap.NewNop()},
		"logger": {Path: "envoy"},
		"order":  {Path: "envoy", Log: zap.NewNop(), BackoffMin: time.Minute},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
