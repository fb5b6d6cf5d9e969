package e2e

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is the product, built once for all tests of this package.
var binary string

// spawn starts commands from one thread that lives as long as the tests do: a child's parent-death signal is bound to the
// thread that started it.
var spawn = make(chan func())

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "zoneforge-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "zoneforge")
		if out, err := exec.Command("go", "build", "-o", binary, "../cmd/zoneforge").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		go func() {
			runtime.LockOSThread()
			for start := range spawn {
				start()
			}
		}()
		return m.Run()
	}())
}

// Ports are the same in every test; the addresses differ, as if each process had a machine of its own.
const (
	restPort = 5682
	kdsPort  = 5685
	xdsPort  = 5678
)

// No test knows how fast the machine is: these bounds are met where something is wrong alone.
const (
	// awaitTime is how long a condition may take to hold.
	awaitTime = 2 * time.Minute
	// answerTime is how long an answer that must come may take.
	answerTime = time.Minute
	// endTime is how long a process may take to end by itself.
	endTime = time.Minute
	// applyTime is how long a change may take to be live, as an argument.
	applyTime = "2m"
)

// federation is a global with zones and proxies, all real processes on a loopback network of its own.
type federation struct {
	t       *testing.T
	dir     string
	network string // such as 127.70.3
	running map[string]*process
	clocks  map[string]*timepiece
	// heartbeat is global's interval; a second where it is empty.
	heartbeat string
	api       *http.Client
	sites     *sites
}

// process is one of them, with its output in a file.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	// expected says that its end is no failure.
	expected bool
}

func newFederation(t *testing.T) *federation {
	t.Helper()
	f := &federation{t: t, dir: t.TempDir(), running: map[string]*process{}, clocks: map[string]*timepiece{}}
	f.claimNetwork()
	t.Cleanup(f.stop)
	return f
}

// claimNetwork takes a network that no other test run has, by a port that is kept until the end.
func (f *federation) claimNetwork() {
	for i := range 16384 {
		n := (os.Getpid()*31 + i) % 16384
		network := fmt.Sprintf("127.%d.%d", 64+n/256, n%256)
		l, err := net.Listen("tcp", network+".254:7")
		if err != nil {
			continue
		}
		f.network = network
		f.t.Cleanup(func() { l.Close() })
		return
	}
	f.t.Fatal("no loopback network is free")
}

func (f *federation) path(parts ...string) string {
	return filepath.Join(append([]string{f.dir}, parts...)...)
}
func (f *federation) host(n int) string     { return fmt.Sprintf("%s.%d", f.network, n) }
func (f *federation) at(n, port int) string { return fmt.Sprintf("%s:%d", f.host(n), port) }

func (f *federation) write(name, text string) string {
	f.t.Helper()
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		f.t.Fatal(err)
	}
	// In one step, as a process may be reading it.
	whole := path + ".next"
	err := os.WriteFile(whole, []byte(text), 0o600)
	if err == nil {
		err = os.Rename(whole, path)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return path
}

