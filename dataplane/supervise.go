package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// ErrKilled says that the process didn't end in time and was killed.
var ErrKilled = errors.New("killed after it did not end in time")

var errUnasked = errors.New("it ended by itself with status 0")

// adminTimeout bounds one request to the admin socket, which a stuck Envoy may never answer.
const adminTimeout = 2 * time.Second

// Config of a Supervisor. Durations that are 0 take their default.
type Config struct {
	// Path of the program, and its arguments without its name.
	Path string
	Args []string
	// Dir is where it runs; empty for that of the caller.
	Dir string
	// AdminSocket of the Envoy.
	AdminSocket string
	// Drain is how long connections may go on after a stop was asked for; negative for not at all. Default 10 s.
	Drain time.Duration
	// Grace is how long the process may take to end after SIGTERM before it is killed. Default 5 s.
	Grace time.Duration
	// BackoffMin and BackoffMax bound the wait before a restart; it doubles with each crash. Default 200 ms and 30 s.
	BackoffMin time.Duration
	BackoffMax time.Duration
	// Stable is how long a process must have run for the backoff to start anew. Default 1 min.
	Stable time.Duration
	// Stdout and Stderr of the process; nil discards. A file is handed on as it is.
	Stdout io.Writer
	Stderr io.Writer
	// Files are handed to the process as its descriptors from 3 on.
	Files []*os.File
	// Log is required.
	Log *zap.Logger
}

// Supervisor keeps one process running.
type Supervisor struct {
	config Config
	admin  *http.Client
}

// Arguments of an Envoy with this bootstrap. drain is how long its listeners tell clients to go before they close.
func Arguments(bootstrap string, drain time.Duration, logLevel string) []string {
	return []string{
		"-c", bootstrap,
		// Hot restart shares memory by a number, which two proxies on one machine would have to agree on.
		"--disable-hot-restart",
		"--drain-time-s", strconv.Itoa(max(int(drain.Seconds()), 1)),
		"--log-level", logLevel,
	}
}

// New checks the configuration; it starts nothing.
func New(c Config) (*Supervisor, error) {
	if c.Path == "" {
		return nil, errors.New("supervisor: the path of the program is empty; find it with Locate")
	}
	if c.Log == nil {
		return nil, errors.New("supervisor: a logger is required")
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&c.Drain, 10 * time.Second}, {&c.Grace, 5 * time.Second}, {&c.Stable, time.Minute},
		{&c.BackoffMin, 200 * time.Millisecond}, {&c.BackoffMax, 30 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	if c.Grace < 0 || c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin {
		return nil, fmt.Errorf("supervisor: grace %s and backoff %s to %s must be positive and in order", c.Grace, c.BackoffMin, c.BackoffMax)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.AdminSocket)
	}
	return &Supervisor{config: c, admin: &http.Client{
		Timeout:   adminTimeout,
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	}}, nil
}

