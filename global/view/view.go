// Package view owns what zones should hold: it turns snapshots of the store into views, at a cost that is proportional to what
// changed, and knows which of the store's resources go to zones.
//
// It never writes to the store, never talks to a zone and starts no goroutine: a view is brought up to date by whoever asks
// for one.
package view

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Source gives the newest state; *store.Store is one. Snapshots of one epoch come in order.
type Source interface {
	Snapshot() *store.Snapshot
}

// The log's bounds; a zone that is further behind compares digests.
const (
	maxLogEntries = 1024
	maxLogKeys    = 65536
)

// Views gives each zone its view. It is safe for concurrent use.
type Views struct {
	source Source
	log    *zap.Logger

	// cur is what now was when it was last brought up to date. It is stored with mu held, and read without, as a thousand streams ask
	// for a newer view at the same time.
	cur atomic.Pointer[View]

	mu  sync.Mutex
	now *projection // follows the source; guarded by mu
	// skewed are kinds whose digest differs from the store's even when projected anew, as their records were written in the
	// bytes of another version: comparing them finds nothing. Guarded by mu.
	skewed map[string]bool
	stats  Stats // guarded by mu
}

// Stats count what was done since New.
type Stats struct {
	// Rebuilds are projections from scratch, the first included; all others cost what changed.
	Rebuilds uint64
	// Mismatches are projections that differed from the store and were made anew.
	Mismatches uint64
}

// New makes the views of a source; log may be nil.
func New(source Source, log *zap.Logger) *Views {
	if log == nil {
		log = zap.NewNop()
	}
	return &Views{source: source, log: log, skewed: map[string]bool{}}
}

// View is what the zone should hold now; stale closes when there may be a newer one.
func (v *Views) View(zone string) (kds.View, <-chan struct{}) {
	cur := v.newest()
	return v.view(zone, cur), cur.snap.Stale()
}

// newest is the view of the source's newest state.
func (v *Views) newest() *View {
	if cur := v.cur.Load(); cur != nil && cur.snap == v.source.Snapshot() {
		return cur
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.update()
}

// view is the seam for what applies to some zones only: overlays of a change that is rolled out zone by zone are laid over
// the stable state here. As yet all zones share it.
func (v *Views) view(_ string, stable *View) *View { return stable }

// Stable is the view without what applies to some zones only.
func (v *Views) Stable() *View { return v.newest() }

// Offers lists, ordered, the keys of what a zone offers to others (ZoneIngress, ServiceAvailability), whether or not the
// zone is enabled, with the snapshot in which they are. Read-only.
func (v *Views) Offers(zone string) ([]resource.Key, *store.Snapshot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	cur := v.update()
	return v.now.offers(zone), cur.snap
}

// Offered is the digest of what one replica of a zone offers, and of what the zone offered when it ran in one.
func (v *Views) Offered(zone, replica string) resource.Digest {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.update()
	if o := v.now.offered[zone]; o != nil {
		d := o.digests[""]
		if replica != "" {
			d.Merge(o.digests[replica])
		}
		return d
	}
	return resource.Digest{}
}

// Reporters lists, ordered, the replicas that a zone's offers come from, by name, by zone; not those of zones that run in one.
func (v *Views) Reporters() map[string][]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.update()
	out := map[string][]string{}
	for zone, o := range v.now.offered {
		for _, replica := range slices.Sorted(maps.Keys(o.digests)) {
			if replica != "" {
				out[zone] = append(out[zone], replica)
			}
		}
	}
	return out
}

// Naming lists, ordered, the policies that name a Secret, for those who must look at them when it changes.
func (v *Views) Naming(secret resource.Key) []resource.Key {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.update()
	return slices.SortedFunc(maps.Keys(v.now.named.of[secret]), resource.Key.Compare)
}

// Stats are the counts so far.
func (v *Views) Stats() Stats {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.stats
}

// update brings cur up to the source's snapshot and gives it.
func (v *Views) update() *View {
	snap, cur := v.source.Snapshot(), v.cur.Load()
	if cur != nil && snap == cur.snap {
		return cur
	}
	if cur == nil || snap.Epoch() != cur.snap.Epoch() {
		v.rebuild(snap)
		return v.publish(snap, nil)
	}
	keys, ok := snap.Since(cur.snap.Revision())
	if !ok || snap.Revision() == cur.snap.Revision() {
		v.rebuild(snap)
		return v.publish(snap, v.differing(cur))
	}
	changed := v.now.apply(snap, keys)
	if kind := v.mismatch(snap); kind != "" {
		v.stats.Mismatches++
		v.log.Warn("view differs from the store and is made anew", zap.String("kind", kind), zap.Int64("revision", snap.Revision()))
		v.rebuild(snap)
		changed = v.differing(cur)
		for kind = v.mismatch(snap); kind != ""; kind = v.mismatch(snap) {
			v.skewed[kind] = true
		}
	}
	return v.publish(snap, changed)
}

