package view

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/e2e/goroutines"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func TestMain(m *testing.M) { goroutines.Verify(m) }

type fixture struct {
	*testing.T
	ctx   context.Context
	store *store.Store
	views *Views
}

func start(t *testing.T) *fixture {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	dir := t.TempDir()
	seal, err := store.OpenKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	// It compares with head so seldom that no test sees it: on a machine that stood still, what is on its way looks like a lost event.
	s, err := store.Open(ctx, store.Config{DataDir: filepath.Join(dir, "data"), Seal: seal, CheckInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return &fixture{t, ctx, s, New(s, nil)}
}

func key(kind, mesh, name string) resource.Key {
	return resource.Key{Kind: kind, Mesh: mesh, Name: name}
}

func put(k resource.Key, spec proto.Message) store.Op {
	return store.Op{Key: k, Put: &resource.Resource{Key: k, Spec: spec}}
}

func remove(k resource.Key) store.Op { return store.Op{Key: k, Delete: true} }

func secret(mesh, name string) store.Op {
	return put(key("Secret", mesh, name), &meshv1.Secret{Data: []byte(name)})
}

func gateway(mesh, name string, secrets ...string) store.Op {
	tls := &meshv1.MeshGateway_Tls{Mode: meshv1.MeshGateway_MODE_TERMINATE}
	for _, s := range secrets {
		tls.Certificates = append(tls.Certificates, &meshv1.MeshGateway_Certificate{Secret: s})
	}
	return put(key("MeshGateway", mesh, name), &meshv1.MeshGateway{Conf: &meshv1.MeshGateway_Conf{
		Listeners: []*meshv1.MeshGateway_Listener{{Port: 443, Protocol: meshv1.MeshGateway_PROTOCOL_HTTPS, Tls: tls}}}})
}

func mesh(name, cert, private string) store.Op {
	m := &meshv1.Mesh{}
	if cert != "" {
		m.Mtls = &meshv1.Mesh_Mtls{Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "ca", Type: "provided",
			Conf: &meshv1.Mesh_AuthorityConf{Cert: &meshv1.Mesh_SecretReference{Secret: cert}, Key: &meshv1.Mesh_SecretReference{Secret: private}}}}}
	}
	return put(key("Mesh", "", name), m)
}

func zone(name string, enabled bool) store.Op {
	return put(key("Zone", "", name), &meshv1.Zone{Enabled: proto.Bool(enabled)})
}

func availability(mesh, zone, service string, count uint32) store.Op {
	return put(key("ServiceAvailability", mesh, zone+"."+service), &federationv1.ServiceAvailability{Zone: zone, Service: service,
		TagSets: []*federationv1.TagSet{{Tags: map[string]string{"kuma.io/service": service}, Count: count}}})
}

// commit gives the view of the state that a change made.
func (f *fixture) commit(ops ...store.Op) *View {
	f.Helper()
	before, stale := f.views.View("east")
	done, err := f.store.Commit(f.ctx, store.Change{Author: "ann", Message: "m", Ops: ops})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := f.store.Wait(f.ctx, done.Revision); err != nil {
		f.Fatal(err)
	}
	<-stale
	w, _ := f.views.View("east")
	if w.Position().Revision != uint64(done.Revision) || before.Position().Revision >= uint64(done.Revision) {
		f.Fatalf("view is at %v after revision %d", w.Position(), done.Revision)
	}
	return w.(*View)
}

func names(w kds.View) []string {
	out := []string{}
	w.Each("", func(k resource.Key, _ *kdsv1.Record) bool { out = append(out, k.String()); return true })
	return out
}

func since(t *testing.T, w *View, from *View) []string {
	t.Helper()
	keys, ok := w.Since(from.at.Epoch, from.at.Revision)
	if !ok {
		t.Fatal("the log doesn't reach back to the view before")
	}
	out := []string{}
	for _, k := range keys {
		out = append(out, k.String())
	}
	return out
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %q, want %q", what, got, want)
	}
}

