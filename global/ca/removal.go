package ca

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// A zone that is removed keeps the keys of its intermediates, which are good for weeks. Envoy takes a list of revoked certificates only
// together with one from every authority in a chain, each zone's own intermediate included, or looks at the leaf alone. So they are
// revoked by their roots: each mesh gets another one, by the rotation that loses no request, and the removed zone nothing below it.

// longestToken is more than what a token of a zone may live for.
const longestToken = 11 * 365 * 24 * time.Hour

// replaceSigned has a mesh get another root where zones were removed to which the one that signs may have given an intermediate, and notes
// what each of them may have. ops are those that are to be committed with it, and next the root of the backend in use.
func (a *Authorities) replaceSigned(snap *store.Snapshot, mesh string, backend *meshv1.Mesh_CertificateAuthority, next *x509.Certificate, ops []store.Op) ([]store.Op, error) {
	var unseen []store.Entry
	for e := range snap.Each("RemovedZone", "") {
		if _, seen := resource.Spec[*federationv1.RemovedZone](e.Resource).GetRoots()[mesh]; !seen {
			unseen = append(unseen, e)
		}
	}
	if len(unseen) == 0 {
		return ops, nil
	}
	roots, err := a.bundled(snap, mesh)
	if err != nil {
		return nil, err
	}
	// One that does not stand first has signed nothing yet, unless it did before.
	signed := &federationv1.Fingerprints{}
	for i, c := range roots {
		if i == 0 || !c.Equal(next) {
			print := sha256.Sum256(c.Raw)
			signed.Sha256 = append(signed.Sha256, print[:])
		}
	}
	if backend.GetType() == "builtin" && len(roots) > 0 && roots[0].Equal(next) {
		another, err := a.another(snap, mesh, backend)
		if err != nil {
			return nil, err
		}
		// Both would write the bundle.
		ops = append(slices.DeleteFunc(ops, func(op store.Op) bool { return op.Key == BundleKey(mesh) }), another...)
	}
	for _, e := range unseen {
		spec := proto.Clone(e.Resource.Spec).(*federationv1.RemovedZone)
		if spec.Roots == nil {
			spec.Roots = map[string]*federationv1.Fingerprints{}
		}
		spec.Roots[mesh] = signed
		ops = append(ops, put(snap, &resource.Resource{Key: e.Resource.Key, Labels: e.Resource.Labels, Spec: spec}))
		a.log.Info("certificates of a removed zone lose their root", zap.String("zone", e.Resource.Name), zap.String("mesh", mesh))
	}
	return ops, nil
}

// trustedStill are the removed zones whose certificates one of the roots may make good.
func trustedStill(snap *store.Snapshot, mesh string, roots []*x509.Certificate) (zones []string) {
	for e := range snap.Each("RemovedZone", "") {
		signed, seen := resource.Spec[*federationv1.RemovedZone](e.Resource).GetRoots()[mesh]
		if !seen && len(roots) > 0 || slices.ContainsFunc(roots, func(c *x509.Certificate) bool {
			print := sha256.Sum256(c.Raw)
			return slices.ContainsFunc(signed.GetSha256(), func(s []byte) bool { return Fingerprint(print) == asFingerprint(s) })
		}) {
			zones = append(zones, e.Resource.Name)
		}
	}
	return zones
}

// asFingerprint is zero for what is none.
func asFingerprint(b []byte) (f Fingerprint) {
	if len(b) == len(f) {
		f = Fingerprint(b)
	}
	return f
}

// removals say until when tokens of removed zones are refused.
func removals(snap *store.Snapshot) map[string]time.Time {
	out := map[string]time.Time{}
	for e := range snap.Each("RemovedZone", "") {
		out[e.Resource.Name] = resource.Spec[*federationv1.RemovedZone](e.Resource).GetRemoved().AsTime()
	}
	return out
}

// refusesRemoved says why a zone's token is refused that is older than the removal of its Zone.
func (v Verifier) refusesRemoved(c token.Claims) error {
	if removed, ok := v.removed[c.Zone]; ok && !c.IssuedAt.After(removed) {
		return fmt.Errorf("verify zone token: %w: Zone %s was deleted, and its tokens with it; issue a new one with `zoneforge token zone %s` to let it in again",
			token.ErrRevoked, c.Zone, c.Zone)
	}
	return nil
}

// forgetRemoved gives the operations that forget the removals of zones from which no token and no certificate can be good any more.
func (a *Authorities) forgetRemoved(snap *store.Snapshot) (ops []store.Op) {
	for e := range snap.Each("RemovedZone", "") {
		if a.now().After(resource.Spec[*federationv1.RemovedZone](e.Resource).GetRemoved().AsTime().Add(longestToken)) {
			ops = append(ops, store.Op{Key: e.Resource.Key, Delete: true, IfRevision: &e.Revision})
		}
	}
	return ops
}
