package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
)

var (
	// ErrRotating says that a mesh has several roots already.
	ErrRotating = errors.New("a rotation is under way")
	// ErrNotRotating says that a mesh has one root.
	ErrNotRotating = errors.New("no rotation is under way")
	// ErrProvided says that a root is the operator's own.
	ErrProvided = errors.New("the root is provided")
	// ErrNoZone says that there is no such Zone.
	ErrNoZone = errors.New("zone not found")
)

// Phase is where the rotation of a mesh's root stands.
type Phase string

const (
	// PhaseNone: one root signs, and it alone is trusted.
	PhaseNone Phase = "none"
	// PhaseTrust: the former root signs; it ends when every proxy of every zone trusts the next one too.
	PhaseTrust Phase = "trust"
	// PhaseReissue: the next root signs; it ends when every certificate in use is below it, and with it the trust in all others.
	PhaseReissue Phase = "reissue"
)

// Fingerprint of a certificate is SHA-256 over its DER.
type Fingerprint = [sha256.Size]byte

// Standing is how a zone stands with the roots of a mesh.
type Standing struct {
	Zone string
	// Problem is why nothing is known of it; all else is empty then.
	Problem string
	// Trusted are the roots that each of its proxies trusts that is not behind, and Used those above certificates that are in use.
	Trusted, Used []Fingerprint
	// Behind counts the proxies that have not acknowledged what is newest; Waiting names some.
	Behind  int
	Waiting []string
	// Idle says that no proxy has roots of the mesh, so that no connection was made by them.
	Idle bool
}

// Zones tell how far they have come; global/zones.Registry does. Safe for concurrent use.
type Zones interface {
	// Standings are those of all enabled Zones with a mesh that has several roots, ordered by name.
	Standings(mesh string) []Standing
	// Changed closes when a standing may have changed. It is taken before Standings.
	Changed() <-chan struct{}
}

// Rotation is what is known of a mesh's roots, in the JSON of the REST API.
type Rotation struct {
	Mesh string `json:"mesh"`
	// Backend is the one in use; empty without mutual TLS.
	Backend string `json:"backend,omitempty"`
	Phase   Phase  `json:"phase"`
	// Since is when the phase began; absent without one.
	Since time.Time `json:"since,omitzero"`
	Roots []Root    `json:"roots"`
	// Waiting are the zones that hold the phase; Without are those for which it does not wait.
	Waiting []Waiting `json:"waiting"`
	Without []string  `json:"without,omitempty"`
	// RemovedZones are deleted Zones whose certificates are still trusted.
	RemovedZones []string `json:"removedZones,omitempty"`
	// Problem is why the root of the backend in use can't be used.
	Problem string `json:"problem,omitempty"`
	// SettlesAt is when connections that may have begun before everybody had acknowledged the phase are made or given up; absent before that,
	// and where nobody makes any.
	SettlesAt time.Time `json:"settlesAt,omitzero"`

	// next is what the phase ends with, once nobody is waited for.
	next []*x509.Certificate
	// idle says that no proxy has roots of the mesh.
	idle bool
}

// Root of a bundle, in the JSON of the REST API.
type Root struct {
	Fingerprint string    `json:"fingerprint"`
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	// Signs says that it is the one that signs; Wanted that it is that of the backend in use.
	Signs  bool `json:"signs"`
	Wanted bool `json:"wanted"`
}

// Waiting says what a zone is waited for.
type Waiting struct {
	Zone    string   `json:"zone"`
	Reason  string   `json:"reason"`
	Proxies []string `json:"proxies,omitempty"`
}

// Rotator moves meshes from root to root, as zones acknowledge. What it has come to is in the store alone, so that any replica
// goes on with it after a crash. Safe for concurrent use.
type Rotator struct {
	a      *Authorities
	zones  Zones
	settle time.Duration

	mu sync.Mutex
	// settled are the meshes of which a phase is acknowledged by all.
	settled map[string]settling
}

// settling is how a phase that all have acknowledged comes to rest.
type settling struct {
	phase Phase
	root  Fingerprint
	at    time.Time
}

// NewRotator starts nothing. Settle is how long a phase goes on once all have acknowledged it: a connection that began before shows, and
// checks, certificates by what was so at its beginning, and may get to a proxy that has gone on. A replica that takes over waits for it anew.
func NewRotator(a *Authorities, zones Zones, settle time.Duration) *Rotator {
	return &Rotator{a: a, zones: zones, settle: settle, settled: map[string]settling{}}
}

// settles is when the phase of a mesh comes to rest. Proxies that acknowledge later, as they join or come back, don't move it.
func (r *Rotator) settles(is *Rotation) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.settled[is.Mesh]
	root := Fingerprint(sha256.Sum256(is.next[0].Raw))
	if known.phase == is.Phase && known.root == root {
		return known.at
	}
	if len(is.Waiting) > 0 {
		return time.Time{}
	}
	now := settling{phase: is.Phase, root: root, at: r.a.now()}
	if !is.idle {
		now.at = now.at.Add(r.settle)
	}
	r.settled[is.Mesh] = now
	return now.at
}

