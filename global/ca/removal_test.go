package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func removedZoneKey(zone string) resource.Key { return resource.Key{Kind: "RemovedZone", Name: zone} }

// remove deletes a Zone as the API does.
func remove(t *testing.T, s *store.Store, zone string, at time.Time) {
	t.Helper()
	key := removedZoneKey(zone)
	done, err := s.Commit(testContext(t), store.Change{Author: "ann", Ops: []store.Op{{Key: resource.Key{Kind: "Zone", Name: zone}, Delete: true},
		{Key: key, Put: &resource.Resource{Key: key, Spec: &federationv1.RemovedZone{Removed: timestamppb.New(at)}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Wait(testContext(t), done.Revision); err != nil {
		t.Fatal(err)
	}
}

// TestRemovedZoneLosesItsRoots deletes zones, one of them while the rotation for another is under way, with replicas that crash after each
// persisted step.
func TestRemovedZoneLosesItsRoots(t *testing.T) {
	s, _ := newStore(t)
	apply(t, s, mesh("m", builtin()), mesh("plain", nil))
	f := newFleet(t, s, "east", "west", "north")
	first := func() *x509.Certificate { return bundleOf(t, s, "m").Roots()[0] }
	step := func() Rotation {
		t.Helper()
		r := NewRotator(newAuthorities(t, s), f, 0)
		if err := errors.Join(r.a.EnsureMesh(testContext(t), "m"), r.a.EnsureMesh(testContext(t), "plain"), advanced(t, r)); err != nil {
			t.Fatal(err)
		}
		is, err := r.Rotation("m")
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	turn := func(zones ...string) {
		t.Helper()
		for _, z := range zones {
			f.takes(t, s, z)
			f.reissues(t, s, z)
		}
	}
	step()
	old := first()
	turn("east", "west", "north")

	remove(t, s, "west", now)
	delete(f.zones, "west")
	if is := step(); is.Phase != PhaseTrust || len(is.Roots) != 2 || !slices.Equal(is.RemovedZones, []string{"west"}) {
		t.Fatalf("%+v", is)
	}
	// The next root has signed nothing, so it serves for a second removal, too.
	remove(t, s, "north", now)
	delete(f.zones, "north")
	if is := step(); is.Phase != PhaseTrust || len(is.Roots) != 2 || !slices.Equal(is.RemovedZones, []string{"north", "west"}) {
		t.Fatalf("%+v", is)
	}
	turn("east")
	if is := step(); is.Phase != PhaseReissue || len(is.Roots) != 2 || !slices.Equal(is.RemovedZones, []string{"north", "west"}) {
		t.Fatalf("%+v", is)
	}
	next := first()
	// North is back and is given something below the next root, before it is removed again: this one has to go as well.
	apply(t, s, &resource.Resource{Key: resource.Key{Kind: "Zone", Name: "north"}, Spec: &meshv1.Zone{}})
	remove(t, s, "north", now)
	if is := step(); is.Phase != PhaseTrust || len(is.Roots) != 3 || !slices.Equal(is.RemovedZones, []string{"north", "west"}) {
		t.Fatalf("%+v", is)
	}
	for range 2 {
		turn("east")
		step()
	}
	turn("east")
	is := step()
	if roots := bundleOf(t, s, "m").Roots(); is.Phase != PhaseNone || len(is.RemovedZones) != 0 || len(roots) != 1 || roots[0].Equal(old) || roots[0].Equal(next) {
		t.Fatalf("%+v", is)
	}
	before := s.Snapshot().Revision()
	if step(); s.Snapshot().Revision() != before {
		t.Error("something is done though nothing is left to do")
	}
	// A mesh that is made later has nothing to replace.
	apply(t, s, mesh("later", builtin()))
	a := newAuthorities(t, s)
	if err := a.EnsureMesh(testContext(t), "later"); err != nil {
		t.Fatal(err)
	}
	if is, err := NewRotator(a, f, 0).Rotation("later"); err != nil || is.Phase != PhaseNone || len(is.RemovedZones) != 0 {
		t.Errorf("%+v %v", is, err)
	}
}

// A provided root can't be replaced by global: it is told that certificates of the zone are good until its owner replaces it.
func TestRemovedZoneUnderAProvidedRoot(t *testing.T) {
	s, _ := newStore(t)
	a := newAuthorities(t, s)
	f := newFleet(t, s, "east", "west")
	provide := func() *x509.Certificate {
		t.Helper()
		root, err := pki.NewRoot(a.random, now, "m", pki.Validity{})
		if err != nil {
			t.Fatal(err)
		}
		key, err := root.Key.PEM()
		if err != nil {
			t.Fatal(err)
		}
		apply(t, s, secretOf("m", "root-cert", pki.EncodeCertificates(root.Certificate)), secretOf("m", "root-key", key))
		return root.Certificate
	}
	apply(t, s, mesh("m", provided()))
	provide()
	r := NewRotator(a, f, 0)
	step := func() Rotation {
		t.Helper()
		if err := errors.Join(a.EnsureMesh(testContext(t), "m"), advanced(t, r)); err != nil {
			t.Fatal(err)
		}
		is, err := r.Rotation("m")
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	step()
	remove(t, s, "west", now)
	delete(f.zones, "west")
	if is := step(); is.Phase != PhaseNone || !slices.Equal(is.RemovedZones, []string{"west"}) {
		t.Fatalf("%+v", is)
	}
	second := provide()
	step()
	for range 2 {
		f.takes(t, s, "east")
		f.reissues(t, s, "east")
		step()
	}
	if is := step(); is.Phase != PhaseNone || len(is.RemovedZones) != 0 {
		t.Fatalf("%+v", is)
	}
	if print := sha256.Sum256(second.Raw); prints(bundleOf(t, s, "m").Roots())[0] != print {
		t.Error("it is not the second root that is left")
	}
}

// Tokens of a removed zone are refused from then on, and one that is issued later is good, also within the same second.
func TestRemovedZoneLosesItsTokens(t *testing.T) {
	s, _ := newStore(t)
	clock := now.Add(300 * time.Millisecond)
	a, err := New(Config{Store: s, Domain: "example.org", Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.EnsureKeys(testContext(t)); err != nil {
		t.Fatal(err)
	}
	issue := func(zone string) string {
		t.Helper()
		issued, _, err := a.IssueToken(testContext(t), token.Claims{Purpose: token.Zone, Zone: zone}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return issued.Reveal()
	}
	verify := func(text string) error {
		t.Helper()
		v, err := a.Verifier(token.Zone)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(text)
		return err
	}
	newFleet(t, s, "east", "west")
	east, west := issue("east"), issue("west")
	remove(t, s, "west", clock)
	if err := verify(west); !errors.Is(err, token.ErrRevoked) || !strings.Contains(err.Error(), "Zone west was deleted") {
		t.Error(err)
	}
	if err := errors.Join(verify(east), verify(issue("west"))); err != nil {
		t.Error(err)
	}
	clock = now.Add(time.Minute)
	if err := verify(issue("west")); err != nil {
		t.Error(err)
	}
	// It is remembered for as long as a token may live.
	clock = now.Add(longestToken)
	for _, there := range []bool{true, false} {
		if err := a.EnsureKeys(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Snapshot().Get(removedZoneKey("west")); ok != there {
			t.Errorf("at %s it is remembered: %v", clock, ok)
		}
		clock = clock.Add(time.Hour)
	}
}