func TestOnlyCertificatesOfListenersGoToZones(t *testing.T) {
	f := start(t)
	w := f.commit(mesh("m", "root-cert", "root-key"), secret("m", "root-cert"), secret("m", "root-key"), secret("m", "tls"),
		secret("m", "other"), secret("n", "tls"), put(key("SigningKey", "", "k"), &federationv1.SigningKey{}))
	same(t, "without a gateway", names(w), "Mesh m")
	next := f.commit(gateway("m", "g", "tls", "root-key"))
	same(t, "named by a gateway", names(next), "Mesh m", "MeshGateway m/g", "Secret m/tls")
	same(t, "changed", since(t, next, w), "MeshGateway m/g", "Secret m/tls")
	w = f.commit(gateway("m", "g2", "tls"))
	next = f.commit(remove(key("MeshGateway", "m", "g")))
	same(t, "still named by another", names(next), "Mesh m", "MeshGateway m/g2", "Secret m/tls")
	same(t, "changed", since(t, next, w), "MeshGateway m/g")
	w, next = next, f.commit(mesh("m", "tls", "root-key"))
	same(t, "became a root", names(next), "Mesh m", "MeshGateway m/g2")
	same(t, "changed", since(t, next, w), "Mesh m", "Secret m/tls")
	next = f.commit(mesh("m", "", ""), gateway("m", "g2", "tls", "root-key"))
	same(t, "a root no more", names(next), "Mesh m", "MeshGateway m/g2", "Secret m/root-key", "Secret m/tls")
	w, next = next, f.commit(secret("m", "other"))
	same(t, "nobody named it", since(t, next, w))
	if s := f.views.Stats(); s.Rebuilds != 1 || s.Mismatches != 0 {
		t.Fatalf("%+v, though every change could be followed", s)
	}
}

func TestOffersOfDisabledZonesAreLeftOut(t *testing.T) {
	f := start(t)
	ingress := key("ZoneIngress", "", "west.in")
	w := f.commit(zone("east", true), zone("west", true), availability("m", "east", "a", 1), availability("m", "west", "a", 2),
		availability("m", "gone", "a", 3), put(ingress, &meshv1.ZoneIngress{Zone: "west"}))
	all := []string{"ServiceAvailability m/east.a", "ServiceAvailability m/west.a", "ZoneIngress west.in"}
	same(t, "enabled", names(w), all...)
	next := f.commit(zone("west", false))
	same(t, "disabled", names(next), all[0])
	same(t, "changed", since(t, next, w), all[1:]...)
	keys, _ := f.views.Offers("west")
	if len(keys) != 2 || keys[1] != ingress {
		t.Fatalf("offers of a disabled zone: %v", keys)
	}
	next = f.commit(availability("m", "west", "b", 1))
	same(t, "an offer while disabled", names(next), all[0])
	next = f.commit(zone("west", true), remove(ingress))
	same(t, "enabled again", names(next), all[0], all[1], "ServiceAvailability m/west.b")
	next = f.commit(remove(key("Zone", "", "west")))
	same(t, "a zone that was deleted", names(next), all[0])
}

// A record that the view lost without a change of the store is found by the digest at the next one, counted, and back.
func TestLossInTheViewIsFoundByDigest(t *testing.T) {
	f := start(t)
	w := f.commit(mesh("m", "", ""), mesh("n", "", ""))
	f.views.now.set.Delete(key("Mesh", "", "m"))
	next := f.commit(mesh("o", "", ""))
	same(t, "after the loss", names(next), "Mesh m", "Mesh n", "Mesh o")
	same(t, "changed", since(t, next, w), "Mesh o")
	if s := f.views.Stats(); s.Rebuilds != 2 || s.Mismatches != 1 {
		t.Fatalf("%+v", s)
	}
}

