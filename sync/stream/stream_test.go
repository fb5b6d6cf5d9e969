package stream

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/zoneforge/zoneforge/e2e/goroutines"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

func TestMain(m *testing.M) { goroutines.Verify(m) }

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
func (v view) Kinds() map[string]resource.Digest           { return v.set.Kinds() }
func (v view) Memo() *kds.Memo                             { return new(kds.Memo) }
func (v view) Since(string, uint64) ([]resource.Key, bool) { return nil, false }
func (v view) Get(k resource.Key) (*kdsv1.Record, bool)    { return v.set.Get(k) }
func (v view) Each(kind string, fn func(resource.Key, *kdsv1.Record) bool) {
	v.set.Each(kind, fn)
}

// global is a behavioural fake of all that Server consumes.
type global struct {
	mu        sync.Mutex
	view      kds.View
	stale     chan struct{}
	hellos    chan *kdsv1.Hello
	confirmed chan kds.Position
	rejected  chan []*kdsv1.Rejection
	reports   chan *kdsv1.Report
	statuses  chan *kdsv1.Status
	nacks     chan kds.Nacked
	repairs   chan []string
	closed    chan string
	verdict   kds.Verdict
}

func (g *global) View(string) (kds.View, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.view, g.stale
}

func (g *global) set(v view) { g.setAny(v) }

func (g *global) setAny(v kds.View) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.stale)
	g.view, g.stale = v, make(chan struct{})
}

func (g *global) Withdrawn(string) kds.Verdict { return kds.Verdict{} }

func (g *global) Authenticate(_ context.Context, token string) (string, kds.Verdict) {
	if token != "good" {
		return "", kds.Verdict{Code: kdsv1.Refusal_CODE_UNAUTHENTICATED, Reason: "token is revoked: make a new one"}
	}
	return "east", kds.Verdict{}
}

func (g *global) Siblings(string, string) *kdsv1.Siblings { return nil }

func (g *global) Open(_ context.Context, _ string, h *kdsv1.Hello) (Session, kds.Verdict) {
	g.mu.Lock()
	v := g.verdict
	g.mu.Unlock()
	select {
	case g.hellos <- h:
	default: // of those that nobody looks at
	}
	if v.Code != 0 {
		return nil, v
	}
	return &session{global: g, replica: h.GetReplica()}, v
}

// session passes what it is told to the channels of its global.
type session struct {
	*global
	replica string
}

func (g *session) Report(_ context.Context, r *kdsv1.Report) ([]*kdsv1.Rejection, error) {
	g.reports <- r
	return []*kdsv1.Rejection{{Key: kds.KeyProto(resource.Key{Kind: "ZoneIngress", Name: "west.x"}), Reason: "not yours"}}, nil
}

func (g *session) Certificate(_ context.Context, r *kdsv1.CertificateRequest) *kdsv1.Certificate {
	return &kdsv1.Certificate{Mesh: r.GetMesh()}
}
func (g *session) Status(s *kdsv1.Status) { g.statuses <- s }
func (g *session) Confirmed(p kds.Position, rejected []*kdsv1.Rejection) {
	g.rejected <- rejected
	g.confirmed <- p
}
func (g *session) Nacked(n kds.Nacked)     { g.nacks <- n }
func (g *session) Repaired(kinds []string) { g.repairs <- kinds }
func (g *session) Seen(time.Time)          {}
func (g *session) Close()                  { g.closed <- g.replica }

// applier takes all deltas but those with a record named huge, and can't use records named bad.
type applier chan *kds.Apply

var errDisk = errors.New("no space left on device")

func (a applier) Apply(_ context.Context, d *kds.Apply) (rejected []*kdsv1.Rejection, err error) {
	a <- d
	for _, r := range d.Upserts {
		switch r.GetKey().GetName() {
		case "bad":
			rejected = append(rejected, &kdsv1.Rejection{Key: r.GetKey(), Hash: r.GetHash(), Reason: "can't use it"})
		case "huge":
			return nil, errDisk
		}
	}
	return rejected, nil
}