// gather is how long what zones say is gathered, while some mesh has several roots.
const gather = 5 * time.Millisecond

// Run ends phases until ctx ends, and then returns nil.
func (r *Rotator) Run(ctx context.Context) error {
	failed := map[string]string{}
	for ctx.Err() == nil {
		changed, snap := r.zones.Changed(), r.a.store.Snapshot()
		var again <-chan time.Time
		least := time.Duration(0)
		soonest := func(d time.Duration) {
			if d > 0 && (least == 0 || d < least) {
				least, again = d, time.After(d)
			}
		}
		rotating := false
		for e := range snap.Each("TrustBundle", "") {
			mesh := e.Resource.Mesh
			if len(resource.Spec[*federationv1.TrustBundle](e.Resource).GetRoots()) < 2 {
				delete(failed, mesh)
				continue
			}
			rotating = true
			rests, err := r.advance(ctx, mesh)
			switch {
			case err == nil:
				delete(failed, mesh)
				soonest(rests)
			case ctx.Err() == nil:
				if failed[mesh] != err.Error() {
					failed[mesh] = err.Error()
					r.a.log.Warn("rotation of the root does not go on", zap.String("mesh", mesh), zap.Error(err))
				}
				soonest(retryAfter)
			}
		}
		if !rotating {
			changed = nil
		}
		select {
		case <-ctx.Done():
		case <-snap.Stale():
		case <-again:
		case <-changed:
			select {
			case <-ctx.Done():
			case <-time.After(gather):
			}
		}
	}
	return nil
}

// advance ends the phase of a mesh where nobody is waited for, and says how long it has to settle before.
func (r *Rotator) advance(ctx context.Context, mesh string) (rests time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, retryAfter)
	defer cancel()
	var did Phase
	err = r.a.converge(ctx, "rotation of the root of mesh "+mesh, func(snap *store.Snapshot) ([]store.Op, error) {
		is, err := r.rotation(snap, mesh)
		did, rests = PhaseNone, 0
		if err != nil || len(is.next) == 0 || len(is.Waiting) > 0 {
			return nil, err
		}
		if rests = is.SettlesAt.Sub(r.a.now()); rests > 0 {
			return nil, nil
		}
		did = is.Phase
		ops := r.a.rebundle(snap, mesh, is.next, nil)
		if is.Phase != PhaseReissue {
			return ops, nil
		}
		// Keys that sign nothing any more are kept no longer.
		for e := range snap.Each("CertificateAuthority", mesh) {
			held, err := r.a.open(e.Resource)
			if err != nil || !slices.ContainsFunc(is.next, held.Root().Equal) {
				ops = append(ops, store.Op{Key: e.Resource.Key, Delete: true, IfRevision: &e.Revision})
			}
		}
		return ops, nil
	})
	if err == nil && did != PhaseNone {
		r.a.log.Info("phase of the rotation of a root has ended", zap.String("mesh", mesh), zap.String("phase", string(did)))
	}
	return max(rests, 0), err
}

// rotation says where the rotation of a mesh stands. Without an error its problem is empty.
func (r *Rotator) rotation(snap *store.Snapshot, mesh string) (Rotation, error) {
	is := Rotation{Mesh: mesh, Phase: PhaseNone, Roots: []Root{}, Waiting: []Waiting{}}
	roots, err := r.a.bundled(snap, mesh)
	if err != nil {
		return is, err
	}
	if e, ok := snap.Get(BundleKey(mesh)); ok && len(roots) > 0 {
		spec := resource.Spec[*federationv1.TrustBundle](e.Resource)
		is.Without, is.Since = spec.GetWithout(), within(spec)
	}
	is.RemovedZones = trustedStill(snap, mesh, roots)
	for i, c := range roots {
		print := sha256.Sum256(c.Raw)
		is.Roots = append(is.Roots, Root{Fingerprint: hex.EncodeToString(print[:]), NotBefore: c.NotBefore, NotAfter: c.NotAfter, Signs: i == 0})
	}
	backend, err := backendOf(snap, mesh)
	if err != nil || backend == nil {
		return is, err
	}
	is.Backend = backend.GetName()
	held, found, err := r.a.load(snap, mesh, backend)
	if err != nil || !found {
		return is, err
	}
	at := slices.IndexFunc(roots, held.Root().Equal)
	if at < 0 {
		return is, nil // EnsureMesh brings it in
	}
	is.Roots[at].Wanted = true
	switch {
	case at > 0:
		is.Phase = PhaseTrust
		is.next = append([]*x509.Certificate{roots[at]}, slices.Delete(slices.Clone(roots), at, at+1)...)
	case len(roots) > 1:
		is.Phase = PhaseReissue
		is.next = roots[:1]
	default:
		return is, nil
	}
	wanted := Fingerprint(sha256.Sum256(roots[at].Raw))
	is.idle = true
	for _, z := range r.zones.Standings(mesh) {
		is.idle = is.idle && z.Idle
		if slices.Contains(is.Without, z.Zone) {
			continue
		}
		if reason := z.lacks(is.Phase, wanted); reason != "" {
			is.Waiting = append(is.Waiting, Waiting{Zone: z.Zone, Reason: reason, Proxies: z.Waiting})
		}
	}
	is.SettlesAt = r.settles(&is)
	return is, nil
}

