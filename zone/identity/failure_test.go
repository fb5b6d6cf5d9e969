package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/zone/disk"
)

func TestLostAndForeignAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
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
		w := newWorld(t)
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
		w := newWorld(t)
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
		w := newWorld(t)
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
		chain, err := pki.SignIntermediate(rand.Reader, time.Now().Add(pki.Backdate+59*time.Minute), w.signs, td, csr, pki.Validity{})
		if err != nil {
			t.Fatal(err)
		}
		held := disk.Intermediate{Mesh: "m", Chain: [][]byte{chain[0].Raw}}
		if held.Key, err = key.PEM(); err != nil {
			t.Fatal(err)
		}
		w.store.held["m"] = held
		w.start()
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
		w := newWorld(t)
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
