package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/zoneforge/zoneforge/cli"
)

// process is a command that runs until it is stopped; its log can be waited for.
type process struct {
	t    *testing.T
	logs chan map[string]any
	done chan int
	stop context.CancelFunc
}

// start runs a command in this process, with its log as JSON.
func start(t *testing.T, command func(cli.Streams) *cobra.Command, args ...string) *process {
	t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, logs: make(chan map[string]any, 4096), done: make(chan int, 1), stop: cancel}
	go func() {
		streams := cli.Streams{In: strings.NewReader(""), Out: io.Discard, Err: w}
		p.done <- cli.Main(ctx, streams, args, command(streams))
		w.Close()
	}()
	go func() {
		defer close(p.logs)
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			line := map[string]any{}
			if json.Unmarshal(lines.Bytes(), &line) != nil {
				line["msg"] = lines.Text()
			}
			select {
			case p.logs <- line:
			default: // nobody waits for the rest
			}
		}
	}()
	t.Cleanup(func() { p.end() })
	return p
}

// await gives the first line of the log with this message.
func (p *process) await(message string) map[string]any {
	p.t.Helper()
	limit := time.After(2 * time.Minute)
	var seen []string
	for {
		select {
		case line, ok := <-p.logs:
			if !ok {
				p.t.Fatalf("it ended without %q; it said:\n%s", message, strings.Join(seen, "\n"))
			}
			if line["msg"] == message {
				return line
			}
			text, _ := json.Marshal(line)
			seen = append(seen, string(text))
		case <-limit:
			p.t.Fatalf("no %q; it said:\n%s", message, strings.Join(seen, "\n"))
		}
	}
}

// end stops it and gives its exit code.
func (p *process) end() int {
	p.stop()
	code := <-p.done
	p.done <- code
	return code
}

func text(t *testing.T, line map[string]any, key string) string {
	t.Helper()
	s, ok := line[key].(string)
	if !ok || s == "" {
		t.Fatalf("no %s in %v", key, line)
	}
	return s
}

// client runs a verb against a global and wants it to succeed.
func client(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := cli.Main(t.Context(), cli.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs}, args); code != cli.ExitDone {
		t.Fatalf("%v: exit %d\n%s%s", args, code, out.String(), errs.String())
	}
	return out.String()
}

// TestControlPlanesServeWhatTheClientSays runs both control planes as the command line does, and speaks to them with its verbs.
func TestControlPlanesServeWhatTheClientSays(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "global")
	g := start(t, newGlobal, "global", "run", "--data-dir", data, "--rest-address", "127.0.0.1:0", "--kds-address", "127.0.0.1:0", "--replica", "g-0")
	ready := g.await("global is ready")
	rest, kds := text(t, ready, "rest"), text(t, ready, "kds")
	t.Setenv("ZONEFORGE_ADDRESS", rest)
	t.Setenv("ZONEFORGE_CA", filepath.Join(data, "tls", "server-ca.crt"))
	t.Setenv("ZONEFORGE_TOKEN_FILE", filepath.Join(data, "admin-token"))
	if out := client(t, "", "version"); !strings.Contains(out, "replica g-0") {
		t.Errorf("version says %q", out)
	}
	const timeout = "type: Timeout\nname: all\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: '*'}}]\nconf: {connectTimeout: 5s}\n"
	if out := client(t, timeout, "apply", "-f", "-", "--message", "the first"); !strings.Contains(out, "Timeout default/all created") {
		t.Errorf("apply says %q", out)
	}
	if out := client(t, strings.Replace(timeout, "5s", "9s", 1), "diff", "-f", "-"); !strings.Contains(out, "-   connectTimeout: 5s\n+   connectTimeout: 9s\n") {
		t.Errorf("diff says %q", out)
	}
	if out := client(t, "", "history"); !strings.Contains(out, "the first") {
		t.Errorf("history says %q", out)
	}
	token := filepath.Join(dir, "east.token")
	client(t, "", "token", "zone", "east", "--out", token)

	z := start(t, newZone, "zone", "run", "--name", "east", "--data-dir", filepath.Join(dir, "east"), "--global", kds,
		"--global-ca", filepath.Join(data, "tls", "server-ca.crt"), "--token-file", token, "--xds-address", "127.0.0.1:0", "--rest-address", "127.0.0.1:0")
	serving := z.await("zone control plane serves")
	for _, address := range []string{text(t, serving, "xds"), text(t, serving, "rest")} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	g.await("zone connected") // a receipt knows only zones that were there once
	out := client(t, strings.Replace(timeout, "5s", "7s", 1), "apply", "-f", "-", "--wait")
	if !strings.Contains(out, "zone east: live, 0 of 0 proxies\n") || !strings.Contains(out, " is live on 0 of 0 proxies in 1 of 1 zone since ") {
		t.Errorf("apply --wait says %q", out)
	}
	for _, args := range [][]string{{"get", "zones"}, {"get", "zone", "east"}, {"inspect", "zone", "east"}} {
		if out := client(t, "", args...); !strings.Contains(out, "east") || !strings.Contains(out, "in sync") {
			t.Errorf("%v says %q", args, out)
		}
	}
	if out := client(t, "", "get", "dataplanes"); out != "no dataplanes\n" {
		t.Errorf("get dataplanes says %q", out)
	}
	if code := z.end(); code != cli.ExitDone {
		t.Errorf("the zone ends with %d", code)
	}
	if code := g.end(); code != cli.ExitDone {
		t.Errorf("global ends with %d", code)
	}
	if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestControlPlanesExitCodes(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"zone without a name", []string{"zone", "run", "--global", "g:1", "--global-ca", "c", "--token-file", "t"}, 2, "name is not set: set --name"},
		{"global at no address", []string{"global", "run", "--rest-address", "here"}, 2, `rest-address: "here" is not host:port`},
		{"port in use", []string{"global", "run", "--data-dir", t.TempDir(), "--rest-address", taken.Addr().String(), "--kds-address", "127.0.0.1:0"}, 1, "address already in use"},
		{"no group's verb", []string{"global", "walk"}, 2, "unknown command"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, errs := zoneforge(t, c.args...); code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("exit %d, want %d with %q\n%s", code, c.code, c.want, errs)
			}
		})
	}
}
