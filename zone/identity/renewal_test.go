package identity

import (
	"crypto/sha256"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zoneforge/zoneforge/pki"
)

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
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
		w := newWorld(t)
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
		w := newWorld(t)
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
		w := newWorld(t)
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
		w := newWorld(t)
		w.run()
		w.mesh(24 * time.Hour)
		w.expect("m/")
		before := w.leaf("web")
		w.leaf("api")
		old, next := w.signs, newRoot(t)
		// A root that is trusted beside the one that signs changes no certificate.
		w.set(func(w *world) { w.signs, w.roots = old, []pki.Authority{old, next} })
		w.mesh(24 * time.Hour)
		w.expect("m/")
		advance(time.Hour)
		w.expect("")
		if w.leaf("web").SerialNumber.Cmp(before.SerialNumber) != 0 || w.asked() != 1 {
			t.Fatal("moved to the new root too early")
		}
		above := func(root pki.Authority) [32]byte { return sha256.Sum256(root.Certificate.Raw) }
		want := []Rotation{{Mesh: "m", Roots: [][32]byte{above(old), above(next)}, Issuer: above(old)}}
		if got := w.Rotations(); !reflect.DeepEqual(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
		w.set(func(w *world) { w.signs, w.roots = next, []pki.Authority{next, old} })
		w.mesh(24 * time.Hour)
		w.expect("m/ m/api m/web")
		want = []Rotation{{Mesh: "m", Roots: [][32]byte{above(next), above(old)}, Issuer: above(next)}}
		if got := w.Rotations(); !reflect.DeepEqual(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
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
		if got := w.Rotations(); len(got) > 0 {
			t.Errorf("%v", got)
		}
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
		w := newWorld(t)
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
		w := newWorld(t)
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

// An end that comes near is told of in time, ever more often, and no more once there is a newer intermediate.
func TestNearEndIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run()
		w.mesh(24 * time.Hour)
		synctest.Wait()
		w.leaf("web")
		w.set(func(w *world) { w.away = true })
		alarms := func() int { return strings.Count(w.log.String(), "the certificates of this zone end") }
		const day = 24 * time.Hour
		advance(22 * day)
		if n := alarms(); n != 0 {
			t.Errorf("%d words with a quarter of the life to go", n)
		}
		advance(day)
		if n := alarms(); n != 1 || !strings.Contains(w.log.String(), "no stream") {
			t.Errorf("%d words with less than a quarter: %s", n, w.log.String())
		}
		advance(6 * day)
		if n := alarms(); n < 3 || n > 6 {
			t.Errorf("%d words a day before the end", n)
		}
		advance(2 * day)
		before := alarms()
		if before < 10 {
			t.Errorf("%d words a day after the end", before)
		}
		w.set(func(w *world) { w.away = false })
		w.Connected()
		advance(10 * day)
		if n := alarms() - before; n > 1 {
			t.Errorf("%d more words though there is a new one", n)
		}
	})
}
