package ca

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki"
)

// Run ensures the authorities of meshes as they change, and forgets those of deleted ones, until ctx ends, and then returns nil. A mesh that fails is tried
// again at every change and after a while, is logged once for each of its revisions, and blocks no other.
func (a *Authorities) Run(ctx context.Context) error {
	failed := map[string]bool{}
	// logged is the revision of each mesh at which its failure was told.
	logged := map[string]int64{}
	ends := map[string]*rootEnd{}
	var seen int64
	for first := true; ctx.Err() == nil; first = false {
		snap := a.store.Snapshot()
		due := maps.Clone(failed)
		keys, ok := snap.Since(seen)
		if ok && !first {
			for _, k := range keys {
				switch k.Kind {
				case "Mesh":
					due[k.Name] = true
				case "RemovedZone":
					for e := range snap.Each("Mesh", "") {
						due[e.Resource.Name] = true
					}
				case "Secret", "CertificateAuthority", "TrustBundle":
					due[k.Mesh] = true
				}
			}
		} else {
			for e := range snap.Each("Mesh", "") {
				due[e.Resource.Name] = true
			}
			for _, kind := range kept {
				for e := range snap.Each(kind, "") {
					due[e.Resource.Mesh] = true
				}
			}
		}
		seen = snap.Revision()
		for _, mesh := range slices.Sorted(maps.Keys(due)) {
			entry, exists := snap.Get(meshKey(mesh))
			if !exists {
				delete(failed, mesh)
				delete(logged, mesh)
				if err := a.forget(ctx, mesh); err != nil && ctx.Err() == nil {
					failed[mesh] = true
					a.log.Warn("what was kept for a deleted mesh stays", zap.String("mesh", mesh), zap.Error(err))
				}
				continue
			}
			if err := a.ensureOne(ctx, mesh); err == nil {
				delete(failed, mesh)
				delete(logged, mesh)
			} else if ctx.Err() == nil {
				failed[mesh] = true
				if logged[mesh] != entry.Revision {
					logged[mesh] = entry.Revision
					a.log.Warn("certificate authority of mesh is not ready", zap.String("mesh", mesh),
						zap.Int64("revision", entry.Revision), zap.Error(err))
				}
			}
		}
		a.pause(ctx, snap, len(failed) > 0, a.warnOfEnds(snap, ends))
	}
	return nil
}

// longestPause bounds a timer, which knows nothing of a clock that is set.
const longestPause = time.Hour

// rootEnd is when the end of the root that signs for a mesh is to be told.
type rootEnd struct {
	bundle    int64 // revision
	at, until time.Time
	told      bool
}

// warnOfEnds tells once of each root that signs and is near its end, and gives when the next one will be; zero for none. It keeps in ends, by
// mesh, what it has read.
func (a *Authorities) warnOfEnds(snap *store.Snapshot, ends map[string]*rootEnd) (next time.Time) {
	for e := range snap.Each("TrustBundle", "") {
		mesh := e.Resource.Mesh
		end := ends[mesh]
		if end == nil || end.bundle != e.Revision {
			roots, err := a.trusted(e.Resource)
			if err != nil || len(roots) == 0 {
				continue // EnsureMesh says so
			}
			again := end != nil && end.told && end.until.Equal(roots[0].NotAfter)
			end = &rootEnd{bundle: e.Revision, at: pki.RootThresholds().PrepareAt(pki.WindowOf(roots[0])), until: roots[0].NotAfter, told: again}
			ends[mesh] = end
		}
		switch {
		case end.told:
		case !a.now().Before(end.at):
			end.told = true
			a.log.Warn("root of mesh is near its end; rotate it with `zoneforge ca rotate`, or bring a new one", zap.String("mesh", mesh), zap.Time("until", end.until))
		case next.IsZero() || end.at.Before(next):
			next = end.at
		}
	}
	return next
}

// kept are the kinds that this package keeps for a mesh.
var kept = []string{"CertificateAuthority", "TrustBundle"}

// forget deletes what was kept for a mesh that is gone, so that one of the same name begins with a root of its own.
func (a *Authorities) forget(ctx context.Context, mesh string) error {
	ctx, cancel := context.WithTimeout(ctx, retryAfter)
	defer cancel()
	return a.converge(ctx, "forget mesh "+mesh, func(snap *store.Snapshot) ([]store.Op, error) {
		var ops []store.Op
		if _, ok := snap.Get(meshKey(mesh)); ok {
			return nil, nil
		}
		for _, kind := range kept {
			for e := range snap.Each(kind, mesh) {
				ops = append(ops, store.Op{Key: e.Resource.Key, Delete: true, IfRevision: &e.Revision})
			}
		}
		return ops, nil
	})
}

func (a *Authorities) ensureOne(ctx context.Context, mesh string) error {
	ctx, cancel := context.WithTimeout(ctx, retryAfter)
	defer cancel()
	return a.EnsureMesh(ctx, mesh)
}

// pause returns when there is something to do.
func (a *Authorities) pause(ctx context.Context, snap *store.Snapshot, again bool, ends time.Time) {
	var wait time.Duration
	if !ends.IsZero() {
		wait = min(max(ends.Sub(a.now()), time.Second), longestPause)
	}
	if again {
		wait = retryAfter
	}
	var retry <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		retry = t.C
	}
	select {
	case <-ctx.Done():
	case <-snap.Stale():
	case <-retry:
	}
}
