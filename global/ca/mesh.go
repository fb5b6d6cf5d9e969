package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func meshKey(mesh string) resource.Key { return resource.Key{Kind: "Mesh", Name: mesh} }

// authorityKey is that of a backend's root: the first has the backend's name, and those that follow it a number from 2 on. Names of
// backends have no dot.
func authorityKey(mesh, backend string, number int) resource.Key {
	key := resource.Key{Kind: "CertificateAuthority", Mesh: mesh, Name: backend}
	if number > 1 {
		key.Name += "." + strconv.Itoa(number)
	}
	return key
}

// newest is the entry of a backend's newest root with its number; 0 when there is none.
func newest(snap *store.Snapshot, mesh, backend string) (entry store.Entry, number int) {
	for e := range snap.Each("CertificateAuthority", mesh) {
		if n := numberOf(e.Resource, backend); n > number {
			entry, number = e, n
		}
	}
	return entry, number
}

// numberOf is that of a root of the backend; 0 for one of another.
func numberOf(r *resource.Resource, backend string) int {
	if r.Name == backend {
		return 1
	}
	rest, ok := strings.CutPrefix(r.Name, backend+".")
	n, err := strconv.Atoi(rest)
	if !ok || err != nil || n < 2 {
		return 0
	}
	return n
}

// BundleKey is the key of the one TrustBundle of a mesh, which bears the mesh's name.
func BundleKey(mesh string) resource.Key {
	return resource.Key{Kind: "TrustBundle", Mesh: mesh, Name: mesh}
}

// EnsureMesh makes the root and the trust bundle of a mesh where they are missing, in one change. The first root of the bundle signs.
// Where another root than that of the backend in use does, the latter joins the bundle behind it, and Rotator does the rest. Before
// there is a zone, nothing waits. A mesh without mutual TLS needs nothing. Errors name the mesh and wrap ErrNoMesh, ErrBackend or
// what the store gave.
func (a *Authorities) EnsureMesh(ctx context.Context, mesh string) error {
	err := a.converge(ctx, "certificate authority of mesh "+mesh, func(snap *store.Snapshot) ([]store.Op, error) {
		return a.planMesh(snap, mesh)
	})
	if err != nil {
		return fmt.Errorf("ca: mesh %s: %w", mesh, err)
	}
	return nil
}

