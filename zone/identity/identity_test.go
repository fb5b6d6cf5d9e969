package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/zone/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const domain = "example.org"

// memory is a store that can fail.
type memory struct {
	mu    sync.Mutex
	held  map[string]disk.Intermediate
	saves int
	err   error
}

func (m *memory) LoadIntermediates() ([]disk.Intermediate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []disk.Intermediate
	for _, v := range m.held {
		out = append(out, v)
	}
	return out, m.err
}

func (m *memory) SaveIntermediate(i disk.Intermediate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.held[i.Mesh] = i
	m.saves++
	return nil
}

// world is a zone's identity with a global that signs, on a fake clock.
type world struct {
	*Identity
	t     testing.TB
	store *memory
	log   *syncBuffer

	mu       sync.Mutex
	away     bool          // requests can't be sent
	silent   bool          // requests get no answer
	refuse   string        // requests are refused
	lifetime time.Duration // of intermediates
	signs    pki.Authority
	requests []time.Time
	roots    []pki.Authority // in the bundle
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newRoot(t testing.TB) pki.Authority {
	t.Helper()
	a, err := pki.NewRoot(rand.Reader, time.Now(), "m", pki.Validity{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newWorld(t testing.TB, settle time.Duration) *world {
	t.Helper()
	w := &world{t: t, store: &memory{held: map[string]disk.Intermediate{}}, log: &syncBuffer{}}
	w.signs = newRoot(t)
	w.roots = []pki.Authority{w.signs}
	w.start(settle)
	return w
}

func (w *world) start(settle time.Duration) {
	w.t.Helper()
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(w.log), zap.DebugLevel))
	i, err := New(Config{Zone: "east", Store: w.store, Request: w.request, Settle: settle, Logger: logger})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Identity = i
}

// run runs it until the test or stop ends it.
func (w *world) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	i := w.Identity
	go func() { done <- i.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) request(_ context.Context, mesh string, csr []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests = append(w.requests, time.Now())
	if w.away {
		return errors.New("no stream")
	}
	if w.silent {
		return nil
	}
	if w.refuse != "" {
		w.Answer(&kdsv1.Certificate{Mesh: mesh, Error: w.refuse})
		return nil
	}
	td := pki.TrustDomain{Zone: "east", Mesh: mesh, Domain: domain}
	chain, err := pki.SignIntermediate(rand.Reader, time.Now(), w.signs, td, csr, pki.Validity{Lifetime: w.lifetime})
	if err != nil {
		return err
	}
	w.Answer(&kdsv1.Certificate{Mesh: mesh, Chain: string(pki.EncodeCertificates(chain...))})
	return nil
}

func (w *world) set(change func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

func (w *world) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.requests)
}

func meshSpec(expiration time.Duration) *meshv1.Mesh {
	b := &meshv1.Mesh_CertificateAuthority{Name: "ca", Type: "builtin"}
	if expiration > 0 {
		b.DpCert = &meshv1.Mesh_DataplaneCertificate{Rotation: &meshv1.Mesh_Rotation{Expiration: durationpb.New(expiration)}}
	}
	return &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{EnabledBackend: "ca", Backends: []*meshv1.Mesh_CertificateAuthority{b}}}
}

func bundleOf(roots ...pki.Authority) *federationv1.TrustBundle {
	out := &federationv1.TrustBundle{Domain: domain}
	for _, r := range roots {
		out.Roots = append(out.Roots, string(pki.EncodeCertificates(r.Certificate)))
	}
	return out
}

func (w *world) mesh(expiration time.Duration) {
	w.t.Helper()
	if err := w.SetMesh("m", meshSpec(expiration), bundleOf(w.roots...)); err != nil {
		w.t.Fatal(err)
	}
}

