package kds

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// delta is what turns the zone's state into that of position.
type delta struct {
	nonce            uint64
	position         Position
	snapshot, repair bool
	upserts          []*kdsv1.Record
	deletes          []*kdsv1.Key
}

// inventories are what the zone says that it holds of the kinds in which it differs, as far as it has come.
type inventories struct {
	kinds map[string]map[resource.Key]resource.Hash
	count int
}

// advance starts what the state allows, from what the zone holds to the newest view.
func (g *Global) advance(now time.Time) {
	if g.state != Steady || g.view == nil {
		return
	}
	target := g.view.Position()
	if !g.doubt && g.held == target {
		return
	}
	// Another replica of global was ahead: wait until this one has caught up, as a revision never goes backwards.
	if g.held.Epoch == target.Epoch && g.held.Revision > target.Revision {
		return
	}
	if g.failures > 0 && g.nacked == target && now.Before(g.retry) {
		return
	}
	if !g.doubt && g.shared(target) {
		return
	}
	g.compare()
}

// shared delivers what all zones that hold the same are given, made once for all of them: a snapshot to those that hold nothing, else
// what changed since. It reports false when the zone must be compared with the view first.
func (g *Global) shared(target Position) bool {
	at := start{size: g.cfg.MaxChunk}
	switch {
	case g.held.Digest.Count() == 0:
		at.snapshot = true
	case g.held.Epoch != target.Epoch || g.held.Revision == target.Revision:
		return false
	default:
		at.epoch, at.revision = g.held.Epoch, g.held.Revision
	}
	// Where the stream allows it, the nonce is the revision's number, so that the same delta has the same bytes for all zones.
	nonce := max(g.nonce+1, target.Revision)
	fill := func() *made {
		d := &delta{nonce: nonce, position: target, snapshot: at.snapshot}
		if at.snapshot {
			d.fill(g.view)
		} else if !d.fromLog(g.view, at) {
			return nil
		}
		return d.made(at.size)
	}
	var m *made
	if nonce == target.Revision {
		m = g.view.Memo().get(at, fill)
	} else {
		m = fill()
	}
	if m == nil {
		return false
	}
	g.deliver(m)
	return true
}

func (g *Global) deliver(m *made) {
	g.nonce, g.flight, g.state = m.delta.nonce, m.delta, Delivering
	g.out.Frames = append(g.out.Frames, m.frames...)
	g.frames.sent += uint64(len(m.frames))
}

// compare asks the zone in which kinds it differs from the newest view.
func (g *Global) compare() {
	g.nonce++
	g.asked, g.compared, g.inv, g.state = g.nonce, g.view, inventories{}, Comparing
	kinds := map[string]*kdsv1.Digest{}
	for kind, d := range g.view.Kinds() {
		kinds[kind] = digestProto(d)
	}
	g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_InventoryRequest{InventoryRequest: &kdsv1.InventoryRequest{Nonce: g.nonce, Kinds: kinds}}})
}

// fill makes the delta a snapshot of a view.
func (d *delta) fill(v View) {
	v.Each("", func(_ resource.Key, r *kdsv1.Record) bool {
		d.upserts = append(d.upserts, r)
		return true
	})
}

// fromLog makes the delta of the keys that changed since the zone's revision, and reports whether the log reaches there. Should the
// zone not hold what its revision says, it finds so by the digest of the result.
func (d *delta) fromLog(v View, from start) bool {
	keys, ok := v.Since(from.epoch, from.revision)
	if !ok {
		return false
	}
	keys = slices.Clone(keys)
	slices.SortFunc(keys, resource.Key.Compare)
	for _, key := range slices.Compact(keys) {
		if r, ok := v.Get(key); ok {
			d.upserts = append(d.upserts, r)
		} else {
			d.deletes = append(d.deletes, KeyProto(key))
		}
	}
	return true
}

// difference makes the delta of what an inventory lacks and has too much.
func (d *delta) difference(v View, inv inventories) {
	for _, kind := range slices.Sorted(maps.Keys(inv.kinds)) {
		has := inv.kinds[kind]
		v.Each(kind, func(key resource.Key, r *kdsv1.Record) bool {
			if h, ok := has[key]; !ok || !bytes.Equal(h[:], r.GetHash()) {
				d.upserts = append(d.upserts, r)
			}
			return true
		})
		for _, key := range slices.SortedFunc(maps.Keys(has), resource.Key.Compare) {
			if _, ok := v.Get(key); !ok {
				d.deletes = append(d.deletes, KeyProto(key))
			}
		}
	}
}

// chunks cuts the delta into chunks of at most size bytes; a record that is larger travels alone.
func (d *delta) chunks(size int) []*kdsv1.Chunk {
	// Tag and length of a member, and the chunk's own scalar fields.
	const member, scalars = 6, 24
	cur := &kdsv1.Chunk{Nonce: d.nonce, Snapshot: d.snapshot, Repair: d.repair}
	out, used := []*kdsv1.Chunk{cur}, scalars
	room := func(n int) {
		if used+n > size && used > scalars {
			cur = &kdsv1.Chunk{Nonce: d.nonce, Index: uint32(len(out)), Repair: d.repair}
			out, used = append(out, cur), scalars
		}
		used += n
	}
	for _, k := range d.deletes {
		room(proto.Size(k) + member)
		cur.Deletes = append(cur.Deletes, k)
	}
	for _, r := range d.upserts {
		room(proto.Size(r) + member)
		cur.Upserts = append(cur.Upserts, r)
	}
	p := d.position.Proto()
	room(proto.Size(p) + member)
	cur.Position, cur.Last = p, true
	return out
}