func (a *Authorities) planMesh(snap *store.Snapshot, mesh string) ([]store.Op, error) {
	backend, err := backendOf(snap, mesh)
	if err != nil || backend == nil {
		return nil, err
	}
	var ops []store.Op
	root, found, err := a.load(snap, mesh, backend)
	if err != nil {
		return nil, err
	}
	if !found {
		var op store.Op
		if root, op, err = a.makeRoot(snap, mesh, backend, 1); err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	joined, err := a.join(snap, mesh, root.Root())
	if err != nil {
		return nil, err
	}
	return a.replaceSigned(snap, mesh, backend, root.Root(), append(ops, joined...))
}

// join puts the root of the backend in use into the bundle: first where nobody could miss another one, else last.
func (a *Authorities) join(snap *store.Snapshot, mesh string, next *x509.Certificate) ([]store.Op, error) {
	have, err := a.bundled(snap, mesh)
	if err != nil {
		return nil, err
	}
	if len(have) == 0 || !anyZone(snap) {
		have = append([]*x509.Certificate{next}, slices.DeleteFunc(have, next.Equal)...)
	} else if !slices.ContainsFunc(have, next.Equal) {
		have = append(have, next)
	}
	return a.rebundle(snap, mesh, have, nil), nil
}

// backendOf is the backend in use; nil without mutual TLS.
func backendOf(snap *store.Snapshot, mesh string) (*meshv1.Mesh_CertificateAuthority, error) {
	entry, ok := snap.Get(meshKey(mesh))
	if !ok {
		return nil, ErrNoMesh
	}
	mtls := resource.Spec[*meshv1.Mesh](entry.Resource).GetMtls()
	enabled := mtls.GetEnabledBackend()
	if enabled == "" {
		return nil, nil
	}
	for _, b := range mtls.GetBackends() {
		if b.GetName() == enabled {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w: mtls.enabledBackend %q is not one of mtls.backends; add it or name another", ErrBackend, enabled)
}

// load reads the authority of a backend; found is false for a builtin one that was not made yet.
func (a *Authorities) load(snap *store.Snapshot, mesh string, b *meshv1.Mesh_CertificateAuthority) (root pki.Authority, found bool, err error) {
	switch b.GetType() {
	case "builtin":
		entry, number := newest(snap, mesh, b.GetName())
		if number == 0 {
			return pki.Authority{}, false, nil
		}
		root, err = a.open(entry.Resource)
		if err != nil {
			return root, false, fmt.Errorf("%w: backend %s: %w; `zoneforge ca rotate` makes a new root", ErrBackend, b.GetName(), err)
		}
		return root, true, nil
	case "provided":
		certName, keyName := b.GetConf().GetCert().GetSecret(), b.GetConf().GetKey().GetSecret()
		cert, err := secret(snap, mesh, b.GetName(), "cert", certName)
		if err != nil {
			return root, false, err
		}
		key, err := secret(snap, mesh, b.GetName(), "key", keyName)
		if err != nil {
			return root, false, err
		}
		root, err = pki.LoadRoot(cert, key, a.now())
		if err != nil {
			return root, false, fmt.Errorf("%w: backend %s: secrets %s (certificate) and %s (key): %w",
				ErrBackend, b.GetName(), certName, keyName, err)
		}
		return root, true, nil
	}
	return root, false, fmt.Errorf("%w: backend %s has type %q; use builtin or provided", ErrBackend, b.GetName(), b.GetType())
}

func secret(snap *store.Snapshot, mesh, backend, field, name string) ([]byte, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: backend %s names no secret in conf.%s", ErrBackend, backend, field)
	}
	entry, ok := snap.Get(resource.Key{Kind: "Secret", Mesh: mesh, Name: name})
	if !ok {
		return nil, fmt.Errorf("%w: backend %s: secret %s of conf.%s does not exist; apply it to mesh %s", ErrBackend, backend, name, field, mesh)
	}
	return resource.Spec[*meshv1.Secret](entry.Resource).GetData(), nil
}

// makeRoot makes a builtin backend's root of a number.
func (a *Authorities) makeRoot(snap *store.Snapshot, mesh string, b *meshv1.Mesh_CertificateAuthority, number int) (pki.Authority, store.Op, error) {
	var v pki.Validity
	if d := b.GetConf().GetCaCert().GetExpiration(); d != nil {
		v.Lifetime = d.AsDuration()
	}
	root, err := pki.NewRoot(a.random, a.now(), mesh, v)
	var key []byte
	if err == nil {
		key, err = root.Key.PEM()
	}
	if err != nil {
		return root, store.Op{}, fmt.Errorf("backend %s: %w", b.GetName(), err)
	}
	return root, put(snap, &resource.Resource{
		Key: authorityKey(mesh, b.GetName(), number),
		Spec: &federationv1.CertificateAuthority{
			Backend:     b.GetName(),
			Certificate: string(pki.EncodeCertificates(root.Certificate)),
			// In clear here: the kind is sensitive, so the store's Sealer seals the whole resource before it is written.
			SealedKey: key,
			Created:   timestamppb.New(a.now()),
		},
	}), nil
}

// bundled are the roots in a mesh's trust bundle that have not expired, each once, the one that signs first; none without a bundle.
func (a *Authorities) bundled(snap *store.Snapshot, mesh string) ([]*x509.Certificate, error) {
	entry, ok := snap.Get(BundleKey(mesh))
	if !ok {
		return nil, nil
	}
	return a.trusted(entry.Resource)
}

// rebundle gives the operation that puts roots into a mesh's trust bundle, and those for which the rotation does not wait; none where
// they are there already.
func (a *Authorities) rebundle(snap *store.Snapshot, mesh string, roots []*x509.Certificate, without []string) []store.Op {
	made := &resource.Resource{Key: BundleKey(mesh)}
	spec := &federationv1.TrustBundle{Domain: a.domain, Without: without}
	for _, c := range roots {
		spec.Roots = append(spec.Roots, string(pki.EncodeCertificates(c)))
	}
	if entry, ok := snap.Get(made.Key); ok {
		have := resource.Spec[*federationv1.TrustBundle](entry.Resource)
		if spec.Without == nil && len(roots) > 1 {
			spec.Without = have.GetWithout()
		}
		if made.Labels = entry.Resource.Labels; len(roots) > 1 {
			spec.Since = have.GetSince()
		}
		if proto.Equal(have, spec) {
			return nil
		}
	}
	// With one root it is as older zones know it.
	if spec.Since = nil; len(roots) > 1 {
		spec.Since = timestamppb.New(a.now())
	}
	made.Spec = spec
	return []store.Op{put(snap, made)}
}

// anyZone is false while no zone was ever there that could hold what a root signed.
func anyZone(snap *store.Snapshot) bool {
	for range snap.Each("Zone", "") {
		return true
	}
	return false
}

// trusted are the roots of a bundle that have not expired, each once, in order.
func (a *Authorities) trusted(bundle *resource.Resource) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for i, text := range resource.Spec[*federationv1.TrustBundle](bundle).GetRoots() {
		certs, err := pki.ParseCertificates([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("root %d of %s: %w; delete the resource to have it made again", i, bundle.Key, err)
		}
		for _, c := range certs {
			if !a.now().After(c.NotAfter) && !slices.ContainsFunc(out, c.Equal) {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

// holder finds the authority of a root, whatever backend it belongs to: a builtin one also when the mesh names it no more.
func (a *Authorities) holder(snap *store.Snapshot, mesh string, root *x509.Certificate) (pki.Authority, bool) {
	for e := range snap.Each("CertificateAuthority", mesh) {
		if held, err := a.open(e.Resource); err == nil && held.Root().Equal(root) {
			return held, true
		}
	}
	if e, ok := snap.Get(meshKey(mesh)); ok {
		for _, b := range resource.Spec[*meshv1.Mesh](e.Resource).GetMtls().GetBackends() {
			if b.GetType() != "provided" {
				continue
			}
			// One that can't be used any more is none.
			if held, found, err := a.load(snap, mesh, b); err == nil && found && held.Root().Equal(root) {
				return held, true
			}
		}
	}
	return pki.Authority{}, false
}

// open reads a builtin authority.
func (a *Authorities) open(r *resource.Resource) (pki.Authority, error) {
	spec := resource.Spec[*federationv1.CertificateAuthority](r)
	return pki.LoadRoot([]byte(spec.GetCertificate()), spec.GetSealedKey(), a.now())
}

// SignIntermediate answers the request (DER of PKCS#10) of a zone for its intermediate in a mesh: PEM of the intermediate,
// then of what stands between it and the root. The caller has authenticated the zone. Errors wrap ErrNoMesh, ErrNoMTLS,
// ErrBackend, pki.ErrBadRequest or what the store gave.
func (a *Authorities) SignIntermediate(ctx context.Context, zone, mesh string, csrDER []byte) ([]byte, error) {
	td, err := pki.NewTrustDomain(zone, mesh, a.domain)
	if err != nil {
		return nil, fmt.Errorf("ca: intermediate of zone %s in mesh %s: %w", zone, mesh, err)
	}
	// Nothing is signed by a root that the bundle doesn't hold.
	if err := a.EnsureMesh(ctx, mesh); err != nil {
		return nil, err
	}
	chain, err := a.sign(a.store.Snapshot(), td, csrDER)
	if err != nil {
		return nil, fmt.Errorf("ca: intermediate of zone %s in mesh %s: %w", zone, mesh, err)
	}
	return pki.EncodeCertificates(chain...), nil
}

func (a *Authorities) sign(snap *store.Snapshot, td pki.TrustDomain, csrDER []byte) ([]*x509.Certificate, error) {
	backend, err := backendOf(snap, td.Mesh)
	if err != nil {
		return nil, err
	}
	if backend == nil {
		return nil, fmt.Errorf("%w; set mtls.enabledBackend", ErrNoMTLS)
	}
	// By the first root of the bundle, which is not that of the backend before all trust the latter.
	roots, err := a.bundled(snap, td.Mesh)
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("%w: the trust bundle of backend %s is gone; ask again", ErrBackend, backend.GetName())
	}
	root, ok := a.holder(snap, td.Mesh, roots[0])
	if !ok {
		return nil, fmt.Errorf("%w: the key of the root that signs is gone, and that of backend %s signs once all zones trust it: `zoneforge ca status` says "+
			"which zones are waited for", ErrBackend, backend.GetName())
	}
	return pki.SignIntermediate(a.random, a.now(), root, td, csrDER, pki.Validity{})
}