func (v *Views) rebuild(snap *store.Snapshot) {
	v.stats.Rebuilds++
	clear(v.skewed)
	v.now = project(snap, v.log)
}

// mismatch compares the kinds that go to zones whole with the store's own digests, which costs one comparison a kind.
func (v *Views) mismatch(snap *store.Snapshot) string {
	have := v.now.set.Kinds()
	for _, k := range resource.Kinds() {
		if k.ToZones && !filtered(k.Name) && !v.skewed[k.Name] && have[k.Name] != snap.Digest(k.Name) {
			return k.Name
		}
	}
	return ""
}

// differing lists the keys in which a rebuilt projection differs from the view before.
func (v *Views) differing(before *View) []resource.Key {
	upserts, deletes := kds.Diff(before.set, v.now.set)
	keys := make([]resource.Key, 0, len(upserts)+len(deletes))
	for _, r := range upserts {
		keys = append(keys, keyOf(r.GetKey()))
	}
	for _, k := range deletes {
		keys = append(keys, keyOf(k))
	}
	return keys
}

func keyOf(k *kdsv1.Key) resource.Key {
	return resource.Key{Kind: k.GetKind(), Mesh: k.GetMesh(), Name: k.GetName()}
}

// publish makes cur of what now is; changed are the keys that differ from the view before.
func (v *Views) publish(snap *store.Snapshot, changed []resource.Key) *View {
	next, cur := &View{snap: snap, set: v.now.set.Clone(), memo: &kds.Memo{}}, v.cur.Load()
	next.at, next.kinds = next.set.Position(snap.Epoch(), uint64(snap.Revision())), next.set.Kinds()
	if cur != nil && cur.snap.Epoch() == snap.Epoch() {
		next.log = extend(cur.log, logEntry{from: cur.at.Revision, to: next.at.Revision, keys: changed})
	}
	v.cur.Store(next)
	return next
}

// View is one state. It is immutable and safe for concurrent use.
type View struct {
	snap  *store.Snapshot
	set   *kds.Set
	at    kds.Position
	kinds map[string]resource.Digest
	memo  *kds.Memo
	log   []logEntry
}

// logEntry says what differs between two revisions.
type logEntry struct {
	from, to uint64
	keys     []resource.Key
}

// extend appends within the log's bounds. It shares what is there, as only the newest view is followed by another, and older ones see
// no further than their own end.
func extend(log []logEntry, e logEntry) []logEntry {
	out := append(log, e)
	total := 0
	for i := len(out) - 1; i >= 0; i-- {
		total += len(out[i].keys)
		if len(out)-i > maxLogEntries || total > maxLogKeys {
			return out[i+1:]
		}
	}
	return out
}

// Position is of this view. Read-only.
func (w *View) Position() kds.Position { return w.at }

// Kinds has the digest of each kind of which there are records. Read-only.
func (w *View) Kinds() map[string]resource.Digest { return w.kinds }

// Memo keeps the deltas that are made to this view.
func (w *View) Memo() *kds.Memo { return w.memo }

// Since lists the keys that changed or went after a revision; ok is false when the log doesn't reach there.
func (w *View) Since(epoch string, revision uint64) (keys []resource.Key, ok bool) {
	switch {
	case epoch != w.at.Epoch || revision > w.at.Revision:
		return nil, false
	case revision == w.at.Revision:
		return nil, true
	case len(w.log) == 0 || w.log[0].from > revision:
		return nil, false
	}
	for i := len(w.log) - 1; i >= 0 && w.log[i].to > revision; i-- {
		keys = append(keys, w.log[i].keys...)
	}
	return keys, true
}

// Get finds a record.
func (w *View) Get(key resource.Key) (*kdsv1.Record, bool) { return w.set.Get(key) }

// Each calls fn for the records of a kind ("" for all), ordered by key, until it returns false.
func (w *View) Each(kind string, fn func(resource.Key, *kdsv1.Record) bool) { w.set.Each(kind, fn) }

// Snapshot is the state of the store that this is a view of.
func (w *View) Snapshot() *store.Snapshot { return w.snap }
