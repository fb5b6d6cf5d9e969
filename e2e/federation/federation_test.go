// Package federation_test runs a whole federation in one process, real but for its proxies: a global with its embedded etcd,
// zones with their disks, TLS and gRPC between all of them, and every connection through a fault proxy. Simulated proxies
// speak delta ADS as Envoy does. What happens is recorded, and named guarantees are judged over the record; see
// docs/guarantees.md.
package federation_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/zoneforge/zoneforge/e2e/fault"
	"github.com/zoneforge/zoneforge/e2e/goroutines"
	"github.com/zoneforge/zoneforge/e2e/history"
	"github.com/zoneforge/zoneforge/global"
	"github.com/zoneforge/zoneforge/global/zones"
	"github.com/zoneforge/zoneforge/zone"
)

func TestMain(m *testing.M) { goroutines.Verify(m) }

const (
	// heartbeat of KDS; a peer that is silent for three is gone.
	heartbeat = 200 * time.Millisecond
	// patience bounds every wait for a condition.
	patience = 3 * time.Minute
)

// federation is a global with zones.
type federation struct {
	t     *testing.T
	dir   string
	log   *zap.Logger
	lines *buffer

	global *runningGlobal
	// rest is between the clients and global.
	rest *fault.Proxy
	// etcd is a process of its own for global, behind db; both are nil where global runs its own.
	etcd  *embed.Etcd
	db    *fault.Proxy
	zones map[string]*site
	names []string
}

// site is one zone; kds is between it and global, xds between its proxies and it.
type site struct {
	f        *federation
	name     string
	cfg      zone.Config
	kds, xds *fault.Proxy
	running  *runningZone
}

type runningGlobal struct {
	*global.Global
	stop func()
}

type runningZone struct {
	*zone.Zone
	stop func()
}

// buffer keeps the log for a test that fails.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) Sync() error { return nil }

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a global that has its own etcd, and zones; the proxies come with join.
func start(t *testing.T, names ...string) *federation {
	t.Helper()
	return startWith(t, false, names...)
}

// startWith may run an etcd apart from global.
func startWith(t *testing.T, apart bool, names ...string) *federation {
	t.Helper()
	f := &federation{t: t, dir: t.TempDir(), lines: &buffer{}, zones: map[string]*site{}, names: names}
	f.log = zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), f.lines, zap.InfoLevel))
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		lines := strings.Split(f.lines.String(), "\n")
		t.Logf("the last of the log:\n%s", strings.Join(lines[max(len(lines)-80, 0):], "\n"))
	})
	f.rest = f.proxy()
	if apart {
		f.startEtcd()
	}
	f.startGlobal()
	for _, name := range names {
		s := &site{f: f, name: name, kds: f.proxy(), xds: f.proxy()}
		s.kds.SetTarget(f.global.Addresses().KDS)
		s.cfg = zone.Config{
			Name: name, DataDir: filepath.Join(f.dir, name), GlobalAddresses: []string{s.kds.Addr()}, GlobalCAFile: f.globalCA(),
			TokenFile: f.write(name+".token", f.token("zone", map[string]any{"zone": name})), XDSAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0",
			Replica: name + "-1", Version: "test", Logger: f.log,
		}
		f.zones[name] = s
		s.start()
	}
	return f
}

func (f *federation) proxy() *fault.Proxy {
	f.t.Helper()
	p, err := fault.Listen("127.0.0.1:1")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = p.Close() })
	return p
}

func (f *federation) globalDir() string { return filepath.Join(f.dir, "global") }
func (f *federation) globalCA() string  { return filepath.Join(f.globalDir(), "tls", "server-ca.crt") }

