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
	// covers are the suspect kinds that it mends.
	covers map[string]bool
}

// inventories are what the zone has said it holds, by kind, since the last delta it applied.
type inventories struct {
	kinds map[string]map[resource.Key]resource.Hash
	count int
	// open are kinds of which more parts follow.
	open map[string]bool
}

// advance starts what the state allows, from what the zone holds to the newest view.
func (g *Global) advance(now time.Time) {
	if g.state != Steady || g.view == nil || g.inv.open != nil {
		return
	}
	target := g.view.Position()
	if len(g.suspect) == 0 && g.held.Equal(target) {
		return
	}
	// Another replica of global was ahead: wait until this one has caught up, as a revision never goes backwards.
	if g.held.Epoch == target.Epoch && g.held.Revision > target.Revision {
		return
	}
	if g.failures > 0 && g.nacked.Equal(target) && now.Before(g.retry) {
		return
	}
	d, ask := g.plan(target)
	g.nonce++
	if d == nil {
		g.asked, g.state = g.nonce, Comparing
		g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_InventoryRequest{
			InventoryRequest: &kdsv1.InventoryRequest{Nonce: g.nonce, Kinds: ask},
		}})
		return
	}
	d.nonce, d.position, d.repair, d.covers = g.nonce, target, g.repairing, maps.Clone(g.suspect)
	g.flight, g.state = d, Delivering
	for _, c := range d.chunks(g.cfg.MaxChunk) {
		g.send(&kdsv1.GlobalFrame{Frame: &kdsv1.GlobalFrame_Chunk{Chunk: c}})
	}
}

// plan chooses the cheapest way to target: the log, the exact difference to an inventory, or a snapshot. It gives a delta, or
// the kinds to ask for first.
func (g *Global) plan(target Position) (*delta, []string) {
	if d := g.fromLog(target); d != nil {
		return d, nil
	}
	differ := g.held.differing(target)
	for kind := range g.suspect {
		differ = append(differ, kind)
	}
	slices.Sort(differ)
	differ = slices.Compact(differ)
	if g.held.Digest.Count() == 0 && len(g.suspect) == 0 || g.inv.count > maxInventory {
		d := &delta{snapshot: true}
		g.view.Each("", func(_ resource.Key, r *kdsv1.Record) bool {
			d.upserts = append(d.upserts, r)
			return true
		})
		return d, nil
	}
	var ask []string
	for _, kind := range differ {
		if _, ok := g.inv.kinds[kind]; !ok {
			ask = append(ask, kind)
		}
	}
	if len(ask) > 0 {
		return nil, ask
	}
	d := &delta{}
	for _, kind := range differ {
		has := g.inv.kinds[kind]
		g.view.Each(kind, func(key resource.Key, r *kdsv1.Record) bool {
			if h, ok := has[key]; !ok || !bytes.Equal(h[:], r.GetHash()) {
				d.upserts = append(d.upserts, r)
			}
			return true
		})
		for _, key := range slices.SortedFunc(maps.Keys(has), resource.Key.Compare) {
			if _, ok := g.view.Get(key); !ok {
				d.deletes = append(d.deletes, KeyProto(key))
			}
		}
	}
	return d, nil
}

// fromLog makes the delta of the keys that changed since the zone's revision; nil when the log doesn't reach there, or when a
// kind differs in which nothing changed, so that the zone can't hold what its revision says.
func (g *Global) fromLog(target Position) *delta {
	if len(g.suspect) > 0 || g.held.Epoch != target.Epoch || g.held.Revision == target.Revision {
		return nil
	}
	keys, ok := g.view.Since(g.held.Epoch, g.held.Revision)
	if !ok {
		return nil
	}
	keys = slices.Clone(keys)
	slices.SortFunc(keys, resource.Key.Compare)
	d, changed := &delta{}, map[string]bool{}
	for _, key := range slices.Compact(keys) {
		changed[key.Kind] = true
		if r, ok := g.view.Get(key); ok {
			d.upserts = append(d.upserts, r)
		} else {
			d.deletes = append(d.deletes, KeyProto(key))
		}
	}
	for _, kind := range g.held.differing(target) {
		if !changed[kind] {
			return nil
		}
	}
	return d
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
	for kind := range d.covers {
		delete(g.suspect, kind)
	}
	g.failures, g.repairing, g.inv = 0, len(g.suspect) > 0, inventories{}
	held := g.held
	g.event(GlobalEvent{Confirmed: &held})
	if len(fresh) > 0 {
		g.event(GlobalEvent{Rejected: fresh})
	}
	g.advance(now)
}

