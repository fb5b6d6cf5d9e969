package zone_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/dataplane"
	"github.com/zoneforge/zoneforge/e2e/goroutines"
	"github.com/zoneforge/zoneforge/e2e/loopback"
	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/pki/certfile"
	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"
	"github.com/zoneforge/zoneforge/zone"
)

func TestMain(m *testing.M) { goroutines.Verify(m) }

const (
	domain    = "zoneforge"
	zoneToken = "the-token-of-east"
	patience  = 2 * time.Minute
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// view is one set at a revision whose log reaches back nowhere.
type view struct {
	set *kds.Set
	at  kds.Position
}

func (v view) Position() kds.Position                                      { return v.at }
func (v view) Kinds() map[string]resource.Digest                           { return v.set.Kinds() }
func (v view) Memo() *kds.Memo                                             { return new(kds.Memo) }
func (v view) Since(string, uint64) ([]resource.Key, bool)                 { return nil, false }
func (v view) Get(k resource.Key) (*kdsv1.Record, bool)                    { return v.set.Get(k) }
func (v view) Each(kind string, fn func(resource.Key, *kdsv1.Record) bool) { v.set.Each(kind, fn) }

// global is a behavioural fake of the global control plane over the real KDS server.
type global struct {
	t       *testing.T
	root    pki.Authority
	bundle  pki.Bundle
	signing token.SigningKey
	dir     string
	address string
	caFile  string

	mu       sync.Mutex
	set      *kds.Set
	revision uint64
	stale    chan struct{}
	moved    chan struct{} // closed and made anew whenever reported or status moves
	reported *kds.Set
	// reportedTime is when reported last changed.
	reportedTime time.Time
	status       *kdsv1.Status
	stop         func()
	server       *stream.Server
}

func newGlobal(t *testing.T) *global {
	t.Helper()
	g := &global{t: t, set: kds.NewSet(), reported: kds.NewSet(), stale: make(chan struct{}), moved: make(chan struct{}), dir: t.TempDir(),
		address: fmt.Sprintf("127.0.0.1:%d", freePort(t))} // one that comes back is where it was
	g.root = must(pki.NewRoot(rand.Reader, time.Now(), "default", pki.Validity{}))(t)
	g.bundle = must(pki.NewBundle(g.root.Certificate))(t)
	g.signing = must(token.NewSigningKey(rand.Reader, token.Dataplane))(t)
	g.put(1,
		rec(t, "TrustBundle", "default", &federationv1.TrustBundle{Domain: domain, Roots: []string{string(g.bundle.PEM())}}),
		g.keys(),
	)
	g.start()
	t.Cleanup(func() { g.stop() })
	return g
}

// keys are those of tokens, with those that are revoked.
func (g *global) keys(revoked ...string) *kdsv1.Record {
	v := g.signing.Verification()
	return rec(g.t, "VerificationKeys", "dataplane", &federationv1.VerificationKeys{
		Keys: []*federationv1.VerificationKey{{Id: v.ID, Ed25519: v.Public}}, Revoked: revoked})
}

func (g *global) start() {
	t := g.t
	cert := must(certfile.Ensure(g.dir, rand.Reader, time.Now(), "global", []string{"127.0.0.1"}))(t)
	g.caFile = filepath.Join(g.dir, certfile.CAFile)
	s := must(stream.NewServer(stream.ServerConfig{
		Machine: kds.GlobalConfig{Replica: "g", Domain: domain, Interval: 20 * time.Second}, Admission: g, Views: g, Zones: g, Log: zap.NewNop(),
	}))(t)
	g.server = s
	lis := must(net.Listen("tcp", g.address))(t)
	gs := grpc.NewServer(append(stream.ServerOptions(), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert.Certificate}})))...)
	kdsv1.RegisterKDSServer(gs, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = gs.Serve(lis) }()
	g.stop = sync.OnceFunc(func() {
		gs.Stop()
		s.Wait()
		<-done
	})
}

// put makes a new revision with more records.
func (g *global) put(revision uint64, records ...*kdsv1.Record) {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.set = g.set.Clone()
	for _, r := range records {
		if err := g.set.Put(r); err != nil {
			g.t.Fatal(err)
		}
	}
	g.revision = revision
	close(g.stale)
	g.stale = make(chan struct{})
}

func (g *global) View(string) (kds.View, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return view{g.set, g.set.Position("epoch", g.revision)}, g.stale
}

func (g *global) Authenticate(_ context.Context, got string) (string, kds.Verdict) {
	if got != zoneToken {
		return "", kds.Verdict{Code: kdsv1.Refusal_CODE_UNAUTHENTICATED, Reason: "wrong token"}
	}
	return "east", kds.Verdict{}
}

func (g *global) Withdrawn(string) kds.Verdict { return kds.Verdict{} }

func (g *global) Siblings(string, string) *kdsv1.Siblings { return nil }

func (g *global) Open(context.Context, string, *kdsv1.Hello) (stream.Session, kds.Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	offered := g.reported.Digest()
	return g, kds.Verdict{Offered: &offered}
}

func (g *global) Report(_ context.Context, r *kdsv1.Report) ([]*kdsv1.Rejection, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.GetSnapshot() {
		g.reported = kds.NewSet()
	}
	for _, u := range r.GetUpserts() {
		if err := g.reported.Put(u); err != nil {
			return nil, err
		}
	}
	for _, k := range r.GetDeletes() {
		key, err := kds.KeyFrom(k)
		if err != nil {
			return nil, err
		}
		g.reported.Delete(key)
	}
	g.reportedTime = time.Now()
	g.moveLocked()
	return nil, nil
}

