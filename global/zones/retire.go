package zones

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
)

// retireAfter is how long what a replica of a zone reported is kept after it went, beside what its other replicas report: its proxies
// had time to go to one of those.
const retireAfter = 30 * time.Second

// ofReplica gives, of what a zone offers, what a replica reported, and what the zone reported when it ran in one.
func ofReplica(keys []resource.Key, replica string) []resource.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k resource.Key) bool {
		_, by := kds.SplitOfferName(k.Name)
		return by != "" && by != replica
	})
}

// retire takes back what replicas reported that went, while another one of their zone is connected. When all have gone, everything
// stays: the zone may only be cut off.
func (r *Registry) retire(ctx context.Context) {
	if r.cfg.Store.Away() {
		return
	}
	for zone, replicas := range r.cfg.Views.Reporters() {
		for _, replica := range replicas {
			if r.retired(zone, replica) {
				r.takeBack(ctx, zone, replica)
			}
		}
	}
}

// retired says whether a replica has been gone for long enough. One that this replica of global never saw counts from when it first
// looked.
func (r *Registry) retired(zone, name string) bool {
	now := r.cfg.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	z := r.zones[zone]
	if z == nil || !slices.ContainsFunc(z.sorted(), (*replica).connected) {
		return false
	}
	if rep := z.replicas[name]; rep != nil {
		return !rep.connected() && now.Sub(rep.since) >= retireAfter
	}
	if z.unseen == nil {
		z.unseen = map[string]time.Time{}
	}
	if z.unseen[name].IsZero() {
		z.unseen[name] = now
	}
	return now.Sub(z.unseen[name]) >= retireAfter
}

// takeBack deletes what a replica reported, under its claim: should it live after all, its stream ends, and the next one reports anew.
func (r *Registry) takeBack(ctx context.Context, zone, replica string) {
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	claim, err := r.cfg.Store.Claim(ctx, claimOf(zone, replica))
	if err == nil {
		keys, snap := r.cfg.Views.Offers(zone)
		var ops []store.Op
		for _, key := range keys {
			if _, by := kds.SplitOfferName(key.Name); by == replica && len(ops) < maxBatch {
				if e, ok := snap.Get(key); ok {
					ops = append(ops, store.Op{Key: key, Delete: true, IfRevision: &e.Revision})
				}
			}
		}
		if len(ops) > 0 {
			_, err = r.cfg.Store.Commit(ctx, store.Change{
				Author: author(zone), Message: "the replica went", Time: r.cfg.Now(), Ops: ops, Claims: []store.Claim{claim}, Internal: true,
			})
		}
		r.release(ctx, claim)
	}
	if err != nil && ctx.Err() == nil {
		r.cfg.Logger.Debug("reports of a replica that went are still stored", zap.String("zone", zone), zap.String("replica", replica), zap.Error(err))
		return
	}
	r.cfg.Logger.Info("reports of a replica that went are taken back", zap.String("zone", zone), zap.String("replica", replica))
	r.mu.Lock()
	defer r.mu.Unlock()
	if z := r.zones[zone]; z != nil {
		delete(z.unseen, replica)
	}
}