// leaf checks what the zone gives out for a service by the bundle that it gives with it, and returns the certificate.
func (w *world) leaf(service string) *x509.Certificate {
	w.t.Helper()
	secrets, ready := w.Secrets("m", []string{service})
	if !ready || len(secrets) != 2 || secrets[0].Name != BundleName || secrets[1].Name != "svid:"+service {
		w.t.Fatalf("at %s: ready %v, secrets %v", time.Now(), ready, secrets)
	}
	bundle, err := pki.ParseBundle(secrets[0].Bundle)
	if err != nil {
		w.t.Fatal(err)
	}
	chain, err := pki.ParseCertificates(secrets[1].Certificate.Chain)
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := pki.Verify(chain, bundle, time.Now())
	if err != nil || id.String() != "spiffe://east.m.example.org/"+service {
		w.t.Fatalf("%s, %v", id, err)
	}
	key, err := pki.ParseKey(secrets[1].Certificate.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	if !chain[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
		w.t.Fatal("the key is not the certificate's")
	}
	return chain[0]
}

// changes settles and takes.
func (w *world) changes() string {
	synctest.Wait()
	var out []string
	select {
	case <-w.Changed():
	default:
		if got := w.Take(); len(got) > 0 {
			w.t.Errorf("%v changed, and nobody was told", got)
		}
		return ""
	}
	for _, c := range w.Take() {
		out = append(out, c.Mesh+"/"+c.Service)
	}
	return strings.Join(out, " ")
}

func (w *world) expect(want string) {
	w.t.Helper()
	if got := w.changes(); got != want {
		w.t.Fatalf("changed %q, want %q", got, want)
	}
}

// advance lets time pass.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestNotYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.away = true
		w.run()
		if secrets, ready := w.Secrets("m", []string{"web"}); ready || secrets != nil {
			t.Fatal("ready without a mesh")
		}
		if _, ready := w.Secrets("m", nil); !ready {
			t.Fatal("a proxy without an identity waits")
		}
		w.mesh(0)
		w.expect("m/")
		secrets, ready := w.Secrets("m", []string{"web", "api", "web"})
		if ready || len(secrets) != 1 || secrets[0].Name != BundleName {
			t.Fatalf("%v, %v", secrets, ready)
		}
		advance(time.Hour)
		w.expect("")
		if n := w.asked(); n < 10 || n > 40 {
			t.Errorf("%d requests in an hour without a stream", n)
		}
		if s := w.Statuses(); len(s) != 1 || s[0].Ready || s[0].Waiting != 2 || !strings.Contains(s[0].Problem, "no stream") {
			t.Errorf("%+v", s)
		}
		if n := strings.Count(w.log.String(), "no stream"); n != 1 {
			t.Errorf("%d lines about the same", n)
		}
		// A stream is up: no wait for the end of the backoff.
		w.set(func(w *world) { w.away = false })
		w.Connected()
		w.expect("m/api m/web")
		w.leaf("web")
		w.leaf("api")
		if s := w.Statuses()[0]; !s.Ready || s.SVIDs != 2 || s.Waiting != 0 || s.Problem != "" {
			t.Errorf("%+v", s)
		}
		// What is asked for later needs nobody.
		w.leaf("late")
		w.expect("")
	})
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.mesh(time.Hour)
		w.expect("m/")
		first := w.leaf("web")
		w.expect("")
		started := time.Now()
		advance(23 * time.Minute)
		w.expect("")
		if w.leaf("web").SerialNumber.Cmp(first.SerialNumber) != 0 {
			t.Error("renewed at once")
		}
		last, renewals := first, 0
		for time.Since(started) < 10*time.Hour {
			advance(time.Minute)
			got := w.changes()
			leaf := w.leaf("web")
			if changed := leaf.SerialNumber.Cmp(last.SerialNumber) != 0; changed != (got == "m/web") {
				t.Fatalf("told %q, renewed %v", got, changed)
			}
			if got == "" {
				continue
			}
			if old := time.Until(last.NotAfter); old < 28*time.Minute || old > 37*time.Minute {
				t.Errorf("renewed %s before the end", old)
			}
			last = leaf
			renewals++
		}
		if renewals < 19 || renewals > 25 {
			t.Errorf("%d renewals in 10 h", renewals)
		}
		if n := w.asked(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// One timer serves all: it is armed for the earliest, also when something with a shorter life comes later.
func TestEarliestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.mesh(0)
		w.expect("m/")
		w.leaf("web")
		if err := w.SetMesh("n", meshSpec(time.Minute), bundleOf(w.roots...)); err != nil {
			t.Fatal(err)
		}
		w.expect("n/")
		if _, ready := w.Secrets("n", []string{"web"}); !ready {
			t.Fatal("not ready")
		}
		advance(31 * time.Second)
		w.expect("n/web")
		// A shorter lifetime renews what would outlive it.
		w.mesh(time.Minute)
		w.expect("m/web")
		if left := time.Until(w.leaf("web").NotAfter); left > time.Minute {
			t.Error(left)
		}
		// Forgotten services are renewed no more, nor is a mesh without mutual TLS.
		w.Retain("m", []string{"other"})
		w.RemoveMesh("n")
		advance(10 * time.Minute)
		w.expect("")
	})
}

func TestIntermediateRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.mesh(24 * time.Hour)
		w.expect("m/")
		w.leaf("web")
		started := time.Now()
		advance(14 * 24 * time.Hour)
		if w.asked() != 1 {
			t.Fatal("asked too early")
		}
		w.Take()
		// Half of the life is over while global is away; the zone keeps serving, and nothing is lost.
		w.set(func(w *world) { w.away = true })
		for time.Since(started) < 28*24*time.Hour {
			advance(time.Hour)
			w.leaf("web")
		}
		if w.asked() < 2 {
			t.Fatal("not asked at half of the life")
		}
		w.set(func(w *world) { w.away = false })
		w.Connected()
		synctest.Wait()
		if s := w.Statuses()[0]; time.Until(s.NotAfter) < 29*24*time.Hour || s.Problem != "" {
			t.Fatalf("%+v", s)
		}
		if w.store.saves != 2 {
			t.Errorf("%d saves", w.store.saves)
		}
		for time.Since(started) < 40*24*time.Hour {
			advance(time.Hour)
			w.leaf("web")
		}
	})
}

// Near the end of its intermediate an SVID ends with it: it must not be renewed ever faster, and gets its full life as soon as
// there is a new intermediate.
func TestOutageLongerThanPromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.mesh(24 * time.Hour)
		synctest.Wait()
		w.leaf("web")
		w.set(func(w *world) { w.away = true })
		told := 0
		for range 29 * 24 {
			advance(time.Hour)
			if w.changes() != "" {
				told++
			}
		}
		for range 30 * 60 {
			advance(time.Minute)
			if w.changes() != "" {
				told++
			}
		}
		if told > 85 {
			t.Errorf("%d renewals in 30 days of a lifetime of a day", told)
		}
		secrets, ready := w.Secrets("m", []string{"web"})
		if !ready || len(secrets) != 2 {
			t.Fatal("what has ended is not given any more")
		}
		if s := w.Statuses()[0]; s.Ready {
			t.Errorf("%+v", s)
		}
		if _, ready := w.Secrets("m", []string{"new"}); ready {
			t.Error("an ended intermediate signed")
		}
		w.set(func(w *world) { w.away = false })
		w.Connected()
		w.expect("m/new m/web")
		if left := time.Until(w.leaf("web").NotAfter); left < 23*time.Hour {
			t.Error(left)
		}
	})
}

func TestRootRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Minute)
		w.run()
		w.mesh(24 * time.Hour)
		w.expect("m/")
		before := w.leaf("web")
		w.leaf("api")
		old, next := w.signs, newRoot(t)
		w.set(func(w *world) { w.signs, w.roots = next, []pki.Authority{next, old} })
		w.mesh(24 * time.Hour)
		// The bundle goes first, and nobody is made to trust the new root before it had time to spread.
		w.expect("m/")
		if w.asked() != 2 {
			t.Fatalf("%d requests", w.asked())
		}
		advance(59 * time.Second)
		w.expect("")
		if w.leaf("web").SerialNumber.Cmp(before.SerialNumber) != 0 {
			t.Fatal("moved to the new root too early")
		}
		advance(time.Second)
		w.expect("m/api m/web")
		secrets, _ := w.Secrets("m", []string{"web"})
		chain, err := pki.ParseCertificates(secrets[1].Certificate.Chain)
		if err != nil {
			t.Fatal(err)
		}
		only, err := pki.NewBundle(next.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pki.Verify(chain, only, time.Now()); err != nil {
			t.Fatal(err)
		}
		// The old root leaves; nothing needs it any more.
		w.set(func(w *world) { w.roots = []pki.Authority{next} })
		w.mesh(24 * time.Hour)
		w.expect("m/")
		w.leaf("web")
		advance(time.Hour)
		w.expect("")
		if w.asked() != 2 {
			t.Errorf("%d requests", w.asked())
		}

		// A root that is thrown out without a successor in between: nothing to wait for.
		third := newRoot(t)
		w.set(func(w *world) { w.signs, w.roots = third, []pki.Authority{third} })
		w.mesh(24 * time.Hour)
		w.expect("m/ m/api m/web")
		w.leaf("web")
	})
}

