package ca

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// background runs f until the test ends.
func background(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func newStore(t *testing.T) (*store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	seal, err := store.OpenKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	s, err := store.Open(testContext(t), store.Config{DataDir: data, Seal: seal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	background(t, s.Run)
	return s, data
}

func newAuthorities(t *testing.T, s *store.Store) *Authorities {
	t.Helper()
	a, err := New(Config{Store: s, Domain: "example.org", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func apply(t *testing.T, s *store.Store, rs ...*resource.Resource) {
	t.Helper()
	var ops []store.Op
	for _, r := range rs {
		ops = append(ops, store.Op{Key: r.Key, Put: r})
	}
	done, err := s.Commit(testContext(t), store.Change{Author: "ann", Message: "m", Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Wait(testContext(t), done.Revision); err != nil {
		t.Fatal(err)
	}
}

func mesh(name string, b *meshv1.Mesh_CertificateAuthority) *resource.Resource {
	return &resource.Resource{Key: meshKey(name), Spec: &meshv1.Mesh{
		Mtls: &meshv1.Mesh_Mtls{EnabledBackend: b.GetName(), Backends: []*meshv1.Mesh_CertificateAuthority{b}},
	}}
}

func builtin() *meshv1.Mesh_CertificateAuthority {
	return &meshv1.Mesh_CertificateAuthority{Name: "ca-1", Type: "builtin"}
}

func provided() *meshv1.Mesh_CertificateAuthority {
	ref := func(name string) *meshv1.Mesh_SecretReference { return &meshv1.Mesh_SecretReference{Secret: name} }
	return &meshv1.Mesh_CertificateAuthority{Name: "own", Type: "provided", Conf: &meshv1.Mesh_AuthorityConf{Cert: ref("root-cert"), Key: ref("root-key")}}
}

func secretOf(mesh, name string, data []byte) *resource.Resource {
	return &resource.Resource{Key: resource.Key{Kind: "Secret", Mesh: mesh, Name: name}, Spec: &meshv1.Secret{Data: data}}
}

func bundleOf(t *testing.T, s *store.Store, mesh string) pki.Bundle {
	t.Helper()
	e, ok := s.Snapshot().Get(BundleKey(mesh))
	if !ok {
		t.Fatalf("mesh %s has no bundle", mesh)
	}
	b, err := pki.ParseBundle([]byte(strings.Join(resource.Spec[*federationv1.TrustBundle](e.Resource).GetRoots(), "")))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkIntermediate follows a zone's way from its request to a service's certificate that the bundle trusts.
func checkIntermediate(t *testing.T, a *Authorities, mesh string) {
	t.Helper()
	td := pki.TrustDomain{Zone: "east", Mesh: mesh, Domain: "example.org"}
	key, err := pki.NewKey(a.random)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewRequest(a.random, key, td)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.SignIntermediate(testContext(t), "east", mesh, csr)
	if err != nil {
		t.Fatal(err)
	}
	bundle := bundleOf(t, a.store, mesh)
	issuer, err := pki.LoadIntermediate(chain, key, td, bundle, now)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := pki.NewSVID(a.random, now, issuer, pki.ID{TrustDomain: td, Service: "web"}, pki.Validity{})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := pki.Verify(svid.Chain, bundle, now); err != nil || id != svid.ID {
		t.Fatalf("Verify: %v, %v", id, err)
	}
	if _, err := a.SignIntermediate(testContext(t), "west", mesh, csr); !errors.Is(err, pki.ErrBadRequest) {
		t.Errorf("a request of another zone: %v", err)
	}
	if _, err := a.SignIntermediate(testContext(t), "east", mesh, []byte("nonsense")); !errors.Is(err, pki.ErrBadRequest) {
		t.Errorf("a request that is none: %v", err)
	}
}

func TestReplicasAgree(t *testing.T) {
	s, data := newStore(t)
	apply(t, s, mesh("m", builtin()))
	replicas := []*Authorities{newAuthorities(t, s), newAuthorities(t, s)}
	var wg sync.WaitGroup
	for _, a := range replicas {
		wg.Go(func() {
			if err := errors.Join(a.EnsureMesh(testContext(t), "m"), a.EnsureKeys(testContext(t))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entry, ok := s.Snapshot().Get(authorityKey("m", "ca-1", 1))
	if !ok {
		t.Fatal("no authority was made")
	}
	made := resource.Spec[*federationv1.CertificateAuthority](entry.Resource)
	if got := bundleOf(t, s, "m").PEM(); string(got) != made.GetCertificate() {
		t.Errorf("bundle %s, root %s", got, made.GetCertificate())
	}
	before := s.Snapshot().Revision()
	for _, a := range replicas {
		checkIntermediate(t, a, "m")
		if err := a.EnsureKeys(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
	if after := s.Snapshot().Revision(); after != before {
		t.Errorf("revision went from %d to %d though nothing was missing", before, after)
	}
	secrets := [][]byte{made.GetSealedKey()[40:100]}
	for _, k := range signingKeys(s.Snapshot()) {
		secrets = append(secrets, k.GetSealedSeed())
	}
	if len(secrets) != 4 {
		t.Fatalf("%d secrets, want a root's and three seeds", len(secrets))
	}
	certificateSeen := false
	if err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		for _, secret := range secrets {
			if bytes.Contains(content, secret) {
				t.Errorf("%s holds a private key in clear", path)
			}
		}
		// The bundle is no secret; finding it shows that the search would find a key.
		certificateSeen = certificateSeen || bytes.Contains(content, []byte(made.GetCertificate()[40:100]))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !certificateSeen {
		t.Error("the search does not even find the trust bundle")
	}
}

func TestRunMendsMeshes(t *testing.T) {
	s, _ := newStore(t)
	a := newAuthorities(t, s)
	apply(t, s, mesh("bad", provided()), mesh("good", builtin()))
	err := a.EnsureMesh(testContext(t), "bad")
	if !errors.Is(err, ErrBackend) {
		t.Fatal(err)
	}
	for _, part := range []string{"mesh bad", "backend own", "secret root-cert"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
	if err := a.EnsureMesh(testContext(t), "absent"); !errors.Is(err, ErrNoMesh) {
		t.Error(err)
	}
	apply(t, s, &resource.Resource{Key: resource.Key{Kind: "Zone", Name: "east"}, Spec: &meshv1.Zone{}})
	background(t, a.Run)
	await(t, s, BundleKey("good"), true)

	root, err := pki.NewRoot(a.random, now, "bad", pki.Validity{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := root.Key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, secretOf("bad", "root-cert", pki.EncodeCertificates(root.Certificate)), secretOf("bad", "root-key", key))
	await(t, s, BundleKey("bad"), true)
	checkIntermediate(t, a, "bad")

	// Another backend's root is trusted first, and signs only once zones trust it.
	apply(t, s, &resource.Resource{Key: meshKey("bad"), Spec: &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{
		EnabledBackend: "ca-1", Backends: []*meshv1.Mesh_CertificateAuthority{provided(), builtin()},
	}}})
	checkIntermediate(t, a, "bad")
	if roots := bundleOf(t, s, "bad").Roots(); len(roots) != 2 || !roots[0].Equal(root.Certificate) {
		t.Errorf("%d roots after the change of the backend, the first must still be the old one", len(roots))
	}
	// Once the mesh names the old backend no more, nothing can be signed, but what was signed is trusted.
	apply(t, s, mesh("bad", builtin()))
	if _, err := a.SignIntermediate(testContext(t), "east", "bad", nil); !errors.Is(err, ErrBackend) && !errors.Is(err, pki.ErrBadRequest) {
		t.Error(err)
	}
	if roots := bundleOf(t, s, "bad").Roots(); len(roots) != 2 || !roots[0].Equal(root.Certificate) {
		t.Errorf("%d roots, the first must be the one that signed before", len(roots))
	}

	// With a mesh goes what was kept for it.
	if _, err := s.Commit(testContext(t), store.Change{Author: "ann", Ops: []store.Op{{Key: meshKey("bad"), Delete: true}}}); err != nil {
		t.Fatal(err)
	}
	await(t, s, BundleKey("bad"), false)
	await(t, s, authorityKey("bad", "ca-1", 1), false)
	if _, ok := s.Snapshot().Get(BundleKey("good")); !ok {
		t.Error("another mesh lost its bundle")
	}
}

func TestTokens(t *testing.T) {
	s, _ := newStore(t)
	a := newAuthorities(t, s)
	ctx := testContext(t)
	claims := token.Claims{Purpose: token.Dataplane, Mesh: "m", ID: "one"}
	if _, _, err := a.IssueToken(ctx, claims, time.Hour); !errors.Is(err, ErrNoKey) {
		t.Fatal(err)
	}
	if err := a.EnsureKeys(ctx); err != nil {
		t.Fatal(err)
	}
	verify := func(text string, p token.Purpose) error {
		v, err := a.Verifier(p)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(text)
		return err
	}
	for _, c := range []token.Claims{claims, {Purpose: token.Zone, Zone: "east", ID: "two"}, {Purpose: token.User, Role: token.Admin, ID: "three"}} {
		issued, signed, err := a.IssueToken(ctx, c, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(issued.Reveal(), c.Purpose); err != nil {
			t.Errorf("%s: %v", c.Purpose, err)
		}
		if signed.ID != c.ID || !signed.ExpiresAt.Equal(now.Add(time.Hour)) {
			t.Errorf("%s: signed %s until %s", c.Purpose, signed.ID, signed.ExpiresAt)
		}
		for range 2 {
			if err := a.Revoke(ctx, c.ID, c.Purpose, now.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		if err := verify(issued.Reveal(), c.Purpose); !errors.Is(err, token.ErrRevoked) {
			t.Errorf("%s: a revoked token: %v", c.Purpose, err)
		}
	}
	held, _, err := a.IssueToken(ctx, token.Claims{Purpose: token.Zone, Zone: "east"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := a.RevokeToken(ctx, held.Reveal()); err != nil {
			t.Fatal(err)
		}
	}
	if err := verify(held.Reveal(), token.Zone); !errors.Is(err, token.ErrRevoked) {
		t.Errorf("a token revoked by its holder: %v", err)
	}
	if _, err := a.RevokeToken(ctx, "no.such.token"); !errors.Is(err, token.ErrMalformed) {
		t.Errorf("revoking nonsense: %v", err)
	}
	e, _ := s.Snapshot().Get(VerificationKeysKey())
	keys := resource.Spec[*federationv1.VerificationKeys](e.Resource)
	if len(keys.GetKeys()) != 1 || len(keys.GetRevoked()) != 1 || keys.GetRevoked()[0] != "one" {
		t.Errorf("zones are given %v", keys)
	}

	// Long after their end nothing is remembered of them.
	later, err := New(Config{Store: s, Domain: "example.org", Now: func() time.Time { return now.Add(26 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := later.EnsureKeys(ctx); err != nil {
		t.Fatal(err)
	}
	for e := range s.Snapshot().Each("RevokedToken", "") {
		t.Errorf("%s is still remembered", e.Resource.Key)
	}
	e, _ = s.Snapshot().Get(VerificationKeysKey())
	if keys := resource.Spec[*federationv1.VerificationKeys](e.Resource); len(keys.GetKeys()) != 1 || len(keys.GetRevoked()) != 0 {
		t.Errorf("zones are given %v", keys)
	}
}

// await waits until a resource is there, or gone.
func await(t *testing.T, s *store.Store, key resource.Key, there bool) {
	t.Helper()
	ctx := testContext(t)
	for {
		snap := s.Snapshot()
		if _, ok := snap.Get(key); ok == there {
			return
		}
		select {
		case <-snap.Stale():
		case <-ctx.Done():
			t.Fatalf("%s: waited in vain for it to be there: %v", key, there)
		}
	}
}