func (f *federation) write(name, text string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// startGlobal starts global on its data directory; its ports are new, as those of a machine that took its place.
func (f *federation) startGlobal() {
	f.t.Helper()
	cfg := global.Config{
		DataDir: f.globalDir(), RESTAddress: "127.0.0.1:0", KDSAddress: "127.0.0.1:0", Replica: "g", Version: "test",
		Logger: f.log, HeartbeatInterval: heartbeat,
	}
	if f.etcd != nil {
		cfg.EtcdEndpoints = []string{"http://" + f.db.Addr()}
	}
	g, err := global.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	stop := run(f.t, "global", g.Run, func() bool { return g.Addresses() != global.Addresses{} })
	f.global = &runningGlobal{g, stop}
	f.rest.SetTarget(g.Addresses().REST)
	for _, s := range f.zones {
		s.kds.SetTarget(g.Addresses().KDS)
	}
}

func (s *site) start() {
	s.f.t.Helper()
	z, err := zone.New(s.cfg)
	if err != nil {
		s.f.t.Fatal(err)
	}
	stop := run(s.f.t, "zone "+s.name, z.Run, func() bool { return z.Addresses() != zone.Addresses{} })
	s.running = &runningZone{z, stop}
	s.xds.SetTarget(z.Addresses().XDS)
}

// damage flips bits all over the state of a zone that is stopped, so that some of them matter.
func (s *site) damage(n int) {
	s.f.t.Helper()
	path := filepath.Join(s.cfg.DataDir, "state.db")
	text, err := os.ReadFile(path)
	if err != nil {
		s.f.t.Fatal(err)
	}
	for i := n % 512; i < len(text); i += 512 {
		text[i] ^= 0x55
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.f.t.Fatal(err)
	}
}

// run runs until the returned function is called, or the test ends.
func run(t *testing.T, what string, run func(context.Context) error, ready func() bool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
	t.Cleanup(stop)
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !ready() {
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("%s ended before it was ready: %v", what, err)
		case <-limit.C:
			t.Fatalf("%s is not ready", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return stop
}

// api is a client of global's REST with a connection of its own each time, so that faults hit requests and no pool.
func (f *federation) api(method, path string, body any) (code int, text []byte, err error) {
	return f.request(f.rest.Addr(), 3*time.Second, method, path, body)
}

// direct passes by the faults, as an observer does.
func (f *federation) direct(method, path string, body any) (code int, text []byte, err error) {
	return f.request(f.global.Addresses().REST, patience, method, path, body)
}

func (f *federation) request(address string, limit time.Duration, method, path string, body any) (code int, text []byte, err error) {
	ca, err := os.ReadFile(f.globalCA())
	if err != nil {
		return 0, nil, err
	}
	token, err := os.ReadFile(filepath.Join(f.globalDir(), "admin-token"))
	if err != nil {
		return 0, nil, err
	}
	payload, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequest(method, "https://"+address+path, bytes.NewReader(payload))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: tr, Timeout: limit}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

func (f *federation) token(what string, body map[string]any) string {
	f.t.Helper()
	code, text, err := f.direct(http.MethodPost, "/v1/tokens/"+what, body)
	if err != nil || code != http.StatusCreated {
		f.t.Fatalf("token %s: %d %s %v", what, code, text, err)
	}
	var out struct{ Token string }
	if err := json.Unmarshal(text, &out); err != nil {
		f.t.Fatal(err)
	}
	return out.Token
}

// errUnknown says that nothing is known of a change's outcome, and errRefused that there was no change.
var (
	errUnknown = errors.New("unknown outcome")
	errRefused = errors.New("refused")
)

// asks is api or direct.
type asks func(method, path string, body any) (code int, text []byte, err error)

// changeBy posts one change; errUnknown when its answer did not come whole.
func changeBy(ask asks, message string, resources []map[string]any, deletes ...map[string]any) (out history.Committed, err error) {
	code, text, err := ask(http.MethodPost, "/v1/changes", map[string]any{"message": message, "resources": resources, "deletes": deletes})
	switch {
	case err != nil:
		return out, fmt.Errorf("%w: %w", errUnknown, err)
	case code >= 500:
		return out, fmt.Errorf("%w: %d %s", errUnknown, code, text)
	case code != http.StatusOK && code != http.StatusCreated:
		return out, fmt.Errorf("%w: change %q: %d %s", errRefused, message, code, text)
	}
	return out, json.Unmarshal(text, &out)
}

// mustChange is a change that nothing disturbs.
func (f *federation) mustChange(message string, resources ...map[string]any) history.Committed {
	f.t.Helper()
	out, err := changeBy(f.direct, message, resources)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// status of one zone as global tells it, by passing the faults.
func (f *federation) status(name string) (s zones.Status) {
	code, text, err := f.direct(http.MethodGet, "/v1/status/zones/"+name, nil)
	if err != nil || code != http.StatusOK || json.Unmarshal(text, &s) != nil {
		return zones.Status{}
	}
	return s
}

func (f *federation) receipt(change int64) (r zones.Receipt) {
	code, text, err := f.direct(http.MethodGet, fmt.Sprintf("/v1/changes/%d/status", change), nil)
	if err != nil || code != http.StatusOK || json.Unmarshal(text, &r) != nil {
		return zones.Receipt{}
	}
	return r
}

// await blocks until a condition holds; tell says what was seen last.
func (f *federation) await(what string, limit time.Duration, ok func() bool, tell func() any) time.Duration {
	f.t.Helper()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > limit {
			f.t.Fatalf("waited %s in vain for %s: %+v", limit, what, tell())
		}
		<-tick.C
	}
	return time.Since(began)
}

// live waits until a change is acknowledged by every proxy of some zones.
func (f *federation) live(change int64, limit time.Duration, names ...string) time.Duration {
	f.t.Helper()
	var r zones.Receipt
	return f.await(fmt.Sprintf("change %d to be live in %v", change, names), limit, func() bool {
		r = f.receipt(change)
		n := 0
		for _, z := range r.Zones {
			for _, name := range names {
				if z.Zone == name && z.Live && z.Connected {
					n++
				}
			}
		}
		return n == len(names)
	}, func() any { return r })
}
