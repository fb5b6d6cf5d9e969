package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func meshKey(mesh string) resource.Key { return resource.Key{Kind: "Mesh", Name: mesh} }

// authorityKey: each backend keeps its own root, so that going back to one doesn't make another.
func authorityKey(mesh, backend string) resource.Key {
	return resource.Key{Kind: "CertificateAuthority", Mesh: mesh, Name: backend}
}

// BundleKey is the key of the one TrustBundle of a mesh, which bears the mesh's name.
func BundleKey(mesh string) resource.Key {
	return resource.Key{Kind: "TrustBundle", Mesh: mesh, Name: mesh}
}

// EnsureMesh makes the root and the trust bundle of a mesh where they are missing, in one change, and puts the root of the
// backend in use first in the bundle. Roots of backends used before stay in the bundle until they expire. A mesh without
// mutual TLS needs nothing. Errors name the mesh and wrap ErrNoMesh, ErrBackend or what the store gave.
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
		if root, op, err = a.makeRoot(snap, mesh, backend); err != nil {
			return nil, fmt.Errorf("backend %s: %w", backend.GetName(), err)
		}
		ops = append(ops, op)
	}
	bundle, changed, err := a.bundle(snap, mesh, root.Root())
	if err != nil {
		return nil, err
	}
	if changed {
		ops = append(ops, put(snap, bundle))
	}
	return ops, nil
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
		entry, ok := snap.Get(authorityKey(mesh, b.GetName()))
		if !ok {
			return pki.Authority{}, false, nil
		}
		spec := resource.Spec[*federationv1.CertificateAuthority](entry.Resource)
		root, err = pki.LoadRoot([]byte(spec.GetCertificate()), spec.GetSealedKey(), a.now())
		if err != nil {
			return root, false, fmt.Errorf("%w: backend %s: %w; name a new backend in the mesh to get a new root", ErrBackend, b.GetName(), err)
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

func (a *Authorities) makeRoot(snap *store.Snapshot, mesh string, b *meshv1.Mesh_CertificateAuthority) (pki.Authority, store.Op, error) {
	var v pki.Validity
	if d := b.GetConf().GetCaCert().GetExpiration(); d != nil {
		v.Lifetime = d.AsDuration()
	}
	root, err := pki.NewRoot(a.random, a.now(), mesh, v)
	if err != nil {
		return root, store.Op{}, err
	}
	key, err := root.Key.PEM()
	if err != nil {
		return root, store.Op{}, err
	}
	return root, put(snap, &resource.Resource{
		Key: authorityKey(mesh, b.GetName()),
		Spec: &federationv1.CertificateAuthority{
			Backend:     b.GetName(),
			Certificate: string(pki.EncodeCertificates(root.Certificate)),
			// In clear here: the kind is sensitive, so the store's Sealer seals the whole resource before it is written.
			SealedKey: key,
			Created:   timestamppb.New(a.now()),
		},
	}), nil
}

// bundle is the mesh's trust bundle with the given root first.
func (a *Authorities) bundle(snap *store.Snapshot, mesh string, first *x509.Certificate) (r *resource.Resource, changed bool, err error) {
	key := BundleKey(mesh)
	want := &federationv1.TrustBundle{Domain: a.domain, Roots: []string{string(pki.EncodeCertificates(first))}}
	entry, exists := snap.Get(key)
	if !exists {
		return &resource.Resource{Key: key, Spec: want}, true, nil
	}
	old := resource.Spec[*federationv1.TrustBundle](entry.Resource)
	for i, text := range old.GetRoots() {
		certs, err := pki.ParseCertificates([]byte(text))
		if err != nil {
			return nil, false, fmt.Errorf("root %d of %s: %w; delete the resource to have it made again", i, key, err)
		}
		for _, c := range certs {
			if bytes.Equal(c.Raw, first.Raw) || a.now().After(c.NotAfter) {
				continue
			}
			if again := string(pki.EncodeCertificates(c)); !slices.Contains(want.Roots, again) {
				want.Roots = append(want.Roots, again)
			}
		}
	}
	return &resource.Resource{Key: key, Labels: entry.Resource.Labels, Spec: want}, !proto.Equal(old, want), nil
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
	root, found, err := a.load(snap, td.Mesh, backend)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("%w: the root of backend %s is gone; ask again", ErrBackend, backend.GetName())
	}
	return pki.SignIntermediate(a.random, a.now(), root, td, csrDER, pki.Validity{})
}