// Global signs with a root that isn't the bundle's first, and says the same whenever it is asked.
func TestOtherRootThanFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.roots = []pki.Authority{newRoot(t), w.signs}
		w.mesh(0)
		synctest.Wait()
		w.leaf("web")
		advance(time.Hour)
		if n := w.asked(); n > 15 {
			t.Errorf("%d requests in an hour", n)
		}
	})
}

// The answer outruns the bundle with its root.
func TestAnswerBeforeBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, time.Minute)
		w.run()
		old := w.signs
		w.signs = newRoot(t)
		w.mesh(0)
		w.expect("m/")
		if _, ready := w.Secrets("m", []string{"web"}); ready {
			t.Fatal("ready with a chain that nobody trusts")
		}
		if s := w.Statuses()[0]; !strings.Contains(s.Problem, "not trusted") {
			t.Errorf("%+v", s)
		}
		w.set(func(w *world) { w.roots = []pki.Authority{w.signs, old} })
		w.mesh(0)
		w.expect("m/ m/web")
		w.leaf("web")
	})
}

func TestLostAndForeignAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.silent = true
		w.mesh(0)
		synctest.Wait()
		if w.asked() != 1 {
			t.Fatal("not asked")
		}
		for _, c := range []*kdsv1.Certificate{{Mesh: "other"}, {Mesh: "m"}, {Mesh: "m", Chain: "nonsense"}, {Mesh: "m", Chain: string(pki.EncodeCertificates(w.signs.Certificate))}} {
			w.Answer(c)
			synctest.Wait()
			if w.Statuses()[0].Ready {
				t.Fatalf("took %v", c)
			}
		}
		w.set(func(w *world) { w.refuse, w.silent = "zone is disabled", false })
		advance(time.Minute)
		if s := w.Statuses()[0]; !strings.Contains(s.Problem, "zone is disabled") {
			t.Errorf("%+v", s)
		}
		w.set(func(w *world) { w.refuse = "" })
		advance(time.Minute)
		w.leaf("web")
		// Nothing is asked for now, so nothing is taken.
		w.Answer(&kdsv1.Certificate{Mesh: "m", Error: "late"})
		synctest.Wait()
		if s := w.Statuses()[0]; s.Problem != "" {
			t.Errorf("%+v", s)
		}
	})
}

// After a restart the zone signs with what is on its disk, without global.
func TestRestart(t *testing.T) {
	store, err := disk.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		stop := w.run()
		w.mesh(0)
		synctest.Wait()
		w.leaf("web")
		issuer := w.meshes["m"].current.Certificate
		stop()

		// Through the real disk, as bytes.
		held, err := w.store.LoadIntermediates()
		if err != nil || len(held) != 1 {
			t.Fatal(held, err)
		}
		if err := store.SaveIntermediate(held[0]); err != nil {
			t.Fatal(err)
		}
		again, err := New(Config{Zone: "east", Store: store, Request: func(context.Context, string, []byte) error { return errors.New("away") }})
		if err != nil {
			t.Fatal(err)
		}
		w.Identity = again
		w.mesh(0)
		w.leaf("new") // even before Run
		if !again.meshes["m"].current.Certificate.Equal(issuer) {
			t.Error("another intermediate")
		}
		w.run()
		synctest.Wait()
		w.leaf("web")

		// Of no use: another domain, another root, broken bytes, an end long ago.
		for name, change := range map[string]func(*memory, *federationv1.TrustBundle){
			"domain": func(_ *memory, b *federationv1.TrustBundle) { b.Domain = "example.com" },
			"root":   func(_ *memory, b *federationv1.TrustBundle) { b.Roots = bundleOf(newRoot(t)).Roots },
			"chain": func(m *memory, _ *federationv1.TrustBundle) {
				m.held["m"] = disk.Intermediate{Mesh: "m", Key: held[0].Key, Chain: [][]byte{{1}}}
			},
			"no chain": func(m *memory, _ *federationv1.TrustBundle) {
				m.held["m"] = disk.Intermediate{Mesh: "m", Key: held[0].Key}
			},
			"key": func(m *memory, _ *federationv1.TrustBundle) {
				m.held["m"] = disk.Intermediate{Mesh: "m", Chain: held[0].Chain}
			},
			"end": func(*memory, *federationv1.TrustBundle) { advance(31 * 24 * time.Hour) },
		} {
			m, b := &memory{held: map[string]disk.Intermediate{"m": held[0]}}, bundleOf(w.signs)
			change(m, b)
			i, err := New(Config{Zone: "east", Store: m, Request: func(context.Context, string, []byte) error { return nil }})
			if err != nil {
				t.Fatal(name, err)
			}
			if err := i.SetMesh("m", meshSpec(0), b); err != nil {
				t.Fatal(name, err)
			}
			if s := i.Statuses()[0]; s.Ready {
				t.Errorf("%s: %+v", name, s)
			}
		}
	})
}

func TestRefusesMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.mesh(0)
		synctest.Wait()
		w.leaf("web")
		w.Take()
		for name, b := range map[string]*federationv1.TrustBundle{
			"no root":   {Domain: domain},
			"nonsense":  {Domain: domain, Roots: []string{"x"}},
			"no domain": {Roots: bundleOf(w.signs).Roots},
		} {
			if err := w.SetMesh("m", meshSpec(0), b); err == nil || !strings.Contains(err.Error(), "mesh m") {
				t.Errorf("%s: %v", name, err)
			}
			w.leaf("web")
		}
		if err := w.SetMesh("m", meshSpec(0), nil); err != nil {
			t.Error(err)
		}
		w.leaf("web")
		// Mutual TLS is turned off and on again: the intermediate is still there.
		if err := w.SetMesh("m", &meshv1.Mesh{}, bundleOf(w.signs)); err != nil {
			t.Fatal(err)
		}
		if len(w.Statuses()) != 0 {
			t.Error("not forgotten")
		}
		w.set(func(w *world) { w.away = true })
		w.mesh(0)
		w.leaf("web")
		if _, ready := w.Secrets("m", []string{"no/path"}); ready {
			t.Error("a service that no SPIFFE ID can name")
		}
	})
	if _, err := New(Config{Zone: "east"}); err == nil {
		t.Error("no store")
	}
	if _, err := New(Config{Zone: "east", Store: &memory{err: errors.New("broken")}, Request: (&world{}).request}); err == nil {
		t.Error("a store that can't be read")
	}
}

// broken is randomness that fails while it is told to.
type broken struct{ fails atomic.Bool }

func (b *broken) Read(p []byte) (int, error) {
	if b.fails.Load() {
		return 0, errors.New("no randomness")
	}
	return rand.Read(p)
}

// A renewal that fails for a moment is tried again, and told once.
func TestFailedRenewalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		random := &broken{}
		w.random = random
		w.run()
		w.mesh(time.Hour)
		w.expect("m/")
		w.leaf("web")
		random.fails.Store(true)
		advance(40 * time.Minute)
		w.expect("")
		if n := strings.Count(w.log.String(), "no randomness"); n != 1 {
			t.Errorf("%d lines about the same", n)
		}
		random.fails.Store(false)
		advance(time.Minute)
		w.expect("m/web")
		if left := time.Until(w.leaf("web").NotAfter); left < 59*time.Minute {
			t.Error(left)
		}
	})
}

