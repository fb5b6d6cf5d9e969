package docs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/loopback"
)

// byHandTime bounds the whole walk through the page.
const byHandTime = 15 * time.Minute

// Whoever types what running.md says, in its order, gets an answer through the gateway. Only the ports are others, so that
// nothing else on the machine is in the way.
func TestByHand(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), byHandTime)
	defer cancel()
	envoy, err := filepath.Abs("../.tools/bin/envoy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(envoy); err != nil {
		t.Fatalf("%v: run make tools", err)
	}
	h := &byHand{t: t, ctx: ctx, dir: t.TempDir(), ports: map[string]string{}}
	h.env = append(os.Environ(), "PATH="+filepath.Dir(program(t))+":"+filepath.Dir(envoy)+":"+os.Getenv("PATH"))
	h.freePorts("5682", "5685", "5678", "5683", "8080", "8081", "15006", "10001")
	h.copyDocuments()
	t.Cleanup(h.stop)

	_, section, _ := strings.Cut(read(t, "running.md"), "\n## By hand")
	section, _, _ = strings.Cut(section, "\n## ")
	asked := 0
	for i, block := range strings.Split(section, "```") {
		if i%2 == 0 {
			continue
		}
		for line := range strings.Lines(block) {
			line = h.rewrite(strings.TrimSpace(line))
			words := strings.Fields(line)
			switch {
			case line == "":
			case words[0] == "export":
				h.env = append(h.env, words[1:]...)
			case words[0] == "curl":
				h.ask(words[1])
				asked++
			case words[0] == "python3":
				h.background(line, "")
			case strings.HasPrefix(line, "zoneforge global run"):
				h.background(line+h.listen("--rest-address", "5682")+h.listen("--kds-address", "5685"), "run/global/admin-token")
			case strings.HasPrefix(line, "zoneforge zone run"):
				h.background(line+h.listen("--xds-address", "5678")+h.listen("--rest-address", "5683"), "run/east/tls/server-ca.crt")
			case strings.HasPrefix(line, "zoneforge dataplane run"):
				j := h.background(line, "")
				h.await(line, func() error {
					if !strings.Contains(j.log.String(), "the proxy is launched") {
						return errors.New("it isn't launched")
					}
					return nil
				})
			default:
				h.foreground(line)
			}
		}
	}
	if asked == 0 {
		t.Error("running.md asks nothing of the gateway")
	}
}

type byHand struct {
	t     *testing.T
	ctx   context.Context
	dir   string
	env   []string
	ports map[string]string // the page's to those of this run
	procs []*job
}

// job is a process of its own terminal.
type job struct {
	line string
	cmd  *exec.Cmd
	log  logBuffer
	done chan struct{}
	err  error // once done is closed
}

// logBuffer is written by a process and read when something failed.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// freePorts gives each port of the page another one for this run.
func (h *byHand) freePorts(pages ...string) {
	for _, page := range pages {
		port, err := loopback.Port()
		for err == nil && slices.Contains(pages, strconv.Itoa(int(port))) {
			port, err = loopback.Port() // else it would be rewritten once more
		}
		if err != nil {
			h.t.Fatal(err)
		}
		h.ports[page] = strconv.Itoa(int(port))
	}
}

// rewrite puts the ports of this run in the place of the page's.
func (h *byHand) rewrite(text string) string {
	for page, port := range h.ports {
		for _, before := range []string{"localhost:", "port: ", "servicePort: ", "127.0.0.1 "} {
			for _, after := range []string{"\n", " ", "/", ""} {
				if after == "" {
					if strings.HasSuffix(text, before+page) {
						text = strings.TrimSuffix(text, page) + port
					}
					continue
				}
				text = strings.ReplaceAll(text, before+page+after, before+port+after)
			}
		}
	}
	return text
}

func (h *byHand) listen(flag, page string) string { return " " + flag + " 127.0.0.1:" + h.ports[page] }

func (h *byHand) copyDocuments() {
	paths, err := filepath.Glob("../deploy/by-hand/*.yaml")
	if err != nil || len(paths) == 0 {
		h.t.Fatalf("no document in deploy/by-hand: %v", err)
	}
	folder := filepath.Join(h.dir, "deploy", "by-hand")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		h.t.Fatal(err)
	}
	for _, path := range paths {
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(path)), []byte(h.rewrite(read(h.t, path))), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *byHand) command(line string, out *logBuffer) *exec.Cmd {
	cmd := exec.Command("sh", "-c", "exec "+line)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = h.dir, h.env, out, out
	return cmd
}

func (h *byHand) foreground(line string) {
	h.t.Helper()
	var out logBuffer
	cmd := h.command(line, &out)
	if err := cmd.Run(); err != nil {
		h.fail("%s: %v\n%s", line, err, &out)
	}
}

// background starts a process, and waits for a file that it makes.
func (h *byHand) background(line, file string) *job {
	h.t.Helper()
	j := &job{line: line, done: make(chan struct{})}
	j.cmd = h.command(line, &j.log)
	if err := j.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		j.err = j.cmd.Wait()
		close(j.done)
	}()
	h.procs = append(h.procs, j)
	if file != "" {
		h.await(line, func() error {
			_, err := os.Stat(filepath.Join(h.dir, file))
			return err
		})
	}
	return j
}

func (h *byHand) ask(url string) {
	h.t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	h.await("curl "+url, func() error {
		r, err := client.Get(url)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", r.StatusCode)
		}
		return nil
	})
}

// await asks until there is no error, as long as all processes run.
func (h *byHand) await(what string, ok func() error) {
	h.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		last := ok()
		if last == nil {
			return
		}
		for _, j := range h.procs {
			select {
			case <-j.done:
				h.fail("%s ended: %v", j.line, j.err)
			default:
			}
		}
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			h.fail("%s: %v", what, last)
		}
	}
}

// fail ends the test with what the processes said.
func (h *byHand) fail(format string, args ...any) {
	h.t.Helper()
	for _, j := range h.procs {
		text := j.log.String()
		h.t.Logf("--- %s\n%s", j.line, text[max(0, len(text)-4000):])
	}
	h.t.Fatalf(format, args...)
}

// stop ends the processes as Ctrl-C does, the last one first.
func (h *byHand) stop() {
	for i := len(h.procs) - 1; i >= 0; i-- {
		j := h.procs[i]
		_ = j.cmd.Process.Signal(syscall.SIGINT) // it may have ended already
		select {
		case <-j.done:
			if j.err != nil && strings.HasPrefix(j.line, "zoneforge ") {
				h.t.Errorf("%s ended by %v, not in order:\n%s", j.line, j.err, &j.log)
			}
		case <-time.After(time.Minute):
			h.t.Errorf("%s doesn't end", j.line)
			_ = j.cmd.Process.Kill()
			<-j.done
		}
	}
}
