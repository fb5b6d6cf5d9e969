package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/e2e/goroutines"
	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/zone/disk"
)

func TestMain(m *testing.M) { goroutines.Verify(m) }

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

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, store: &memory{held: map[string]disk.Intermediate{}}, log: &syncBuffer{}}
	w.signs = newRoot(t)
	w.roots = []pki.Authority{w.signs}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(w.log), zap.DebugLevel))
	i, err := New(Config{Zone: "east", Store: w.store, Request: w.request, Logger: logger})
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
		if c.Issuer { // it concerns no proxy
			continue
		}
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