// A machine starts with a slow clock, so that what is on its disk begins in the future; global is away. The clock gets right.
func TestSlowClockAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.away = true
		td := pki.TrustDomain{Zone: "east", Mesh: "m", Domain: domain}
		key, err := pki.NewKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := pki.NewRequest(rand.Reader, key, td)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := pki.SignIntermediate(rand.Reader, time.Now().Add(time.Hour), w.signs, td, csr, pki.Validity{})
		if err != nil {
			t.Fatal(err)
		}
		held := disk.Intermediate{Mesh: "m", Chain: [][]byte{chain[0].Raw}}
		if held.Key, err = key.PEM(); err != nil {
			t.Fatal(err)
		}
		w.store.held["m"] = held
		w.start(0)
		w.run()
		w.mesh(0)
		w.expect("m/")
		if _, ready := w.Secrets("m", []string{"web"}); ready {
			t.Fatal("signs before its time")
		}
		advance(58 * time.Minute)
		w.expect("")
		advance(maxRetry + time.Minute)
		w.expect("m/web")
		w.leaf("web")
		if n := strings.Count(w.log.String(), "of no use"); n != 1 {
			t.Errorf("%d lines about the same", n)
		}
	})
}

// The disk fails: the zone serves all the same, and says so.
func TestDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.store.err = errors.New("disk is full")
		w.run()
		w.mesh(0)
		synctest.Wait()
		w.leaf("web")
		if !strings.Contains(w.log.String(), "disk is full") {
			t.Error(w.log.String())
		}
	})
}

// Batches: many services are renewed without holding the lock for all of them, and each is told once.
func TestManyServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.mesh(time.Hour)
		synctest.Wait()
		var services []string
		for n := range 5 * batch {
			services = append(services, fmt.Sprintf("s-%03d", n))
		}
		if _, ready := w.Secrets("m", services); !ready {
			t.Fatal("not ready")
		}
		w.expect("m/")
		told := map[string]int{}
		for range 31 {
			advance(time.Minute)
			for c := range strings.FieldsSeq(w.changes()) {
				told[c]++
			}
		}
		if len(told) != len(services) {
			t.Errorf("%d of %d were renewed", len(told), len(services))
		}
		// A root that is thrown out renews all at once.
		w.set(func(w *world) { w.signs = newRoot(t); w.roots = []pki.Authority{w.signs} })
		w.mesh(time.Hour)
		if got := strings.Fields(w.changes()); len(got) != len(services)+1 {
			t.Errorf("%d changes", len(got))
		}
		for _, s := range services {
			w.leaf(s)
		}
	})
}

// No key is in a log, in what is printed of the package's values, nor in an error.
func TestKeysStaySecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		w.run()
		w.mesh(0)
		synctest.Wait()
		secrets, _ := w.Secrets("m", []string{"web"})
		w.set(func(w *world) { w.refuse = "no" })
		advance(20 * 24 * time.Hour)
		printed := fmt.Sprintf("%v %+v %s %v", secrets, secrets, w.log.String(), w.Statuses())
		for _, s := range secrets {
			if s.Certificate == nil {
				continue
			}
			for line := range strings.Lines(string(s.Certificate.Key)) {
				if strings.Contains(printed, strings.TrimSpace(line)) {
					t.Fatal("a key is printed")
				}
			}
		}
		if strings.Contains(printed, "PRIVATE KEY") {
			t.Fatal("a key is printed")
		}
	})
}

func TestConcurrent(t *testing.T) {
	w := newWorld(t, 0)
	w.run()
	w.mesh(0)
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for k := range 50 {
				w.Secrets("m", []string{fmt.Sprint("s", n, k%5), "shared"})
				switch n {
				case 0:
					w.mesh(time.Duration(k%3) * time.Hour)
					w.Connected()
				case 1:
					w.Take()
					w.Statuses()
				case 2:
					w.Retain("m", []string{"shared"})
				}
			}
		})
	}
	wg.Wait()
	for {
		if _, ready := w.Secrets("m", []string{"shared"}); ready {
			break
		}
		<-w.Changed()
	}
	w.leaf("shared")
}

func TestServices(t *testing.T) {
	proxy := ir.Proxy{Secrets: []string{"bundle", "secret:edge", "svid:api", "svid:web"}}
	if got := Services(proxy.Secrets); !slices.Equal(got, []string{"api", "web"}) {
		t.Error(got)
	}
}

func BenchmarkIssue(b *testing.B) {
	b.ReportAllocs()
	w := newWorld(b, 0)
	w.run()
	w.mesh(0)
	for ready := false; !ready; _, ready = w.Secrets("m", []string{"first"}) {
		<-w.Changed()
	}
	for n := 0; b.Loop(); n++ {
		w.Secrets("m", []string{fmt.Sprint("s", n)})
	}
}