func (g *global) Certificate(_ context.Context, r *kdsv1.CertificateRequest) *kdsv1.Certificate {
	out := &kdsv1.Certificate{Mesh: r.GetMesh()}
	td, err := pki.NewTrustDomain("east", r.GetMesh(), domain)
	if err == nil {
		chain, signErr := pki.SignIntermediate(rand.Reader, time.Now(), g.root, td, r.GetCsr(), pki.Validity{})
		if err = signErr; err == nil {
			out.Chain = string(pki.EncodeCertificates(chain...))
			return out
		}
	}
	out.Error = err.Error()
	return out
}

func (g *global) Status(s *kdsv1.Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// The time of a revision comes once, and not necessarily with what a test waits for beside it.
	times := kds.LiveOf(s)
	for _, l := range kds.LiveOf(g.status) {
		if !slices.ContainsFunc(times, func(known kds.Live) bool { return known.Revision == l.Revision }) {
			times = append(times, l)
		}
	}
	slices.SortFunc(times, func(a, b kds.Live) int { return cmp.Compare(a.Revision, b.Revision) })
	s = proto.CloneOf(s)
	s.Live, s.Times = nil, kds.TimesOf(times)
	g.status = s
	g.moveLocked()
}

func (g *global) Confirmed(kds.Position, []*kdsv1.Rejection) {}
func (g *global) Nacked(kds.Nacked)                          {}
func (g *global) Repaired([]string)                          {}
func (g *global) Seen(time.Time)                             {}
func (g *global) Close()                                     {}

func (g *global) moveLocked() {
	close(g.moved)
	g.moved = make(chan struct{})
}

// await blocks until what the zone reported satisfies ok.
func (g *global) await(what string, ok func(s *kdsv1.Status, reported *kds.Set) bool) {
	g.t.Helper()
	deadline := time.After(patience)
	for {
		g.mu.Lock()
		s, reported, moved := g.status, g.reported, g.moved
		done := s != nil && ok(s, reported)
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-moved:
		case <-deadline:
			g.t.Fatalf("waited in vain for %s: status %v, %d records reported", what, s, reported.Len())
		}
	}
}

func live(revision uint64) func(*kdsv1.Status, *kds.Set) bool {
	return func(s *kdsv1.Status, _ *kds.Set) bool {
		for _, l := range kds.LiveOf(s) {
			if l.Revision == revision && s.GetAcked() == s.GetProxies() {
				return true
			}
		}
		return false
	}
}

func rec(t *testing.T, kind, name string, spec proto.Message) *kdsv1.Record {
	t.Helper()
	k := resource.Key{Kind: kind, Mesh: "default", Name: name}
	if found, _ := resource.Lookup(kind); found.Global() {
		k.Mesh = ""
	}
	return kds.NewRecord(k, must(resource.Marshal(&resource.Resource{Key: k, Spec: spec}))(t))
}

// running is a zone control plane that runs.
type running struct {
	*zone.Zone
	stop func()
}

func startZone(t *testing.T, cfg zone.Config) running {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))
	}
	z := must(zone.New(cfg))(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- z.Run(ctx) }()
	r := running{z, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("zone: %v", err)
		}
	})}
	t.Cleanup(r.stop)
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for z.Addresses() == (zone.Addresses{}) {
		select {
		case err := <-done:
			done <- nil
			t.Fatalf("zone: %v", err)
		case <-limit.C:
			t.Fatal("zone is not ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return r
}

func freePort(t *testing.T) uint32 {
	t.Helper()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func envoyBinary(t *testing.T) string {
	t.Helper()
	path := must(filepath.Abs("../.tools/bin/envoy"))(t)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Envoy: run `make tools`: %v", err)
	}
	return path
}

// startEnvoy runs a real Envoy from the product's own bootstrap; the returned function stops it.
func (g *global) startEnvoy(z running, kind, name string, spec proto.Message) func() {
	t := g.t
	t.Helper()
	now := time.Now()
	claims := token.Claims{Purpose: token.Dataplane, ID: name, IssuedAt: now, ExpiresAt: now.Add(time.Hour)}
	b := dataplane.Bootstrap{
		Kind: kind, Name: name, Service: name, ControlPlanes: []string{z.Addresses().XDS}, CAFile: z.CAFile(),
	}
	if kind == "Dataplane" {
		b.Mesh, claims.Mesh = "default", "default"
	} else {
		claims.Ingress, claims.Zone = true, "east"
	}
	b.Document = must(resource.EncodeJSON(&resource.Resource{Key: resource.Key{Kind: kind, Mesh: b.Mesh, Name: name}, Spec: spec}))(t)
	b.TokenFile = write(t, "token", []byte(must(token.Sign(g.signing, claims))(t).Reveal()))
	dir := must(os.MkdirTemp("", "zf"))(t)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b.AdminSocket = filepath.Join(dir, "admin.sock")
	config := write(t, "bootstrap.json", must(b.JSON())(t))
	var log bytes.Buffer
	cmd := exec.Command(envoyBinary(t), "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "warning")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &log, &log // pipes lie where it runs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", b.NodeID(), log.String())
		}
	})
	t.Cleanup(stop)
	return stop
}

// fetch asks until the answer satisfies ok; an Envoy's workers take a change over a moment after it was acknowledged.
func fetch(t *testing.T, client *http.Client, url string, ok func(code int, h http.Header, body string) bool) {
	t.Helper()
	deadline, last := time.Now().Add(patience), ""
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; time.Now().Before(deadline); <-tick.C {
		resp, err := client.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil && ok(resp.StatusCode, resp.Header, string(body)) {
			return
		}
		last = fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(body)))
	}
	t.Fatalf("%s: last answer %s", url, last)
}
