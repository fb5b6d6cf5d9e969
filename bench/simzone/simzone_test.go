package simzone

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/zoneforge/zoneforge/e2e/loopback"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// view is a Set at a revision; its log holds the last change alone.
type view struct {
	*kds.Set
	at   kds.Position
	last []resource.Key
}

func (v view) Position() kds.Position { return v.at }

func (v view) Memo() *kds.Memo { return new(kds.Memo) }

func (v view) Since(epoch string, revision uint64) ([]resource.Key, bool) {
	if epoch != v.at.Epoch || revision+1 < v.at.Revision {
		return nil, false
	}
	return v.last[:len(v.last)*int(v.at.Revision-revision)], true
}

// global is as much of one as a stream needs.
type global struct {
	mu      sync.Mutex
	view    view
	stale   chan struct{}
	reports map[string]int
	status  map[string]*kdsv1.Status
	opened  int
	seen    chan struct{}
}

func (g *global) View(string) (kds.View, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.view, g.stale
}

func (g *global) change(name, payload string) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := resource.Key{Kind: "Timeout", Mesh: "default", Name: name}
	set := kds.NewSet()
	if g.view.Set != nil {
		set = g.view.Clone()
	}
	if err := set.Put(kds.NewRecord(key, []byte(payload))); err != nil {
		panic(err)
	}
	g.view = view{set, set.Position("a", g.view.at.Revision+1), []resource.Key{key}}
	if g.stale != nil {
		close(g.stale)
	}
	g.stale = make(chan struct{})
	return g.view.at.Revision
}

func (g *global) Authenticate(_ context.Context, token string) (string, kds.Verdict) {
	return token, kds.Verdict{}
}

// Withdrawn is stream.Admission's: no token is ever taken back.
func (g *global) Withdrawn(string) kds.Verdict { return kds.Verdict{} }

func (g *global) Siblings(string, string) *kdsv1.Siblings { return nil }

func (g *global) Open(_ context.Context, zone string, _ *kdsv1.Hello) (stream.Session, kds.Verdict) {
	s := session{g, zone}
	s.note(func() { g.opened++ })
	return s, kds.Verdict{}
}

type session struct {
	g    *global
	zone string
}

func (s session) note(fn func()) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	fn()
	select {
	case s.g.seen <- struct{}{}:
	default:
	}
}

func (s session) Report(_ context.Context, r *kdsv1.Report) ([]*kdsv1.Rejection, error) {
	s.note(func() { s.g.reports[s.zone] += len(r.GetUpserts()) })
	return nil, nil
}

func (s session) Status(st *kdsv1.Status) {
	s.note(func() { s.g.status[s.zone] = st })
}

func (session) Certificate(context.Context, *kdsv1.CertificateRequest) *kdsv1.Certificate { return nil }
func (session) Confirmed(kds.Position, []*kdsv1.Rejection)                                {}
func (session) Nacked(kds.Nacked)                                                         {}
func (session) Repaired([]string)                                                         {}
func (session) Seen(time.Time)                                                            {}
func (session) Close()                                                                    {}

// proof is a certificate for loopback and its roots.
func proof(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// serve serves a global until the test or the returned function ends it.
func serve(t *testing.T, g *global, at string, cert tls.Certificate) (address string, stop func()) {
	s, err := stream.NewServer(stream.ServerConfig{Admission: g, Views: g, Zones: g, Machine: kds.GlobalConfig{Interval: 10 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(stream.ServerOptions(), grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}})))...)
	kdsv1.RegisterKDSServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	stop = sync.OnceFunc(func() {
		server.Stop()
		s.Wait()
		<-served
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func newGlobal() *global {
	g := &global{reports: map[string]int{}, status: map[string]*kdsv1.Status{}, seen: make(chan struct{}, 1)}
	g.change("one", "1")
	return g
}

// until waits for what global was told.
func (g *global) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for {
		g.mu.Lock()
		done := ok()
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-g.seen:
		case <-t.Context().Done():
			t.Fatal("never:", what)
		}
	}
}

