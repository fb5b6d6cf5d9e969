package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

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

// EnsureMesh makes the root and the trust bundle of a mesh where they are missing, in one change, and puts the root that signs
// first in the bundle: that of the backend in use. Where another root signs already, it goes on until the new one has been
// in the bundle for Config.Settle, so that no zone meets a certificate before it learns to trust it. Roots of backends used
// before stay in the bundle until they expire. Before there is a zone, nothing waits. A mesh without mutual TLS needs nothing.
// Errors name the mesh and wrap ErrNoMesh, ErrBackend or what the store gave.
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

// labelSettles is the label of a TrustBundle that says when its newest root may sign, while another one does.
const labelSettles = "zoneforge.io/settles"

// bundle is the mesh's trust bundle, whose first root signs: next when it may, else the one that signs already.
func (a *Authorities) bundle(snap *store.Snapshot, mesh string, next *x509.Certificate) (r *resource.Resource, changed bool, err error) {
	key := BundleKey(mesh)
	entry, exists := snap.Get(key)
	if !exists {
		return newBundle(key, a.domain, nil, []*x509.Certificate{next}), true, nil
	}
	have, err := a.trusted(entry.Resource)
	if err != nil {
		return nil, false, err
	}
	labels := maps.Clone(entry.Resource.Labels)
	settles := labels[labelSettles]
	delete(labels, labelSettles)
	trusted := slices.ContainsFunc(have, next.Equal)
	switch {
	case len(have) == 0 || have[0].Equal(next) || !a.holds(snap, mesh, have[0]) || !anyZone(snap) || trusted && !a.now().Before(settleTime(settles)):
		have = append([]*x509.Certificate{next}, slices.DeleteFunc(have, next.Equal)...)
	default:
		if !trusted {
			have = append(have, next)
			settles = a.now().Add(a.settle).UTC().Format(time.RFC3339)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[labelSettles] = settles
	}
	made := newBundle(key, a.domain, labels, have)
	same := proto.Equal(entry.Resource.Spec, made.Spec) && maps.Equal(entry.Resource.Labels, made.Labels)
	return made, !same, nil
}

// anyZone is false while no zone was ever there that could hold what a root signed.
func anyZone(snap *store.Snapshot) bool {
	for range snap.Each("Zone", "") {
		return true
	}
	return false
}

func newBundle(key resource.Key, domain string, labels map[string]string, roots []*x509.Certificate) *resource.Resource {
	if len(labels) == 0 {
		labels = nil
	}
	spec := &federationv1.TrustBundle{Domain: domain}
	for _, c := range roots {
		spec.Roots = append(spec.Roots, string(pki.EncodeCertificates(c)))
	}
	return &resource.Resource{Key: key, Labels: labels, Spec: spec}
}

// settleTime is long past for what is no time.
func settleTime(label string) time.Time {
	t, _ := time.Parse(time.RFC3339, label)
	return t
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
	backends := []*meshv1.Mesh_CertificateAuthority{}
	for e := range snap.Each("CertificateAuthority", mesh) {
		backends = append(backends, &meshv1.Mesh_CertificateAuthority{Name: e.Resource.Name, Type: "builtin"})
	}
	if e, ok := snap.Get(meshKey(mesh)); ok {
		for _, b := range resource.Spec[*meshv1.Mesh](e.Resource).GetMtls().GetBackends() {
			if b.GetType() == "provided" {
				backends = append(backends, b)
			}
		}
	}
	for _, b := range backends {
		// One that can't be used any more is none.
		if held, found, err := a.load(snap, mesh, b); err == nil && found && held.Root().Equal(root) {
			return held, true
		}
	}
	return pki.Authority{}, false
}

func (a *Authorities) holds(snap *store.Snapshot, mesh string, root *x509.Certificate) bool {
	_, ok := a.holder(snap, mesh, root)
	return ok
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
	// By the first root of the bundle, which is not yet that of the backend while the latter settles.
	entry, ok := snap.Get(BundleKey(td.Mesh))
	if !ok {
		return nil, fmt.Errorf("%w: the trust bundle of backend %s is gone; ask again", ErrBackend, backend.GetName())
	}
	roots, err := a.trusted(entry.Resource)
	if err != nil {
		return nil, err
	}
	if len(roots) > 0 {
		if root, ok := a.holder(snap, td.Mesh, roots[0]); ok {
			return pki.SignIntermediate(a.random, a.now(), root, td, csrDER, pki.Validity{})
		}
	}
	return nil, fmt.Errorf("%w: the root of backend %s is gone; ask again", ErrBackend, backend.GetName())
}