func (g *Global) ack(a *kdsv1.Ack, now time.Time) {
	d := g.flight
	if d == nil || a.GetNonce() != d.nonce {
		return // of a delta that is no longer waited for
	}
	if a.GetRevision() != d.position.Revision {
		g.bad(fmt.Sprintf("ack of nonce %d says revision %d, sent was %d", d.nonce, a.GetRevision(), d.position.Revision))
		return
	}
	fresh, err := g.reject(d, a.GetRejected())
	if err != nil {
		g.bad(err.Error())
		return
	}
	g.held, g.flight, g.state = d.position, nil, Steady
	g.failures, g.repairing = 0, g.doubt
	held := g.held
	g.event(GlobalEvent{Confirmed: &held})
	if len(fresh) > 0 {
		g.event(GlobalEvent{Rejected: fresh})
	}
	g.advance(now)
}

// reject brings the rejected records up to date with an acknowledged delta and returns those not known with that hash.
func (g *Global) reject(d *delta, now []*kdsv1.Rejection) (fresh []*kdsv1.Rejection, err error) {
	if len(g.rejected)+len(now) == 0 {
		return nil, nil
	}
	was := maps.Clone(g.rejected)
	if d.snapshot {
		clear(g.rejected)
	}
	for _, r := range d.upserts {
		key, _ := KeyFrom(r.GetKey())
		delete(g.rejected, key)
	}
	for _, k := range d.deletes {
		key, _ := KeyFrom(k)
		delete(g.rejected, key)
	}
	for _, r := range now {
		key, err := KeyFrom(r.GetKey())
		if err != nil {
			return nil, fmt.Errorf("rejection: %w", err)
		}
		if old, ok := was[key]; !ok || !bytes.Equal(old.GetHash(), r.GetHash()) {
			fresh = append(fresh, r)
		}
		g.rejected[key] = r
	}
	return fresh, nil
}

func (g *Global) nack(n *kdsv1.Nack, now time.Time) {
	d := g.flight
	if d == nil || n.GetNonce() != d.nonce {
		return
	}
	wait := g.cfg.MaxBackoff
	if g.failures < 16 {
		wait = min(wait, g.cfg.MinBackoff<<g.failures)
	}
	g.failures++
	g.nacked, g.retry = d.position, now.Add(wait)
	g.flight, g.state = nil, Steady
	g.event(GlobalEvent{Nacked: &Nacked{Revision: d.position.Revision, Reason: n.GetReason(), Retry: g.retry}})
	g.advance(now)
}

// heartbeat compares what the zone holds with what it has confirmed.
func (g *Global) heartbeat(h *kdsv1.ZoneHeartbeat, now time.Time) {
	p, err := PositionFrom(h.GetPosition())
	if err != nil {
		g.bad("heartbeat: " + err.Error())
		return
	}
	if err := g.frames.check(h.GetFrames()); err != nil {
		g.close(fmt.Errorf("zone %s: %w", g.cfg.Zone, err))
		return
	}
	// While a delta is on its way this was sent before it was applied, as frames come in order.
	if g.state != Steady && g.state != Delivering {
		return
	}
	if p != g.held {
		if !g.repairing {
			g.repairs++
		}
		g.held, g.doubt, g.repairing = p, true, true
	}
	g.advance(now)
}

// inventory takes what the zone holds of the kinds in which it differs from the view that it was compared with.
func (g *Global) inventory(i *kdsv1.Inventory, now time.Time) {
	long := func(kind string) bool { return len(kind) > maxKey }
	if len(i.GetKinds()) > maxKinds || slices.ContainsFunc(i.GetKinds(), long) {
		g.bad("inventory: too many kinds, or one with too long a name")
		return
	}
	if g.state != Comparing || i.GetNonce() != g.asked {
		return
	}
	if g.inv.kinds == nil {
		g.inv.kinds = make(map[string]map[resource.Key]resource.Hash, len(i.GetKinds()))
		for _, kind := range i.GetKinds() {
			g.inv.kinds[kind] = map[resource.Key]resource.Hash{}
		}
	}
	for _, e := range i.GetEntries() {
		key, err := KeyFrom(e.GetKey())
		has := g.inv.kinds[key.Kind]
		if err != nil || len(e.GetHash()) != len(resource.Hash{}) || has == nil {
			g.bad(fmt.Sprintf("inventory: entry %.200s is malformed or of a kind that is not listed", key))
			return
		}
		if len(key.Kind)+len(key.Mesh)+len(key.Name) > maxKey {
			g.bad(fmt.Sprintf("inventory: a key of kind %.64s has more than %d bytes", key.Kind, maxKey))
			return
		}
		if g.inv.count++; g.inv.count > maxInventory {
			break
		}
		has[key] = resource.Hash(e.GetHash())
	}
	if i.GetMore() {
		return
	}
	v, inv := g.compared, g.inv
	g.asked, g.compared, g.inv, g.state = 0, nil, inventories{}, Steady
	if g.doubt {
		g.event(GlobalEvent{Repair: slices.Sorted(maps.Keys(inv.kinds))})
	}
	if at := v.Position(); at.Epoch != g.view.Position().Epoch {
		// Restored meanwhile: what was compared is gone.
		g.advance(now)
		return
	}
	d := &delta{nonce: g.nonce + 1, position: v.Position(), repair: g.doubt, snapshot: inv.count > maxInventory}
	if d.snapshot {
		d.fill(v)
	} else {
		d.difference(v, inv)
	}
	g.doubt = false
	g.deliver(d.made(g.cfg.MaxChunk))
}