// Run starts the process and starts it again whenever it crashes, until ctx ends; then it drains the process, stops it and
// returns when it is gone. A process that ends unasked has crashed, whatever its status: without it the workload is cut off.
// It returns nil when the process ended in order after the stop. It fails when the process cannot be started the first
// time, and with ErrKilled when it had to be killed. It may be called once at a time.
func (s *Supervisor) Run(ctx context.Context) error {
	for crashes := 0; ctx.Err() == nil; crashes++ {
		begun := time.Now()
		p, err := s.start()
		switch {
		case err != nil && crashes == 0:
			return fmt.Errorf("start %s: %w", s.config.Path, err)
		case err == nil:
			select {
			case err = <-p.ended:
			case <-ctx.Done():
				return s.stop(p)
			}
			if err == nil {
				err = errUnasked
			}
		}
		if time.Since(begun) >= s.config.Stable {
			crashes = 0
		}
		wait := s.backoff(crashes, rand.Float64())
		s.config.Log.Error("the process crashed and will be restarted", zap.Error(err), zap.Int("crashes", crashes+1), zap.Duration("wait", wait))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return nil
}

// backoff is the wait after a number of earlier crashes; chance, from 0 to 1, spreads it over its upper half, so that
// proxies that crashed together don't come back together.
func (s *Supervisor) backoff(crashes int, chance float64) time.Duration {
	d := s.config.BackoffMin
	for range crashes {
		if d *= 2; d >= s.config.BackoffMax {
			d = s.config.BackoffMax
			break
		}
	}
	return d/2 + time.Duration(chance*float64(d/2))
}

type process struct {
	pid int
	// ended receives the result once.
	ended chan error
}

func (s *Supervisor) start() (*process, error) {
	cmd := exec.Command(s.config.Path, s.config.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.config.Dir, s.config.Stdout, s.config.Stderr
	cmd.ExtraFiles = s.config.Files
	cmd.SysProcAttr = attributes()
	// A descendant that keeps the output open must not keep Wait from returning.
	cmd.WaitDelay = s.config.Grace
	started := make(chan error, 1)
	p := &process{ended: make(chan error, 1)}
	go func() {
		// The death signal comes when the thread that started the child ends, so that thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	s.config.Log.Info("the process started", zap.Int("pid", p.pid))
	return p, nil
}

// stop makes clients leave, then ends the process: the less patient step only follows when the one before didn't do.
func (s *Supervisor) stop(p *process) error {
	if s.config.Drain > 0 && s.drain() {
		s.config.Log.Info("the process drains", zap.Duration("drain", s.config.Drain))
		if p.gone(s.config.Drain, s.idle) {
			return nil
		}
	}
	select {
	case <-p.ended: // it ended while it was asked; its number may soon be another's
		return nil
	default:
	}
	// It is its own group's leader, so a wrapper's children get the signal too. It may be gone by now, which is as well.
	_ = syscall.Kill(-p.pid, syscall.SIGTERM)
	if p.gone(s.config.Grace, nil) {
		return nil
	}
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.ended
	return fmt.Errorf("process %d: %w of %s", p.pid, ErrKilled, s.config.Grace)
}

// drain fails the health check, so that balancers look elsewhere, and has listeners tell their clients to leave. It is
// false where the process cannot be asked, in which case there's nothing to wait for.
func (s *Supervisor) drain() bool {
	for _, path := range []string{"/healthcheck/fail", "/drain_listeners?graceful"} {
		response, err := s.admin.Post("http://admin"+path, "", nil)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				continue
			}
			err = fmt.Errorf("status %d", response.StatusCode)
		}
		s.config.Log.Warn("the process cannot be drained", zap.String("path", path), zap.Error(err))
		return false
	}
	return true
}

// lookInterval parts two looks at a draining process.
const lookInterval = 50 * time.Millisecond

// gone waits for the end of the process, at most for d, and not longer than until idle, when set, says so twice in a row:
// a client may be between two connections.
func (p *process) gone(d time.Duration, idle func() bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var looks <-chan time.Time
	if idle != nil {
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		looks = ticker.C
	}
	for quiet := 0; quiet < 2; {
		select {
		case <-p.ended:
			return true
		case <-timer.C:
			return false
		case <-looks:
			if quiet++; !idle() {
				quiet = 0
			}
		}
	}
	return false
}

// maxStats bounds an answer of the admin socket, in bytes.
const maxStats = 4 << 20

// idle asks whether any client is still connected. It is false when that cannot be learnt.
func (s *Supervisor) idle() bool {
	response, err := s.admin.Get("http://admin/stats?filter=" + url.QueryEscape(`^listener\..*\.downstream_cx_active$`))
	if err != nil {
		return false
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxStats))
	if err != nil || response.StatusCode != http.StatusOK {
		return false
	}
	return connections(string(body)) == 0
}

// connections adds up the lines "listener.<address>.downstream_cx_active: <n>", but for the admin's own, and without the
// counts by worker, which repeat them. A line that is not understood counts as a connection.
func connections(stats string) (sum int) {
	for line := range strings.Lines(stats) {
		name, count, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if strings.HasPrefix(name, "listener.admin.") || strings.Contains(name, ".worker_") || name == "" {
			continue
		}
		n, err := strconv.Atoi(count)
		if !ok || err != nil {
			n = 1
		}
		sum += n
	}
	return sum
}
