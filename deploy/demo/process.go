package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopTime is how long a process may take to end after SIGTERM.
const stopTime = 15 * time.Second

// process is a child with its output in a file.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// launcher starts all processes from one thread that lives as long as the demo: a child's parent-death signal is bound to
// the thread that started it.
type launcher struct {
	dir      string
	requests chan func()
}

func newLauncher(ctx context.Context, dir string) *launcher {
	l := &launcher{dir: dir, requests: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for {
			select {
			case start := <-l.requests:
				start()
			case <-ctx.Done():
				return
			}
		}
	}()
	return l
}

// start runs the binary. Its output is appended to logs/<name>.log below the demo's folder.
func (l *launcher) start(name, binary string, args ...string) (*process, error) {
	path := filepath.Join(l.dir, "logs", name+".log")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{name: name, log: path, cmd: exec.Command(binary, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Dir = l.dir
	// A group of its own, so that Ctrl-C reaches the demo alone, which then ends all in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	l.requests <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its log, and in ended
		close(p.done)
	}()
	return p, nil
}

// ended is nil while the process runs, and otherwise says how it ended with the last lines of its log.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended (%s); its log %s says:\n%s", p.name, p.cmd.ProcessState, p.log, tail(p.log, 8))
	default:
		return nil
	}
}

// kill ends the process at once, as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end, and kills it when it does not.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		p.kill()
		return fmt.Errorf("%s did not end within %s and was killed", p.name, stopTime)
	}
}

// stopAll stops processes at the same time and waits for all.
func stopAll(ps []*process) error {
	errs := make([]error, len(ps))
	finished := make(chan struct{})
	for i, p := range ps {
		go func() {
			errs[i] = p.stop()
			finished <- struct{}{}
		}()
	}
	for range ps {
		<-finished
	}
	return errors.Join(errs...)
}

// tail is the last lines of a file, indented.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "    " + err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return "    " + strings.Join(all[max(0, len(all)-lines):], "\n    ")
}
