package dataplane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/e2e/loopback"
)

// forward runs a forwarder until the test closes its pipe by the function returned, which waits for its end.
func forward(t *testing.T, f *logForwarder) (end func()) {
	t.Helper()
	stop, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.run(stop) }()
	var once sync.Once
	end = func() {
		once.Do(func() {
			_ = f.writer.Close()
			wait(t, "the end of the pipe", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				for _, s := range f.sinks {
					s.mu.Lock()
					closed := s.closed
					s.mu.Unlock()
					if !closed {
						return false
					}
				}
				return true
			})
			cancel()
			<-done
			_ = f.reader.Close()
		})
	}
	t.Cleanup(end)
	return end
}

func newTestForwarder(t *testing.T, out io.Writer) *logForwarder {
	t.Helper()
	f, err := newLogForwarder(out, out, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func counts(f *logForwarder) string {
	var b strings.Builder
	f.metrics(&b)
	return b.String()
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline, tick := time.After(2*time.Minute), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("%s did not come to pass", what)
		case <-tick.C:
		}
	}
}

func TestLogsReachFilesAndOutputs(t *testing.T) {
	var out bytes.Buffer
	f := newTestForwarder(t, &out)
	end := forward(t, f)
	path := filepath.Join(t.TempDir(), "access.log")
	fmt.Fprintf(f.writer, "file;%s;one; two\nfile;/dev/stdout;out\nfile;/no/such/folder/x;lost\nnonsense\nudp;x;y\n%s\nfile;%s;three\n",
		path, strings.Repeat("x", maxLogLine+1), path)
	wait(t, "the file", func() bool { text, _ := os.ReadFile(path); return string(text) == "one; two\nthree\n" })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f.writer, "{\"\":\"file;%s\",\"a\":\"four\"}\n", path)
	wait(t, "the file after its rotation", func() bool { text, _ := os.ReadFile(path); return string(text) == "{\"a\":\"four\"}\n" })
	wait(t, "the counts", func() bool {
		return strings.Contains(counts(f), fmt.Sprintf("zoneforge_access_log_lines_total{target=%q} 3\n", path)) &&
			strings.Contains(counts(f), "zoneforge_access_log_unreadable_total{} 3\n")
	})
	end()
	if !strings.Contains(counts(f), `zoneforge_access_log_lost_total{target="/no/such/folder/x"} 1`) {
		t.Errorf("a line for a folder that isn't there is not counted: %s", counts(f))
	}
	if out.String() != "out\n" {
		t.Errorf("output %q", out.String())
	}
}

func TestLogsSurviveTheirReceiver(t *testing.T) {
	f := newTestForwarder(t, io.Discard)
	end := forward(t, f)
	port, err := loopback.Port() // as it comes back to it
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	first, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f.writer, "tcp;%s;one\n", address)
	conn, err := first.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "one\n" {
		t.Errorf("%q %v", line, err)
	}
	_ = conn.Close()
	_ = first.Close()
	var second net.Listener
	wait(t, "the address", func() bool { second, err = net.Listen("tcp", address); return err == nil })
	defer second.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := second.Accept(); err == nil {
			accepted <- conn
		}
	}()
	// What is on its way when a receiver goes is lost with it, so one line alone proves nothing.
	wait(t, "another connection", func() bool {
		fmt.Fprintf(f.writer, "tcp;%s;two\n", address)
		return len(accepted) > 0
	})
	conn = <-accepted
	defer conn.Close()
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "two\n" {
		t.Errorf("after the receiver came back: %q %v", line, err)
	}
	end()
}

// blocked is a target that takes nothing until it is let.
type blocked struct{ let chan struct{} }

func (b blocked) write([]byte) error {
	<-b.let
	return errors.New("away")
}
func (blocked) close() {}

// TestLogsNeverWait: a target that takes nothing costs its own lines, a bounded number of bytes, and delays neither Envoy nor the
// lines of others.
func TestLogsNeverWait(t *testing.T) {
	var out bytes.Buffer
	f := newTestForwarder(t, &out)
	let := make(chan struct{})
	f.dial = func(_, name string) (logTarget, error) {
		if name == "stuck" {
			return blocked{let}, nil
		}
		return logOutput{&out}, nil
	}
	stop, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.run(stop) }()
	line := strings.Repeat("x", 1023) + "\n"
	const lines = 3 * maxLogQueue / 1024
	for range lines {
		if _, err := io.WriteString(f.writer, "tcp;stuck;"+line); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprint(f.writer, "file;/ok;through\n")
	wait(t, "the line of another target", func() bool {
		return strings.Contains(counts(f), `zoneforge_access_log_lines_total{target="/ok"} 1`+"\n")
	})
	f.mu.Lock()
	sink := f.sinks["tcp;stuck"]
	f.mu.Unlock()
	sink.mu.Lock()
	if len(sink.queue) > maxLogQueue || sink.lost < lines/3-1 {
		t.Errorf("%d bytes wait and %d of %d lines are lost", len(sink.queue), sink.lost, lines)
	}
	sink.mu.Unlock()
	_ = f.writer.Close()
	cancel()
	close(let)
	<-done
	_ = f.reader.Close()
	if !strings.Contains(counts(f), fmt.Sprintf(`zoneforge_access_log_lost_total{target="stuck"} %d`+"\n", lines)) {
		t.Errorf("in the end: %s", counts(f))
	}
	if out.String() != "through\n" {
		t.Errorf("output %q", out.String())
	}
}