// A view that follows changes must be what a view made from scratch is.
func TestFollowingEqualsProjecting(t *testing.T) {
	f := start(t)
	for i := range 60 {
		n := func(m int) string { return fmt.Sprint("x", (i*7+i/3)%m) }
		var op store.Op
		switch i % 7 {
		case 0:
			op = gateway("m", n(3), n(5), n(4))
		case 1:
			op = mesh("m", n(4), n(5))
		case 2:
			op = secret("m", n(5))
		case 3:
			op = zone(n(3), i%2 == 0)
		case 4:
			op = availability("m", n(3), n(2), uint32(i))
		case 5:
			op = remove(key("MeshGateway", "m", n(3)))
		case 6:
			op = remove(key("Zone", "", n(3)))
		}
		w := f.commit(op)
		anew := New(f.store, nil)
		fresh := anew.Stable()
		if fresh.at != w.at || !maps.Equal(fresh.kinds, w.kinds) {
			t.Fatalf("after change %d (%s) the view is %v, made anew %v:\n%q\n%q", i, op.Key, w.at, fresh.at, names(w), names(fresh))
		}
		for j := range 5 {
			zone, secret := fmt.Sprint("x", j), key("Secret", "m", fmt.Sprint("x", j))
			if a, b := f.views.Offered(zone, ""), anew.Offered(zone, ""); a != b {
				t.Fatalf("after change %d (%s) the digest of what %s offers is %s, made anew %s", i, op.Key, zone, a, b)
			}
			if a, b := f.views.Naming(secret), anew.Naming(secret); !slices.Equal(a, b) {
				t.Fatalf("after change %d (%s) %s is named by %v, made anew %v", i, op.Key, secret, a, b)
			}
		}
	}
	if s := f.views.Stats(); s.Rebuilds != 1 {
		t.Fatalf("%+v, though every change could be followed", s)
	}
}

func TestOldViewsStayAsTheyWere(t *testing.T) {
	f := start(t)
	w := f.commit(mesh("a", "", ""))
	f.commit(mesh("b", "", ""), remove(key("Mesh", "", "a")))
	same(t, "the view before", names(w), "Mesh a")
	if _, ok := w.Since(w.at.Epoch, w.at.Revision+1); ok {
		t.Fatal("a view knows the log of its future")
	}
	if _, ok := f.views.Stable().Since("other", w.at.Revision); ok {
		t.Fatal("the log answers for another epoch")
	}
}

// The projection is compared with the store at every change, so that what it loses comes back.
func TestLostRecordIsRepaired(t *testing.T) {
	f := start(t)
	w := f.commit(mesh("a", "", ""), mesh("b", "", ""))
	f.views.now.set.Delete(key("Mesh", "", "a"))
	broken := f.commit(zone("z", true))
	same(t, "repaired", names(broken), "Mesh a", "Mesh b")
	same(t, "changed against the view before", since(t, broken, w))
	if s := f.views.Stats(); s.Rebuilds != 2 || s.Mismatches != 1 {
		t.Fatalf("stats %+v", s)
	}
	f.commit(mesh("c", "", ""))
	if s := f.views.Stats(); s.Rebuilds != 2 {
		t.Fatalf("rebuilt again without need: %+v", s)
	}
}

func TestLogIsBounded(t *testing.T) {
	var log []logEntry
	for i := range uint64(3 * maxLogEntries) {
		log = extend(log, logEntry{from: i, to: i + 1, keys: []resource.Key{{Name: "x"}}})
	}
	if len(log) != maxLogEntries || log[len(log)-1].to != 3*maxLogEntries {
		t.Fatalf("%d entries, the last to %d", len(log), log[len(log)-1].to)
	}
	log = extend(log, logEntry{from: 1, to: 2, keys: make([]resource.Key, maxLogKeys)})
	if len(log) != 1 {
		t.Fatalf("%d entries beside one that fills the log", len(log))
	}
}

// One change among many resources costs that change.
func BenchmarkChange(b *testing.B) {
	ctx := b.Context()
	dir := b.TempDir()
	s, err := store.Open(ctx, store.Config{DataDir: filepath.Join(dir, "data")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var ops []store.Op
	for i := range 20000 {
		ops = append(ops, availability("m", fmt.Sprint("z", i%100), fmt.Sprint("s", i/100), 1))
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(run) }()
	defer func() { cancel(); <-done }()
	commit := func(ops ...store.Op) {
		c, err := s.Commit(ctx, store.Change{Author: "a", Ops: ops, Internal: true})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Wait(ctx, c.Revision); err != nil {
			b.Fatal(err)
		}
	}
	commit(ops...)
	v := New(s, nil)
	v.Stable()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		commit(availability("m", "z1", "s1", uint32(i)))
		b.StartTimer()
		v.Stable()
	}
}