// reject brings the rejected records up to date with an acknowledged delta and returns those not known with that hash.
func (g *Global) reject(d *delta, now []*kdsv1.Rejection) (fresh []*kdsv1.Rejection, err error) {
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

// heartbeat compares what the zone holds with what it has confirmed. While something is on its way they may differ.
func (g *Global) heartbeat(h *kdsv1.ZoneHeartbeat, now time.Time) {
	p, err := PositionFrom(h.GetPosition())
	if err != nil {
		g.bad("heartbeat: " + err.Error())
		return
	}
	if g.state != Steady {
		return
	}
	if !p.Equal(g.held) {
		g.distrust(p.differing(g.held))
		g.held = p
	}
	g.advance(now)
}

// distrust notes that the zone differs in kinds from what it had confirmed.
func (g *Global) distrust(kinds []string) {
	for _, kind := range kinds {
		g.suspect[kind] = true
	}
	// What was inventoried earlier belongs to a state that the zone is no longer in.
	g.inv = inventories{}
	g.repairing = true
	g.repairs++
	g.event(GlobalEvent{Repair: kinds})
}

func (g *Global) inventory(i *kdsv1.Inventory, now time.Time) {
	long := func(kind string) bool { return len(kind) > maxKey }
	if len(i.GetKinds())+len(g.suspect)+len(g.inv.open) > 3*maxKinds || len(i.GetKinds()) > maxKinds || slices.ContainsFunc(i.GetKinds(), long) {
		g.bad("inventory: too many kinds, or one with too long a name")
		return
	}
	asked := g.state == Comparing && i.GetNonce() == g.asked
	switch {
	case asked:
	case i.GetNonce() == 0 && g.state == Steady:
		if g.inv.open == nil {
			g.distrust(slices.Sorted(slices.Values(i.GetKinds())))
		}
	case i.GetNonce() == 0:
		// It describes the state before what is on its way: ask again after that.
		for _, kind := range i.GetKinds() {
			g.suspect[kind] = true
			if g.flight != nil {
				delete(g.flight.covers, kind)
			}
		}
		if !g.repairing || g.flight != nil {
			g.repairs++
		}
		g.repairing = true
		return
	default:
		return
	}
	if g.inv.kinds == nil {
		g.inv.kinds = map[string]map[resource.Key]resource.Hash{}
	}
	if g.inv.open == nil {
		g.inv.open = map[string]bool{}
	}
	for _, kind := range i.GetKinds() {
		if !g.inv.open[kind] {
			g.inv.open[kind] = true
			g.inv.kinds[kind] = map[resource.Key]resource.Hash{}
		}
	}
	for _, e := range i.GetEntries() {
		key, err := KeyFrom(e.GetKey())
		if err != nil || len(e.GetHash()) != len(resource.Hash{}) || !g.inv.open[key.Kind] {
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
		g.inv.kinds[key.Kind][key] = resource.Hash(e.GetHash())
	}
	if i.GetMore() {
		return
	}
	for kind := range g.inv.open {
		g.settle(kind)
	}
	g.inv.open = nil
	if asked {
		g.asked, g.state = 0, Steady
	}
	g.advance(now)
}

// settle corrects held in a kind by its inventory.
func (g *Global) settle(kind string) {
	var d resource.Digest
	for _, h := range g.inv.kinds[kind] {
		d.Add(h)
	}
	if g.held.Kinds[kind] == d {
		return
	}
	// held shares its maps with views.
	g.held.Kinds = maps.Clone(g.held.Kinds)
	if g.held.Kinds == nil {
		g.held.Kinds = map[string]resource.Digest{}
	}
	if d.Count() == 0 {
		delete(g.held.Kinds, kind)
	} else {
		g.held.Kinds[kind] = d
	}
	g.held.Digest = sum(g.held.Kinds)
}
