package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func TestNotYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
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

func TestRefusesMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
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

// Batches: many services are renewed without holding the lock for all of them, and each is told once.
func TestManyServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
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
		w := newWorld(t)
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
	w := newWorld(t)
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
	w := newWorld(b)
	w.run()
	w.mesh(0)
	for ready := false; !ready; _, ready = w.Secrets("m", []string{"first"}) {
		<-w.Changed()
	}
	for n := 0; b.Loop(); n++ {
		w.Secrets("m", []string{fmt.Sprint("s", n)})
	}
}