// run starts the product under a name.
func (f *federation) run(name string, args ...string) *process {
	f.t.Helper()
	p := &process{name: name, log: f.path("logs", strings.ReplaceAll(name, "/", "-")+".log"), done: make(chan struct{})}
	if err := os.MkdirAll(f.path("logs"), 0o700); err != nil {
		f.t.Fatal(err)
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer out.Close()
	p.cmd = f.command(name, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	spawn <- func() { started <- f.begin(p) }
	if err := <-started; err != nil {
		f.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // its state says how it ended
		close(p.done)
	}()
	f.running[name] = p
	return p
}

// kill ends processes as a crash does.
func (f *federation) kill(names ...string) {
	f.t.Helper()
	for _, name := range names {
		p := f.running[name]
		if p == nil {
			f.t.Fatalf("%s does not run", name)
		}
		p.expected = true
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		delete(f.running, name)
	}
}

// end asks a process to end and gives its exit code.
func (f *federation) end(name string) int {
	f.t.Helper()
	p := f.running[name]
	p.expected = true
	delete(f.running, name)
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(endTime):
		_ = p.cmd.Process.Kill()
		<-p.done
		f.t.Errorf("%s did not end", name)
	}
	return p.cmd.ProcessState.ExitCode()
}

// exit waits for a process to end by itself, and gives its exit code and what it said.
func (f *federation) exit(p *process) (int, string) {
	f.t.Helper()
	p.expected = true
	select {
	case <-p.done:
	case <-time.After(awaitTime):
		f.t.Fatalf("%s goes on: %s", p.name, f.said(p.name))
	}
	delete(f.running, p.name)
	return p.cmd.ProcessState.ExitCode(), f.said(p.name)
}

func (f *federation) said(name string) string {
	text, err := os.ReadFile(f.path("logs", strings.ReplaceAll(name, "/", "-")+".log"))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// stop ends everything, and tells what processes said where the test failed.
func (f *federation) stop() {
	names := f.names()
	for _, p := range f.running {
		p.expected = true
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	// One bound for all, so that a test that fails doesn't take minutes.
	limit := time.NewTimer(endTime)
	defer limit.Stop()
	for _, name := range names {
		p := f.running[name]
		select {
		case <-p.done:
		case <-limit.C:
			limit.Reset(0)
			f.t.Errorf("%s did not end by itself", name)
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	if !f.t.Failed() {
		return
	}
	logs, _ := filepath.Glob(f.path("logs", "*.log"))
	for _, log := range logs {
		text, _ := os.ReadFile(log)
		f.t.Logf("--- %s\n%s", filepath.Base(log), text[max(0, len(text)-3000):])
	}
}

func (f *federation) names() []string {
	var out []string
	for name := range f.running {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// await calls ok until it gives no error.
func (f *federation) await(what string, ok func() error) {
	f.t.Helper()
	deadline := time.NewTimer(awaitTime)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := ok()
		if last == nil {
			return
		}
		for _, name := range f.names() {
			select {
			case <-f.running[name].done:
				if !f.running[name].expected {
					f.t.Fatalf("%s: %s ended: %s", what, name, f.running[name].cmd.ProcessState)
				}
			default:
			}
		}
		select {
		case <-deadline.C:
			f.t.Fatalf("%s: %v", what, last)
		case <-tick.C:
		}
	}
}

// globalArgs are those of a global at the first address.
func (f *federation) globalArgs(more ...string) []string {
	return append([]string{"global", "run", "--data-dir", f.path("global"), "--rest-address", f.at(1, restPort), "--kds-address", f.at(1, kdsPort),
		"--heartbeat-interval", cmp.Or(f.heartbeat, "1s"), "--root-settle", "1s"}, more...)
}

func (f *federation) startGlobal() {
	f.t.Helper()
	f.run("global", f.globalArgs()...)
	f.await("global", func() error {
		code, _, err := f.rest(http.MethodGet, "/v1/status/zones", nil)
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("status %d", code)
		}
		return err
	})
}

// as are the settings of a client of global; token is a file.
func (f *federation) environment(token string) []string {
	return append(os.Environ(), "ZONEFORGE_ADDRESS=https://"+f.at(1, restPort), "ZONEFORGE_CA="+f.path("global", "tls", "server-ca.crt"),
		"ZONEFORGE_TOKEN_FILE="+token, "ZONEFORGE_CLIENT_CONFIG="+f.path("no-client.yaml"))
}

// refused is what a command said that did not exit with 0.
type refused struct {
	code   int
	output string
}

func (r refused) Error() string { return fmt.Sprintf("exit %d: %s", r.code, r.output) }

// try runs the command line as an administrator.
func (f *federation) try(args ...string) (string, error) {
	return f.tryAs(f.path("global", "admin-token"), args...)
}

func (f *federation) tryAs(token string, args ...string) (string, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = f.environment(token)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), refused{exit.ExitCode(), out.String() + errs.String()}
	}
	return out.String(), err
}

// cli runs a command that must succeed.
func (f *federation) cli(args ...string) string {
	f.t.Helper()
	out, err := f.try(args...)
	if err != nil {
		f.t.Fatalf("zoneforge %s: %v", strings.Join(args, " "), err)
	}
	if slices.Contains(args, "--wait") {
		f.inForce()
	}
	return out
}

// fails runs a command that must exit with a code and say some words.
func (f *federation) fails(code int, words []string, args ...string) string {
	f.t.Helper()
	_, err := f.try(args...)
	var r refused
	if !errors.As(err, &r) {
		f.t.Fatalf("zoneforge %s: %v, want exit %d", strings.Join(args, " "), err, code)
	}
	if r.code != code {
		f.t.Errorf("zoneforge %s: %v, want exit %d", strings.Join(args, " "), err, code)
	}
	f.says(r.output, words...)
	return r.output
}

func (f *federation) says(text string, words ...string) {
	f.t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			f.t.Errorf("it does not say %q:\n%s", w, text)
		}
	}
}

// apply applies documents and waits until the last proxy has them.
func (f *federation) apply(documents ...string) {
	f.t.Helper()
	f.cli("apply", "--wait", "--timeout", applyTime, "-f", f.write("apply.yaml", strings.Join(documents, "\n---\n")))
}

// refusesToApply applies documents that must fail as a whole, or in a zone.
func (f *federation) refusesToApply(words []string, documents ...string) string {
	f.t.Helper()
	return f.fails(1, words, "apply", "--wait", "--timeout", applyTime, "-f", f.write("refused.yaml", strings.Join(documents, "\n---\n")))
}

// token keeps a token in a file.
func (f *federation) token(name string, args ...string) string {
	f.t.Helper()
	return f.write("tokens/"+name, f.cli(append([]string{"token"}, args...)...))
}

// zoneArgs are those of a zone whose control plane has address n.
func (f *federation) zoneArgs(name string, n int) []string {
	return []string{"zone", "run", "--name", name, "--data-dir", f.path(name), "--global", f.at(1, kdsPort), "--global-ca",
		f.path("global", "tls", "server-ca.crt"), "--token-file", f.path("tokens", name), "--xds-address", f.at(n, xdsPort), "--rest-address", f.at(n, 5683)}
}

// startZone runs a zone control plane and waits until global knows it.
func (f *federation) startZone(name string, n int) {
	f.t.Helper()
	if _, err := os.Stat(f.path("tokens", name)); err != nil {
		f.token(name, "zone", name)
	}
	f.run(name, f.zoneArgs(name, n)...)
	f.await("zone "+name, func() error {
		s, err := f.status(name)
		if err == nil && (!s.Connected || !s.InSync) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
}

type zoneStatus struct {
	Zone             string
	Connected        bool
	InSync           bool
	Revision, Wanted int64
	Proxies, Acked   int
	Nacks            []struct{ Mesh, Proxy, TypeURL, Error string }
	Rejected         []struct{ Kind, Mesh, Name, Reason string }
	Repairs          int
	Problem          string
	Replicas         []struct {
		Replica, Global string
		Connected       bool
	}
	Services []struct {
		Mesh, Service string
		Count         int
	}
}

// status is asked for without a process of its own, as it is asked for often.
func (f *federation) status(zone string) (zoneStatus, error) {
	var s zoneStatus
	code, body, err := f.rest(http.MethodGet, "/v1/status/zones/"+zone, nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status %d: %s", code, body)
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(body, &s)
}

// rest sends a request to global's REST as an administrator.
func (f *federation) rest(method, path string, body io.Reader) (int, []byte, error) {
	return f.restAt(1, method, path, body)
}

// restAt sends it to the replica of global at address n.
func (f *federation) restAt(n int, method, path string, body io.Reader) (int, []byte, error) {
	if f.api == nil {
		roots, err := os.ReadFile(f.path("global", "tls", "server-ca.crt"))
		if err != nil {
			return 0, nil, err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(roots)
		f.api = &http.Client{Timeout: answerTime, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
		f.t.Cleanup(f.api.CloseIdleConnections)
	}
	token, err := os.ReadFile(f.path("global", "admin-token"))
	if err != nil {
		return 0, nil, err
	}
	r, err := http.NewRequestWithContext(context.Background(), method, "https://"+f.at(n, restPort)+path, body)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", "application/json")
	response, err := f.api.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	out, err := io.ReadAll(response.Body)
	return response.StatusCode, out, err
}

// settled waits until all of a zone's proxies, of which there are n, have all of the newest revision in force.
func (f *federation) settled(zone string, n int) {
	f.t.Helper()
	f.acknowledged(zone, n)
	f.inForce()
}

// inForce waits until no Envoy has a listener or a cluster on its way: what is acknowledged may still wait for a route table, a secret or
// endpoints. From then on each new request meets it, as a worker takes what it was told before it reads from a connection that came later.
func (f *federation) inForce() {
	f.t.Helper()
	for _, name := range f.names() {
		socket := f.path("run", name, "admin.sock")
		if _, err := os.Stat(socket); err != nil {
			continue // it runs no Envoy, or none yet
		}
		f.await("what "+name+" was told to be in force", func() error {
			text, err := adminGet(socket, `/stats?filter=^(listener_manager\.total_listeners_warming|cluster_manager\.warming_clusters)$`)
			if err == nil && strings.Count(text, ": 0\n") != 2 {
				err = errors.New(text)
			}
			return err
		})
	}
}

// acknowledged waits until they have acknowledged it.
func (f *federation) acknowledged(zone string, n int) {
	f.t.Helper()
	f.await("proxies of "+zone, func() error {
		s, err := f.status(zone)
		if err == nil && (!s.Connected || !s.InSync || s.Proxies != n || s.Acked != n || len(s.Nacks)+len(s.Rejected) > 0) {
			err = fmt.Errorf("want %d proxies in sync: %+v", n, s)
		}
		return err
	})
}

// proxyArgs are those of a proxy of the zone whose control plane has address n.
func (f *federation) proxyArgs(zone string, n int, name, document, token string) []string {
	return []string{"dataplane", "run", "--file", f.write("proxies/"+name+".yaml", document), "--zone", f.at(n, xdsPort),
		"--ca", f.path(zone, "tls", "server-ca.crt"), "--token-file", token, "--work-dir", f.path("run", name), "--drain", "0s",
		"--envoy", envoyBinary(f.t)}
}

func (f *federation) startProxy(zone string, n int, name, document, token string) {
	f.t.Helper()
	f.run(name, f.proxyArgs(zone, n, name, document, token)...)
}

// sidecar is the document of a sidecar; more is indented as its networking is.
func sidecarDocument(mesh, name, address, more string) string {
	return fmt.Sprintf("type: Dataplane\nmesh: %s\nname: %s\nnetworking:\n  address: %s\n%s", mesh, name, address, more)
}

func inboundOf(service, protocol, workload string, port int, tags string) string {
	return fmt.Sprintf("  inbound:\n    - port: 15006\n      servicePort: %d\n      serviceAddress: %s\n      tags: {kuma.io/service: %s, kuma.io/protocol: %s%s}\n",
		port, workload, service, protocol, tags)
}

func gatewayDocument(mesh, name, address string) string {
	return fmt.Sprintf("type: Dataplane\nmesh: %s\nname: %s\nnetworking:\n  address: %s\n  gateway: {type: BUILTIN, tags: {kuma.io/service: %s}}\n", mesh, name, address, name)
}

// permit is a TrafficPermission.
func permit(mesh, name, from, to, action string) string {
	return fmt.Sprintf("type: TrafficPermission\nmesh: %s\nname: %s\nsources: [{match: {kuma.io/service: %q}}]\ndestinations: [{match: {kuma.io/service: %q}}]\nconf: {action: %s}\n",
		mesh, name, from, to, action)
}

// writeFile is for goroutines, which must not end the test.
func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }
