package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// fleet are the zones of one mesh, each of which takes the bundle and has its certificates made anew when it is told to.
type fleet struct {
	mu      sync.Mutex
	zones   map[string]*Standing
	changed chan struct{}
}

func newFleet(t *testing.T, s *store.Store, names ...string) *fleet {
	t.Helper()
	f := &fleet{zones: map[string]*Standing{}, changed: make(chan struct{})}
	for _, name := range names {
		f.zones[name] = &Standing{Zone: name}
		apply(t, s, &resource.Resource{Key: resource.Key{Kind: "Zone", Name: name}, Spec: &meshv1.Zone{}})
	}
	return f
}

func (f *fleet) Standings(string) (out []Standing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.zones)) {
		out = append(out, *f.zones[name])
	}
	return out
}

func (f *fleet) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fleet) set(zone string, change func(*Standing)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.zones[zone])
	close(f.changed)
	f.changed = make(chan struct{})
}

func prints(roots []*x509.Certificate) (out []Fingerprint) {
	for _, c := range roots {
		out = append(out, sha256.Sum256(c.Raw))
	}
	return out
}

// takes has a zone trust what the bundle holds.
func (f *fleet) takes(t *testing.T, s *store.Store, zone string) {
	roots := prints(bundleOf(t, s, "m").Roots())
	f.set(zone, func(z *Standing) { z.Trusted = roots })
}

// reissues has a zone use what the bundle has first.
func (f *fleet) reissues(t *testing.T, s *store.Store, zone string) {
	roots := prints(bundleOf(t, s, "m").Roots())
	f.set(zone, func(z *Standing) { z.Used = roots[:1] })
}

// awaitRoots waits until the bundle has the roots that want accepts.
func awaitRoots(t *testing.T, s *store.Store, what string, want func([]*x509.Certificate) bool) []*x509.Certificate {
	t.Helper()
	for {
		snap := s.Snapshot()
		roots := bundleOf(t, s, "m").Roots()
		if want(roots) {
			return roots
		}
		select {
		case <-snap.Stale():
		case <-testContext(t).Done():
			t.Fatalf("%s: %d roots", what, len(roots))
		}
	}
}

// TestRotation turns a mesh's root in every way, with a replica that crashes after each persisted step: each step is made by another
// one, that knows nothing but the store.
func TestRotation(t *testing.T) {
	for _, way := range []string{"the same backend", "another backend", "a provided root"} {
		t.Run(way, func(t *testing.T) {
			s, _ := newStore(t)
			apply(t, s, mesh("m", builtin()))
			f := newFleet(t, s, "east", "west")
			if err := newAuthorities(t, s).EnsureMesh(testContext(t), "m"); err != nil {
				t.Fatal(err)
			}
			old := bundleOf(t, s, "m").Roots()[0]
			for _, z := range []string{"east", "west"} {
				f.takes(t, s, z)
				f.reissues(t, s, z)
			}
			// step is one attempt of a replica that was just started.
			step := func() Rotation {
				t.Helper()
				r := NewRotator(newAuthorities(t, s), f, 0)
				if err := r.a.EnsureMesh(testContext(t), "m"); err != nil {
					t.Fatal(err)
				}
				if err := advanced(t, r); err != nil {
					t.Fatal(err)
				}
				is, err := r.Rotation("m")
				if err != nil {
					t.Fatal(err)
				}
				return is
			}
			switch way {
			case "the same backend":
				if err := NewRotator(newAuthorities(t, s), f, 0).Begin(testContext(t), "m"); err != nil {
					t.Fatal(err)
				}
			case "another backend":
				apply(t, s, mesh("m", &meshv1.Mesh_CertificateAuthority{Name: "ca-2", Type: "builtin"}))
			case "a provided root":
				root, err := pki.NewRoot(newAuthorities(t, s).random, now, "m", pki.Validity{})
				if err != nil {
					t.Fatal(err)
				}
				key, err := root.Key.PEM()
				if err != nil {
					t.Fatal(err)
				}
				apply(t, s, secretOf("m", "root-cert", pki.EncodeCertificates(root.Certificate)), secretOf("m", "root-key", key),
					&resource.Resource{Key: meshKey("m"), Spec: &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{
						EnabledBackend: "own", Backends: []*meshv1.Mesh_CertificateAuthority{builtin(), provided()},
					}}})
			}
			wants := func(when string, is Rotation, phase Phase, oldAt, roots int, waiting ...string) {
				t.Helper()
				var zones []string
				for _, w := range is.Waiting {
					zones = append(zones, w.Zone)
				}
				have := bundleOf(t, s, "m").Roots()
				if is.Phase != phase || !slices.Equal(zones, waiting) || len(have) != roots || slices.IndexFunc(have, old.Equal) != oldAt || is.Problem != "" {
					t.Fatalf("%s: %+v, %d roots, the old one at %d", when, is, len(have), slices.IndexFunc(have, old.Equal))
				}
				if oldAt <= 0 || way != "the same backend" {
					checkSigner(t, newAuthorities(t, s), have[0])
				}
			}
			wants("begun", step(), PhaseTrust, 0, 2, "east", "west")
			f.takes(t, s, "east")
			wants("one trusts", step(), PhaseTrust, 0, 2, "west")
			f.takes(t, s, "west")
			f.set("west", func(z *Standing) { z.Behind, z.Waiting = 1, []string{"web-1"} })
			is := step()
			wants("a proxy is behind", is, PhaseTrust, 0, 2, "west")
			if !slices.Equal(is.Waiting[0].Proxies, []string{"web-1"}) {
				t.Errorf("%+v", is.Waiting)
			}
			f.set("west", func(z *Standing) { z.Behind = 0 })
			wants("all trust", step(), PhaseReissue, 1, 2, "east", "west")
			f.reissues(t, s, "east")
			wants("one has reissued", step(), PhaseReissue, 1, 2, "west")
			next := prints(bundleOf(t, s, "m").Roots())
			f.set("west", func(z *Standing) { z.Used = next })
			wants("one uses both", step(), PhaseReissue, 1, 2, "west")
			f.reissues(t, s, "west")
			wants("all have reissued", step(), PhaseNone, -1, 1)
			before := s.Snapshot().Revision()
			wants("ended", step(), PhaseNone, -1, 1)
			if after := s.Snapshot().Revision(); after != before {
				t.Errorf("revision went from %d to %d though nothing was to be done", before, after)
			}
			kept := 0
			for range s.Snapshot().Each("CertificateAuthority", "m") {
				kept++
			}
			if want := map[string]int{"a provided root": 0}; kept != 1 && way != "a provided root" || way == "a provided root" && kept != want[way] {
				t.Errorf("%d keys of roots are kept", kept)
			}
		})
	}
}