// within is when the roots of a bundle changed; zero where older software wrote it.
func within(b *federationv1.TrustBundle) time.Time {
	if b.GetSince() == nil {
		return time.Time{}
	}
	return b.GetSince().AsTime()
}

// lacks says what a zone is waited for in a phase; empty for nothing.
func (z Standing) lacks(phase Phase, wanted Fingerprint) string {
	switch {
	case z.Problem != "":
		return z.Problem
	case z.Behind > 0:
		return fmt.Sprintf("%d of its proxies have not acknowledged the newest roots and certificates", z.Behind)
	case phase == PhaseTrust && !slices.Contains(z.Trusted, wanted):
		return "it has not taken the next root yet"
	case phase == PhaseReissue && (len(z.Used) != 1 || z.Used[0] != wanted):
		return "it uses certificates below a former root"
	}
	return ""
}

// Rotations are those of all meshes that have a trust bundle, by name.
func (r *Rotator) Rotations() []Rotation {
	snap, all := r.a.store.Snapshot(), map[string]Rotation{}
	for e := range snap.Each("TrustBundle", "") {
		all[e.Resource.Mesh] = r.told(snap, e.Resource.Mesh)
	}
	out := make([]Rotation, 0, len(all))
	for _, mesh := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[mesh])
	}
	return out
}

// Rotation is that of one mesh; ErrNoMesh when there is none.
func (r *Rotator) Rotation(mesh string) (Rotation, error) {
	snap := r.a.store.Snapshot()
	if _, ok := snap.Get(meshKey(mesh)); !ok {
		return Rotation{}, ErrNoMesh
	}
	return r.told(snap, mesh), nil
}

func (r *Rotator) told(snap *store.Snapshot, mesh string) Rotation {
	is, err := r.rotation(snap, mesh)
	if err != nil {
		is.Problem = err.Error()
	}
	return is
}

// Begin makes another root for the builtin backend that a mesh uses, and has it trusted. Errors wrap ErrNoMesh, ErrNoMTLS, ErrProvided,
// ErrRotating or what the store gave.
func (r *Rotator) Begin(ctx context.Context, mesh string) error {
	err := r.a.converge(ctx, "another root of mesh "+mesh, func(snap *store.Snapshot) ([]store.Op, error) {
		backend, err := backendOf(snap, mesh)
		switch {
		case err != nil:
			return nil, err
		case backend == nil:
			return nil, ErrNoMTLS
		case backend.GetType() != "builtin":
			return nil, fmt.Errorf("%w by backend %s; apply the mesh with another backend in mtls.enabledBackend", ErrProvided, backend.GetName())
		}
		roots, err := r.a.bundled(snap, mesh)
		if err != nil {
			return nil, err
		}
		if len(roots) > 1 {
			return nil, ErrRotating
		}
		return r.a.another(snap, mesh, backend)
	})
	if err != nil {
		return fmt.Errorf("ca: rotate root of mesh %s: %w", mesh, err)
	}
	return nil
}

// another makes the root that follows a builtin backend's newest one.
func (a *Authorities) another(snap *store.Snapshot, mesh string, backend *meshv1.Mesh_CertificateAuthority) ([]store.Op, error) {
	_, number := newest(snap, mesh, backend.GetName())
	root, op, err := a.makeRoot(snap, mesh, backend, number+1)
	if err != nil {
		return nil, err
	}
	joined, err := a.join(snap, mesh, root.Root())
	return append([]store.Op{op}, joined...), err
}

// GoOnWithout has the rotation that is under way wait for some zones no longer. Certificates of theirs that are not below the next root
// are refused once it has ended, until they have new ones. Errors wrap ErrNoMesh, ErrNotRotating, ErrNoZone or what the store gave.
func (r *Rotator) GoOnWithout(ctx context.Context, mesh string, zones []string) error {
	err := r.a.converge(ctx, "rotation of the root of mesh "+mesh+" goes on without "+strings.Join(zones, ", "), func(snap *store.Snapshot) ([]store.Op, error) {
		if _, ok := snap.Get(meshKey(mesh)); !ok {
			return nil, ErrNoMesh
		}
		roots, err := r.a.bundled(snap, mesh)
		if err != nil {
			return nil, err
		}
		entry, ok := snap.Get(BundleKey(mesh))
		if !ok || len(roots) < 2 {
			return nil, ErrNotRotating
		}
		without := slices.Clone(resource.Spec[*federationv1.TrustBundle](entry.Resource).GetWithout())
		for _, z := range zones {
			if _, ok := snap.Get(resource.Key{Kind: "Zone", Name: z}); !ok {
				return nil, fmt.Errorf("%w: %s", ErrNoZone, z)
			}
			without = append(without, z)
		}
		slices.Sort(without)
		return r.a.rebundle(snap, mesh, roots, slices.Compact(without)), nil
	})
	if err != nil {
		return fmt.Errorf("ca: rotation of the root of mesh %s: %w", mesh, err)
	}
	return nil
}
