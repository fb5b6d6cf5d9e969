package stream

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// view is one set at a revision whose log reaches back nowhere.
type view struct {
	set *kds.Set
	at  kds.Position
}

func newView(revision uint64, names ...string) view {
	s := kds.NewSet()
	for _, n := range names {
		_ = s.Put(kds.NewRecord(resource.Key{Kind: "Mesh", Name: n}, []byte(n)))
	}
	return view{s, s.Position("e", revision)}
}
func (v view) Position() kds.Position                      { return v.at }
func (v view) Since(string, uint64) ([]resource.Key, bool) { return nil, false }
func (v view) Get(k resource.Key) (*kdsv1.Record, bool)    { return v.set.Get(k) }
func (v view) Each(kind string, fn func(resource.Key, *kdsv1.Record) bool) {
	v.set.Each(kind, fn)
}

// global is a behavioural fake of all that Server consumes.
type global struct {
	mu        sync.Mutex
	view      view
	stale     chan struct{}
	hellos    chan *kdsv1.Hello
	confirmed chan kds.Position
}

func (g *global) View(string) (kds.View, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.view, g.stale
}

func (g *global) set(v view) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.stale)
	g.view, g.stale = v, make(chan struct{})
}

func (g *global) Authenticate(_ context.Context, token string) (string, kds.Verdict) {
	if token != "good" {
		return "", kds.Verdict{Code: kdsv1.Refusal_CODE_UNAUTHENTICATED, Reason: "token is revoked: make a new one"}
	}
	return "east", kds.Verdict{}
}

func (g *global) Admit(_ context.Context, _ string, h *kdsv1.Hello) kds.Verdict {
	g.hellos <- h
	return kds.Verdict{}
}

func (g *global) Report(context.Context, string, string, *kdsv1.Report) ([]*kdsv1.Rejection, error) {
	return nil, nil
}

func (g *global) Certificate(_ context.Context, _ string, r *kdsv1.CertificateRequest) *kdsv1.Certificate {
	return &kdsv1.Certificate{Mesh: r.GetMesh()}
}
func (g *global) Status(context.Context, string, string, *kdsv1.Status) {}
func (g *global) Confirmed(_ context.Context, _, _ string, p kds.Position) {
	g.confirmed <- p
}

type applier chan *kds.Apply

func (a applier) Apply(_ context.Context, d *kds.Apply) ([]*kdsv1.Rejection, error) {
	a <- d
	return nil, nil
}

type fixture struct {
	*global
	client  *Client
	dial    func(context.Context, string) (net.Conn, error)
	applies applier
	events  chan kds.ZoneEvent
	conns   chan net.Conn
	logs    *observer.ObservedLogs
}

func start(t *testing.T, token string) *fixture {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	f := &fixture{
		global: &global{view: newView(1, "a"), stale: make(chan struct{}), hellos: make(chan *kdsv1.Hello, 9),
			confirmed: make(chan kds.Position, 99)},
		applies: make(applier, 99), events: make(chan kds.ZoneEvent, 99), conns: make(chan net.Conn, 99), logs: logs,
	}
	s, err := NewServer(ServerConfig{Admission: f, Views: f, Zones: f})
	if err != nil {
		t.Fatal(err)
	}
	lis, gs := bufconn.Listen(1<<16), grpc.NewServer()
	f.dial = func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }
	kdsv1.RegisterKDSServer(gs, s)
	c, err := NewClient(ClientConfig{
		Target: "passthrough:///global", Token: func() (string, error) { return token, nil }, Applier: f.applies,
		Event: func(e kds.ZoneEvent) {
			select {
			case f.events <- e:
			default:
			}
		}, Log: zap.New(core),
		MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				conn, err := f.dial(ctx, addr)
				if err == nil {
					f.conns <- conn
				}
				return conn, err
			}),
		},
	}, kds.NewZone(kds.ZoneConfig{Zone: "east", Replica: "0"}, kds.NewSet(), kds.Position{}))
	if err != nil {
		t.Fatal(err)
	}
	f.client = c
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = gs.Serve(lis) })
	wg.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		gs.Stop()
		s.Wait()
		wg.Wait()
	})
	return f
}

func TestDeltaAndResume(t *testing.T) {
	f := start(t, "good")
	if h := <-f.hellos; h.GetPosition() != nil {
		t.Fatalf("an empty zone said it holds %v", h.GetPosition())
	}
	if a := <-f.applies; len(a.Upserts) != 1 || a.Position.Revision != 1 {
		t.Fatalf("first delta: %+v", a)
	}
	for p := range f.confirmed {
		if p.Revision == 1 {
			break
		}
	}
	f.set(newView(2, "a", "b"))
	if a := <-f.applies; a.Position.Revision != 2 {
		t.Fatalf("second delta: %+v", a)
	}
	for p := range f.confirmed {
		if p.Revision == 2 {
			break
		}
	}
	_ = (<-f.conns).Close()
	if h := <-f.hellos; h.GetPosition().GetRevision() != 2 {
		t.Fatalf("resumed at %v, not at revision 2", h.GetPosition())
	}
}

func TestRefusalIsLoggedOnce(t *testing.T) {
	f := start(t, "bad")
	for range 3 {
		if e := <-f.events; e.Refusal.GetReason() != "token is revoked: make a new one" {
			t.Fatalf("event %+v", e)
		}
	}
	if n := f.logs.FilterMessage("global refused the zone").Len(); n != 1 {
		t.Fatalf("logged %d times, not once", n)
	}
}

func TestCertificate(t *testing.T) {
	f := start(t, "good")
	for e := range f.events {
		if e.Welcome != nil {
			break
		}
	}
	var id uint64
	if err := f.client.Do(t.Context(), func(z *kds.Zone) { id = z.RequestCertificate("m", []byte("csr")) }); err != nil {
		t.Fatal(err)
	}
	for e := range f.events {
		if c := e.Certificate; c != nil {
			if c.GetId() != id || c.GetMesh() != "m" {
				t.Fatalf("certificate %v for request %d", c, id)
			}
			return
		}
	}
}
