package zones

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/e2e/goroutines"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func TestMain(m *testing.M) { goroutines.Verify(m) }

// federation is a registry on an embedded store, served over gRPC in memory.
type federation struct {
	*testing.T
	ctx   context.Context
	store *store.Store
	views *view.Views
	*Registry
	lis *bufconn.Listener
	// skipped is how far the registry's clock went, in nanoseconds, as it stands still by itself.
	skipped *atomic.Int64
}

// signer signs with the names it was given.
type signer struct{}

func (signer) SignIntermediate(_ context.Context, zone, mesh string, csr []byte) ([]byte, error) {
	if mesh == "none" {
		return nil, errors.New("mesh not found")
	}
	return fmt.Appendf(nil, "%s/%s/%s", zone, mesh, csr), nil
}

func start(t *testing.T) *federation { return startWith(t, nil) }

// startWith lets wrap stand between the views and the streams, unless it is nil.
func startWith(t *testing.T, wrap func(*view.Views) stream.Views) *federation {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	s, err := store.Open(ctx, store.Config{DataDir: filepath.Join(t.TempDir(), "data"), CheckInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f := &federation{T: t, ctx: ctx, store: s, views: view.New(s, nil), lis: bufconn.Listen(1 << 16), skipped: new(atomic.Int64)}
	f.Registry, err = New(Config{
		Store: s, Views: f.views, Signer: signer{}, Machine: kds.GlobalConfig{Replica: "g", Interval: time.Minute},
		Now: func() time.Time { return began.Add(time.Duration(f.skipped.Load())) },
		Verify: func(token string) (string, error) {
			name, ok := strings.CutPrefix(token, "zone:")
			if !ok {
				return "", errors.New("token is expired")
			}
			return name, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		f.server, err = stream.NewServer(stream.ServerConfig{Machine: f.cfg.Machine, Admission: f.Registry, Views: wrap(f.views), Zones: f.Registry})
		if err != nil {
			t.Fatal(err)
		}
	}
	gs := grpc.NewServer(stream.ServerOptions()...)
	kdsv1.RegisterKDSServer(gs, f.Server())
	var wg sync.WaitGroup
	run := func(fn func() error) {
		wg.Go(func() {
			if err := fn(); err != nil {
				t.Error(err)
			}
		})
	}
	run(func() error { return s.Run(ctx) })
	run(func() error { return f.Registry.Run(ctx) })
	run(func() error { return gs.Serve(f.lis) })
	t.Cleanup(func() {
		gs.Stop()
		f.Server().Wait()
		cancel()
		wg.Wait()
		s.Close()
	})
	return f
}

// peer is a zone with a client, and an Applier that keeps what it got in memory.
type peer struct {
	*stream.Client
	events chan kds.ZoneEvent
	mu     sync.Mutex
	held   *kds.Set
	moved  chan struct{} // closed and replaced by Apply
	bad    string        // name of a record that it can't use
	stop   func()
	// features are those that it asks for.
	features []string
}

func (p *peer) Apply(_ context.Context, a *kds.Apply) (rejected []*kdsv1.Rejection, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range a.Upserts {
		if err := p.held.Put(r); err != nil {
			return nil, err
		}
		if r.GetKey().GetName() == p.bad {
			rejected = append(rejected, &kdsv1.Rejection{Key: r.GetKey(), Hash: r.GetHash(), Reason: "newer than this zone"})
		}
	}
	for _, k := range a.Deletes {
		p.held.Delete(k)
	}
	close(p.moved)
	p.moved = make(chan struct{})
	return rejected, nil
}

func (f *federation) zone(name, replica, identity, token string, change ...func(*peer)) *peer {
	f.Helper()
	p := &peer{events: make(chan kds.ZoneEvent, 999), held: kds.NewSet(), moved: make(chan struct{})}
	for _, fn := range change {
		fn(p)
	}
	c, err := stream.NewClient(stream.ClientConfig{
		Targets: []string{"passthrough:///global"}, Token: func() (string, error) { return token, nil }, Applier: p,
		Event:      func(e kds.ZoneEvent) { p.events <- e },
		MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return f.lis.DialContext(ctx) })},
	}, kds.NewZone(kds.ZoneConfig{Zone: name, Replica: replica, Identity: identity, Version: "v1", Features: p.features}, kds.NewSet(), kds.Position{}))
	if err != nil {
		f.Fatal(err)
	}
	p.Client = c
	ctx, cancel := context.WithCancel(f.ctx)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	f.Cleanup(p.stop)
	return p
}

func (f *federation) east() *peer { return f.connect("east") }

func (f *federation) connect(name string, change ...func(*peer)) *peer {
	f.Helper()
	p := f.zone(name, "0", "id-"+name, "zone:"+name, change...)
	f.event(p, func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	return p
}

func (f *federation) event(p *peer, want func(kds.ZoneEvent) bool) kds.ZoneEvent {
	f.Helper()
	for {
		select {
		case e := <-p.events:
			if want(e) {
				return e
			}
		case <-f.ctx.Done():
			f.Fatal("the event never came")
		}
	}
}

func (f *federation) refusal(p *peer) *kdsv1.Refusal {
	f.Helper()
	return f.event(p, func(e kds.ZoneEvent) bool { return e.Refusal != nil }).Refusal
}

// until waits for a state of the registry.
func (f *federation) until(what string, ok func() bool) {
	f.Helper()
	for {
		changed := f.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-f.ctx.Done():
			f.Fatalf("%s never came; statuses %+v", what, f.Statuses())
		}
	}
}

// holds waits until a zone has a record, or has it no more.
func (f *federation) holds(p *peer, key resource.Key, want bool) *kdsv1.Record {
	f.Helper()
	for {
		p.mu.Lock()
		r, ok := p.held.Get(key)
		moved := p.moved
		p.mu.Unlock()
		if ok == want {
			return r
		}
		select {
		case <-moved:
		case <-f.ctx.Done():
			f.Fatalf("%s: held=%v never came", key, want)
		}
	}
}

func (f *federation) commit(ops ...store.Op) *store.ShownChange {
	f.Helper()
	done, err := f.store.Commit(f.ctx, store.Change{Author: "ann", Message: "m", Ops: ops})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := f.store.Wait(f.ctx, done.Revision); err != nil {
		f.Fatal(err)
	}
	c, err := f.store.ShowChange(f.ctx, done.Seq)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

func put(k resource.Key, spec proto.Message) store.Op {
	return store.Op{Key: k, Put: &resource.Resource{Key: k, Spec: spec}}
}

func enable(name string, enabled bool) store.Op {
	return put(zoneKey(name), &meshv1.Zone{Enabled: proto.Bool(enabled)})
}

func mesh(name string) store.Op { return put(resource.Key{Kind: "Mesh", Name: name}, &meshv1.Mesh{}) }

func serviceKey(name string) resource.Key {
	return resource.Key{Kind: "ServiceAvailability", Mesh: "m", Name: name}
}

func record(t *testing.T, key resource.Key, spec proto.Message) *kdsv1.Record {
	t.Helper()
	b, err := resource.Marshal(&resource.Resource{Key: key, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return kds.NewRecord(key, b)
}

func service(t *testing.T, zone, service string, count uint32) *kdsv1.Record {
	return record(t, serviceKey(zone+"."+service), &federationv1.ServiceAvailability{Zone: zone, Service: service,
		TagSets: []*federationv1.TagSet{{Tags: map[string]string{"kuma.io/service": service, "kuma.io/zone": zone}, Count: count}}})
}

func ingress(t *testing.T, zone, name string) *kdsv1.Record {
	return record(t, resource.Key{Kind: "ZoneIngress", Name: name},
		&meshv1.ZoneIngress{Zone: zone, Networking: &meshv1.ZoneIngress_Networking{Address: "10.0.0.1", Port: 10001, AdvertisedPort: 30001}})
}

func set(t *testing.T, records ...*kdsv1.Record) *kds.Set {
	t.Helper()
	s := kds.NewSet()
	for _, r := range records {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (f *federation) offer(p *peer, records ...*kdsv1.Record) *kdsv1.ReportAck {
	f.Helper()
	f.do(p, func(z *kds.Zone) { z.Offer(set(f.T, records...)) })
	return f.event(p, func(e kds.ZoneEvent) bool { return e.ReportAck != nil }).ReportAck
}

func (f *federation) do(p *peer, fn func(*kds.Zone)) {
	f.Helper()
	if err := p.Do(f.ctx, fn); err != nil {
		f.Fatal(err)
	}
}

func (f *federation) must(zone string) Status {
	f.Helper()
	s, ok := f.Status(zone)
	if !ok {
		f.Fatalf("no zone %s", zone)
	}
	return s
}

func TestFirstConnectMakesTheZone(t *testing.T) {
	f := start(t)
	f.east()
	e, ok := f.store.Snapshot().Get(zoneKey("east"))
	if !ok || !view.Enabled(f.store.Snapshot(), "east") {
		t.Fatal("the zone was welcomed and has no Zone")
	}
	history, err := f.store.History(f.ctx, 10, 0)
	if err != nil || len(history) != 1 || history[0].Author != "zone east" || history[0].Revision != e.Revision {
		t.Fatalf("history %+v, %v", history, err)
	}
	f.until("the first position", func() bool { return f.must("east").InSync })
	s := f.must("east")
	if !s.Connected || !s.Enabled || s.Version != "v1" || s.Revision != uint64(e.Revision) || s.Wanted != s.Revision || len(s.Replicas) != 1 ||
		s.Since.IsZero() || s.LastSeen.Before(s.Since.Add(-time.Second)) {
		t.Fatalf("status %+v", s)
	}
	if _, ok := f.Status("west"); ok {
		t.Fatal("a zone that never came has a status")
	}
}

func TestTokensAreChecked(t *testing.T) {
	f := start(t)
	if r := f.refusal(f.zone("east", "0", "a", "bad")); r.GetCode() != kdsv1.Refusal_CODE_UNAUTHENTICATED || !strings.Contains(r.GetReason(), "expired") {
		t.Fatalf("refusal %v", r)
	}
	if r := f.refusal(f.zone("east", "0", "a", "zone:west")); r.GetCode() != kdsv1.Refusal_CODE_WRONG_ZONE {
		t.Fatalf("refusal %v", r)
	}
	if r := f.refusal(f.zone("East.1", "0", "a", "zone:East.1")); r.GetCode() != kdsv1.Refusal_CODE_WRONG_ZONE || !strings.Contains(r.GetReason(), "East.1") {
		t.Fatalf("refusal %v", r)
	}
	if n := len(f.Statuses()); n != 0 {
		t.Fatalf("%d Zones were made for refused streams", n)
	}
}

func TestDisabledIsRefusedAndCutOff(t *testing.T) {
	f := start(t)
	f.commit(enable("west", false))
	if r := f.refusal(f.zone("west", "0", "w", "zone:west")); r.GetCode() != kdsv1.Refusal_CODE_DISABLED || !strings.Contains(r.GetReason(), "enabled: true") {
		t.Fatalf("refusal %v", r)
	}
	east, north := f.east(), f.connect("north")
	f.offer(east, service(t, "east", "a", 1))
	f.holds(north, serviceKey("east.a"), true)
	f.commit(enable("east", false))
	if r := f.refusal(east); r.GetCode() != kdsv1.Refusal_CODE_DISABLED || r.GetRetryAfterMillis() == 0 {
		t.Fatalf("a connected zone was refused with %v", r)
	}
	f.holds(north, serviceKey("east.a"), false)
	f.until("the end of the stream", func() bool { return !f.must("east").Connected })
	if s := f.must("east"); s.Enabled || len(s.Services) != 1 {
		t.Fatalf("what a disabled zone offers is forgotten: %+v", s)
	}
}

func TestDuplicateIdentityIsRefused(t *testing.T) {
	f := start(t)
	first := f.east()
	other := f.zone("east", "1", "other", "zone:east")
	r := f.refusal(other)
	if r.GetCode() != kdsv1.Refusal_CODE_DUPLICATE_ZONE || !strings.Contains(r.GetReason(), `replica "0"`) {
		t.Fatalf("refusal %v", r)
	}
	other.stop() // or it comes back, as soon as nobody is in its way
	// A second replica has the identity of the first.
	second := f.zone("east", "1", "id-east", "zone:east")
	f.event(second, func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	if s := f.must("east"); len(s.Replicas) != 2 {
		t.Fatalf("replicas %+v", s.Replicas)
	}
	// Nothing is bound longer than the streams live.
	first.stop()
	second.stop()
	f.until("both to go", func() bool { return !f.must("east").Connected })
	f.event(f.zone("east", "0", "other", "zone:east"), func(e kds.ZoneEvent) bool { return e.Welcome != nil })
}

// A stream whose admission waited for the store may be given up meanwhile by its zone, which has begun another.
func TestLateAdmissionDisplacesNoNewerStream(t *testing.T) {
	f := start(t)
	open := func(number uint64) (stream.Session, kds.Verdict) {
		return f.Open(f.ctx, "east", &kdsv1.Hello{Zone: "east", Replica: "0", Identity: "id-east", Stream: number})
	}
	newer, v := open(2)
	if v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		t.Fatalf("%+v", v)
	}
	if late, v := open(1); late != nil || v.Code != kdsv1.Refusal_CODE_UNAVAILABLE {
		t.Errorf("%+v", v)
	}
	if s := f.must("east"); !s.Connected {
		t.Errorf("%+v", s)
	}
	// A clock may have been set back.
	newer.Close()
	again, v := open(1)
	if v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
		t.Fatalf("%+v", v)
	}
	if s := f.must("east"); !s.Connected {
		t.Errorf("%+v", s)
	}
	again.Close()
}

func TestDeletedZoneIsCleared(t *testing.T) {
	f := start(t)
	east := f.east()
	f.offer(east, service(t, "east", "a", 1))
	east.stop()
	f.until("east to go", func() bool { return !f.must("east").Connected })
	f.commit(store.Op{Key: zoneKey("east"), Delete: true})
	f.until("the offers to go", func() bool {
		_, ok := f.store.Snapshot().Get(serviceKey("east.a"))
		return !ok
	})
	if len(f.Statuses()) != 0 {
		t.Fatalf("still listed: %+v", f.Statuses())
	}
	f.offer(f.east(), service(t, "east", "a", 1))
	if _, ok := f.store.Snapshot().Get(serviceKey("east.a")); !ok {
		t.Fatal("the zone is back without its offers")
	}
}

func TestDeletedWhileConnected(t *testing.T) {
	f := start(t)
	east, west := f.east(), f.connect("west")
	f.offer(east, service(t, "east", "a", 1))
	f.holds(west, serviceKey("east.a"), true)
	f.commit(store.Op{Key: zoneKey("east"), Delete: true})
	if r := f.refusal(east); r.GetCode() != kdsv1.Refusal_CODE_UNAVAILABLE || !strings.Contains(r.GetReason(), "disable it instead") {
		t.Fatalf("refusal %v", r)
	}
	f.holds(west, serviceKey("east.a"), false)
}

// Replicas of global that make the same Zone at once agree on one.
func TestZoneIsMadeOnce(t *testing.T) {
	f := start(t)
	var wg sync.WaitGroup
	for range 4 {
		other, err := New(Config{Store: f.store, Views: view.New(f.store, nil), Verify: f.cfg.Verify})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			s, v := other.Open(f.ctx, "east", &kdsv1.Hello{Zone: "east", Replica: "0"})
			if s == nil || v.Code != kdsv1.Refusal_CODE_UNSPECIFIED {
				t.Errorf("refused: %+v", v)
			}
		})
	}
	wg.Wait()
	if h, err := f.store.History(f.ctx, 10, 0); err != nil || len(h) != 1 {
		t.Fatalf("history %+v, %v", h, err)
	}
}

func TestCertificate(t *testing.T) {
	f := start(t)
	east := f.east()
	for mesh, want := range map[string]string{"m": "east/m/csr", "none": ""} {
		f.do(east, func(z *kds.Zone) { z.RequestCertificate(mesh, []byte("csr")) })
		c := f.event(east, func(e kds.ZoneEvent) bool { return e.Certificate != nil }).Certificate
		if c.GetMesh() != mesh || c.GetChain() != want || (c.GetError() == "") != (want != "") {
			t.Fatalf("certificate %v", c)
		}
	}
}

func TestAsk(t *testing.T) {
	f := start(t)
	east := f.east()
	f.do(east, func(*kds.Zone) {})
	got := make(chan error, 1)
	var body []byte
	go func() {
		var err error
		body, err = f.Ask(f.ctx, "east", &kdsv1.Query{})
		got <- err
	}()
	q := f.event(east, func(e kds.ZoneEvent) bool { return e.Query != nil }).Query
	f.do(east, func(z *kds.Zone) { z.Answer(&kdsv1.Answer{Id: q.GetId(), Body: []byte("{}"), Last: true}) })
	if err := <-got; err != nil || string(body) != "{}" {
		t.Fatalf("%q, %v", body, err)
	}
	if _, err := f.Ask(f.ctx, "west", &kdsv1.Query{}); !errors.Is(err, stream.ErrNotConnected) {
		t.Fatalf("a zone that is not there gave %v", err)
	}
}

// A record that a delta forgot is found by the digests and sent.
func TestLostEventIsRepaired(t *testing.T) {
	f := startWith(t, func(v *view.Views) stream.Views { return &losing{v} })
	f.commit(mesh("first")) // as a zone that holds nothing takes all
	east := f.east()
	f.until("the first position", func() bool { return f.must("east").InSync })
	f.commit(mesh("lost"), mesh("kept"))
	f.holds(east, resource.Key{Kind: "Mesh", Name: "kept"}, true)
	f.holds(east, resource.Key{Kind: "Mesh", Name: "lost"}, true)
	f.until("the repair", func() bool { s := f.must("east"); return s.Repairs > 0 && s.InSync })
}

// losing is views whose log never mentions the Mesh lost.
type losing struct{ *view.Views }

type losingView struct{ kds.View }

func (l *losing) View(zone string) (kds.View, <-chan struct{}) {
	v, stale := l.Views.View(zone)
	return losingView{v}, stale
}

func (l losingView) Since(epoch string, revision uint64) (keys []resource.Key, ok bool) {
	all, ok := l.View.Since(epoch, revision)
	for _, k := range all {
		if k.Name != "lost" {
			keys = append(keys, k)
		}
	}
	return keys, ok
}

func lives(revision uint64, at time.Time) *kdsv1.Status_Times {
	return kds.TimesOf([]kds.Live{{Revision: revision, Since: at}})
}