// Zones take changes, acknowledge and report them, and after a restart of global come back by what they hold.
func TestFleet(t *testing.T) {
	const zones = 5
	g := newGlobal()
	cert, roots := proof(t)
	port, err := loopback.Port() // as it comes back to it
	if err != nil {
		t.Fatal(err)
	}
	address, stop := serve(t, g, fmt.Sprintf("127.0.0.1:%d", port), cert)
	f, err := New(Config{Target: address, Roots: roots, Proxies: 7, Services: 2, Mesh: "default"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Stop()
	for i := range zones {
		f.Add(fmt.Sprint("zone-", i), fmt.Sprint("zone-", i), nil)
	}
	if err := f.Online(t.Context(), zones, 1); err != nil {
		t.Fatal(err)
	}
	before := f.Traffic()
	if before.Snapshots != zones || before.Records != zones {
		t.Errorf("five zones have taken %d snapshots of %d records", before.Snapshots, before.Records)
	}
	w := f.Watch(0)
	defer w.Close()
	began := time.Now()
	revision := g.change("two", "some content")
	w.Expect(revision)
	at, err := w.Wait(t.Context())
	if err != nil || len(at) != zones {
		t.Fatalf("%d zones acknowledged: %v", len(at), err)
	}
	for _, when := range at {
		if when.Before(began) {
			t.Error("acknowledged before it was made")
		}
	}
	used := f.Traffic().Sub(before)
	if used.Deltas != zones || used.Records != zones || used.Bytes != zones*int64(len("Timeoutdefaulttwosome content")) {
		t.Errorf("the change cost %+v", used)
	}
	if used.Down-used.BeatsDown < used.Bytes || used.TLSDown <= used.Down || used.TLSUp <= used.Up {
		t.Errorf("bytes are not counted: %+v", used)
	}
	g.until(t, "statuses and reports", func() bool {
		for i := range zones {
			name := fmt.Sprint("zone-", i)
			if s := g.status[name]; s.GetRevision() != revision || s.GetProxies() != 7 || g.reports[name] != 3 {
				return false
			}
		}
		return true
	})

	before = f.Traffic()
	stop()
	serve(t, g, address, cert)
	g.until(t, "all zones back", func() bool { return g.opened >= 2*zones })
	if err := f.Online(t.Context(), zones, revision); err != nil {
		t.Fatal(err)
	}
	if used := f.Traffic().Sub(before); used.Deltas != 0 || used.Streams < zones || used.Down == 0 {
		t.Errorf("the restart cost %+v", used)
	}
}

// What a zone is sent must be what its digest says.
func TestStates(t *testing.T) {
	s := newStates()
	record := func(name, payload string) *kdsv1.Record {
		return kds.NewRecord(resource.Key{Kind: "Timeout", Mesh: "default", Name: name}, []byte(payload))
	}
	one, err := s.apply(s.empty, true, []*kdsv1.Record{record("a", "1"), record("b", "2")}, nil)
	if err != nil || one.digest.Count() != 2 {
		t.Fatal(one, err)
	}
	again, err := s.apply(s.empty, true, []*kdsv1.Record{record("a", "1"), record("b", "2")}, nil)
	if err != nil || again != one {
		t.Error("the same delta to the same state is not shared")
	}
	other, err := s.apply(one, false, []*kdsv1.Record{record("a", "3")}, []*kdsv1.Key{{Kind: "Timeout", Mesh: "default", Name: "b"}})
	if err != nil || other.digest.Count() != 1 || one.digest.Count() != 2 {
		t.Fatal(other, err)
	}
	d := other.digest
	if err := other.is(&kdsv1.Digest{Sum: d.Sum(), Count: d.Count()}); err != nil {
		t.Error(err)
	}
	if one.is(&kdsv1.Digest{Sum: d.Sum(), Count: d.Count()}) == nil {
		t.Error("another state's digest is taken")
	}
	forged := record("a", "4")
	forged.Payload = []byte("5")
	if _, err := s.apply(one, false, []*kdsv1.Record{forged}, nil); err == nil {
		t.Error("a record whose hash is another's is taken")
	}
}