// TestPhasesSettle holds that connections which began before all had acknowledged a phase have their time, and that proxies that come later don't
// prolong it.
func TestPhasesSettle(t *testing.T) {
	s, _ := newStore(t)
	apply(t, s, mesh("m", builtin()))
	f := newFleet(t, s, "east", "west")
	clock := now
	a, err := New(Config{Store: s, Domain: "example.org", Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	r := NewRotator(a, f, 10*time.Second)
	step := func(when string, settles time.Duration, phase Phase, waiting int) {
		t.Helper()
		rests, err := r.advance(testContext(t), "m")
		if err != nil {
			t.Fatal(err)
		}
		if is, err := r.Rotation("m"); err != nil || rests != settles || is.Phase != phase || len(is.Waiting) != waiting || settles > 0 && !is.SettlesAt.Equal(clock.Add(settles)) {
			t.Fatalf("%s: settles for %s, %+v, %v", when, rests, is, err)
		}
	}
	if err := a.EnsureMesh(testContext(t), "m"); err != nil {
		t.Fatal(err)
	}
	if err := r.Begin(testContext(t), "m"); err != nil {
		t.Fatal(err)
	}
	step("begun", 0, PhaseTrust, 2)
	f.takes(t, s, "east")
	step("one trusts", 0, PhaseTrust, 1)
	f.takes(t, s, "west")
	step("all trust", 10*time.Second, PhaseTrust, 0)
	clock = clock.Add(9 * time.Second)
	f.set("west", func(z *Standing) { z.Behind = 1 })
	step("a proxy joins", 0, PhaseTrust, 1)
	f.set("west", func(z *Standing) { z.Behind = 0 })
	step("it has both", time.Second, PhaseTrust, 0)
	clock = clock.Add(time.Second)
	step("settled", 0, PhaseReissue, 2)
	f.reissues(t, s, "east")
	f.reissues(t, s, "west")
	step("all have reissued", 10*time.Second, PhaseReissue, 0)
	clock = clock.Add(10 * time.Second)
	step("settled again", 0, PhaseNone, 0)

	// Where nobody makes a connection, none can have begun.
	for _, z := range []string{"east", "west"} {
		f.set(z, func(z *Standing) { z.Idle = true })
	}
	if err := r.Begin(testContext(t), "m"); err != nil {
		t.Fatal(err)
	}
	f.takes(t, s, "east")
	f.takes(t, s, "west")
	step("trusted by zones without proxies", 0, PhaseReissue, 2)
	f.set("west", func(z *Standing) { z.Idle = false })
	f.reissues(t, s, "east")
	f.reissues(t, s, "west")
	step("reissued with a proxy", 10*time.Second, PhaseReissue, 0)
}

// advanced ends a phase that needs no time to settle.
func advanced(t *testing.T, r *Rotator) error {
	t.Helper()
	rests, err := r.advance(testContext(t), "m")
	if rests != 0 {
		t.Errorf("the phase has to settle for %s", rests)
	}
	return err
}

// checkSigner asks for an intermediate, which must be below a root.
func checkSigner(t *testing.T, a *Authorities, root *x509.Certificate) {
	t.Helper()
	td := pki.TrustDomain{Zone: "east", Mesh: "m", Domain: "example.org"}
	key, err := pki.NewKey(a.random)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewRequest(a.random, key, td)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.SignIntermediate(testContext(t), "east", "m", csr)
	if err != nil {
		t.Fatal(err)
	}
	only, err := pki.NewBundle(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pki.LoadIntermediate(chain, key, td, only, now); err != nil {
		t.Errorf("signed by another root: %v", err)
	}
}

// TestRotationGoesOnByItself runs what a replica runs, while a zone is away, and then without it.
func TestRotationGoesOnByItself(t *testing.T) {
	s, _ := newStore(t)
	apply(t, s, mesh("m", builtin()))
	f := newFleet(t, s, "east", "west")
	core, logs := observer.New(zap.InfoLevel)
	a, err := New(Config{Store: s, Domain: "example.org", Logger: zap.New(core)}) // by the real clock, as phases settle
	if err != nil {
		t.Fatal(err)
	}
	r := NewRotator(a, f, time.Millisecond)
	background(t, a.Run)
	background(t, r.Run)
	await(t, s, BundleKey("m"), true)
	old := bundleOf(t, s, "m").Roots()[0]
	f.set("west", func(z *Standing) { z.Problem = "it is not connected" })
	for _, c := range []struct {
		what string
		do   func() error
		want error
	}{
		{"without, before it began", func() error { return r.GoOnWithout(testContext(t), "m", []string{"west"}) }, ErrNotRotating},
		{"begin", func() error { return r.Begin(testContext(t), "m") }, nil},
		{"begin twice", func() error { return r.Begin(testContext(t), "m") }, ErrRotating},
		{"no mesh", func() error { return r.Begin(testContext(t), "n") }, ErrNoMesh},
		{"without an unknown zone", func() error { return r.GoOnWithout(testContext(t), "m", []string{"north"}) }, ErrNoZone},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	f.takes(t, s, "east")
	is, err := r.Rotation("m")
	if err != nil || is.Phase != PhaseTrust || len(is.Waiting) != 1 || is.Waiting[0].Reason != "it is not connected" {
		t.Fatalf("%+v %v", is, err)
	}
	if err := r.GoOnWithout(testContext(t), "m", []string{"west"}); err != nil {
		t.Fatal(err)
	}
	awaitRoots(t, s, "the next root signs", func(roots []*x509.Certificate) bool { return len(roots) == 2 && roots[1].Equal(old) })
	f.reissues(t, s, "east")
	awaitRoots(t, s, "the old root is gone", func(roots []*x509.Certificate) bool { return len(roots) == 1 && !roots[0].Equal(old) })
	e, _ := s.Snapshot().Get(BundleKey("m"))
	if spec := resource.Spec[*federationv1.TrustBundle](e.Resource); len(spec.GetWithout()) != 0 {
		t.Errorf("the next rotation would not wait for %v", spec.GetWithout())
	}
	for logs.FilterMessageSnippet("phase").Len() < 2 { // told after it is done
		select {
		case <-testContext(t).Done():
			t.Fatal("the end of a phase is not told")
		case <-time.After(time.Millisecond):
		}
	}
	var phases []string
	for _, l := range logs.FilterMessageSnippet("phase").All() {
		phases = append(phases, fmt.Sprint(l.ContextMap()["phase"]))
	}
	if got := strings.Join(phases, " "); got != "trust reissue" {
		t.Errorf("logged %q", got)
	}
}

// TestRootEndIsTold moves the clock of a replica to the end of a root.
func TestRootEndIsTold(t *testing.T) {
	s, _ := newStore(t)
	apply(t, s, mesh("m", builtin()))
	core, logs := observer.New(zap.WarnLevel)
	clock := now
	a, err := New(Config{Store: s, Domain: "example.org", Now: func() time.Time { return clock }, Logger: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.EnsureMesh(testContext(t), "m"); err != nil {
		t.Fatal(err)
	}
	ends := map[string]*rootEnd{}
	near := now.Add(pki.RootLifetime - 90*24*time.Hour)
	if next := a.warnOfEnds(s.Snapshot(), ends); !next.Equal(near) || logs.Len() > 0 {
		t.Errorf("to be told at %s, want %s; %v", next, near, logs.All())
	}
	clock = near
	for range 2 {
		if next := a.warnOfEnds(s.Snapshot(), ends); !next.IsZero() || logs.Len() != 1 {
			t.Errorf("%s %v", next, logs.All())
		}
	}
	// A run whose clock says so tells it, too, and ends when it is told to.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for logs.Len() < 2 {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-testContext(t).Done():
			t.Fatal("the end is not told")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