type fixture struct {
	*global
	client  *Client
	server  *Server
	dial    func(context.Context, string) (net.Conn, error)
	applies applier
	events  chan event
	logs    *observer.ObservedLogs

	dials sync.Mutex
	// dialled counts connections, and open are those since the last cut.
	dialled int
	open    []net.Conn
}

// event is one of the zone's, with when it came.
type event struct {
	kds.ZoneEvent
	at time.Time
}

// cut closes all connections that there are; a stream that has begun has one of them.
func (f *fixture) cut() {
	f.dials.Lock()
	defer f.dials.Unlock()
	for _, c := range f.open {
		_ = c.Close()
	}
	f.open = nil
}

func start(t *testing.T, token string) *fixture { return startWith(t, token, "passthrough:///global") }

// startWith names targets, of which those that begin with none can't be reached.
func startWith(t *testing.T, token string, targets ...string) *fixture {
	t.Helper()
	return startMachine(t, token, kds.GlobalConfig{}, nil, targets...)
}

// startMachine gives global's machine its settings, and has the zone connect with more options.
func startMachine(t *testing.T, token string, machine kds.GlobalConfig, opts []grpc.DialOption, targets ...string) *fixture {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	f := &fixture{
		global: &global{view: newView(1, "a"), stale: make(chan struct{}), hellos: make(chan *kdsv1.Hello, 99),
			confirmed: make(chan kds.Position, 99), rejected: make(chan []*kdsv1.Rejection, 99), reports: make(chan *kdsv1.Report, 99),
			statuses: make(chan *kdsv1.Status, 99), nacks: make(chan kds.Nacked, 99), repairs: make(chan []string, 99),
			closed: make(chan string, 99)},
		applies: make(applier, 99), events: make(chan event, 99), logs: logs,
	}
	s, err := NewServer(ServerConfig{Machine: machine, Admission: f, Views: f, Zones: f})
	if err != nil {
		t.Fatal(err)
	}
	lis, gs := bufconn.Listen(1<<16), grpc.NewServer(ServerOptions()...)
	f.dial = func(ctx context.Context, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, "none") {
			return nil, errors.New("connection refused")
		}
		return lis.DialContext(ctx)
	}
	kdsv1.RegisterKDSServer(gs, s)
	c, err := NewClient(ClientConfig{
		Targets: targets, Token: func() (string, error) { return token, nil }, Applier: f.applies,
		Event: func(e kds.ZoneEvent) {
			select {
			case f.events <- event{e, time.Now()}:
			default: // of those that nobody looks at
			}
		}, Log: zap.New(core),
		MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
		DialOptions: append(opts,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				conn, err := f.dial(ctx, addr)
				if err == nil {
					f.dials.Lock()
					defer f.dials.Unlock()
					f.dialled++
					f.open = append(f.open, conn)
				}
				return conn, err
			}),
		),
	}, kds.NewZone(kds.ZoneConfig{Zone: "east", Replica: "0"}, kds.NewSet(), kds.Position{}))
	if err != nil {
		t.Fatal(err)
	}
	f.client, f.server = c, s
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

// Whichever target is the first, one that can be reached is found, and found again.
func TestTargetsAreTriedInTurn(t *testing.T) {
	for range 10 { // as the first is random
		f := startWith(t, "good", "passthrough:///none-1", "passthrough:///global", "passthrough:///none-2")
		for range 2 {
			<-f.hellos
			f.cut()
		}
		<-f.hellos
	}
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
	f.cut()
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

// A connection that went silent, as through a router that forgot it, would swallow the streams after the one that found out.
func TestEachStreamHasItsOwnConnection(t *testing.T) {
	f := start(t, "bad")
	for i := range 3 {
		<-f.events // a refusal ends each stream, and leaves its connection as it is
		f.dials.Lock()
		if f.dialled <= i {
			t.Errorf("%d streams had %d connections", i+1, f.dialled)
		}
		f.dials.Unlock()
	}
}
