package zones

import (
	"bytes"
	"time"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Receipt says how far a change has come, in the JSON of the REST API.
type Receipt struct {
	Change   int64 `json:"change"`
	Revision int64 `json:"revision"`
	// Live says that the change is on every proxy of every enabled zone; LiveSince is the latest of the zones' times.
	Live      bool      `json:"live"`
	LiveSince time.Time `json:"liveSince,omitzero"`
	// Complete says that nothing is to be waited for: each enabled zone that is connected has the change live or refuses it. Zones
	// that are not connected follow when they come back, which may be never.
	Complete bool `json:"complete"`
	// Proxies and Acked are sums over the connected zones.
	Proxies    uint64        `json:"proxies"`
	Acked      uint64        `json:"acked"`
	ZonesLive  int           `json:"zonesLive"`
	ZonesTotal int           `json:"zonesTotal"`
	Zones      []ZoneReceipt `json:"zones"`
}

// ZoneReceipt is one enabled zone's part of a receipt.
type ZoneReceipt struct {
	Zone      string `json:"zone"`
	Connected bool   `json:"connected"`
	// Taken says that all its replicas have turned the change into configuration.
	Taken bool `json:"taken"`
	// Live says that all its proxies acknowledged everything up to the change.
	Live      bool      `json:"live"`
	LiveSince time.Time `json:"liveSince,omitzero"`
	// Refused says that it won't be live here: a proxy rejected it, or still rejects what an earlier change brought, or the zone
	// can't use a resource of it.
	Refused  bool       `json:"refused"`
	Proxies  uint64     `json:"proxies"`
	Acked    uint64     `json:"acked"`
	Nacks    []Nack     `json:"nacks"`
	Rejected []Rejected `json:"rejected"`
}

// grace is how long a proxy has to accept, with a change, what it rejected before.
const grace = 3 * time.Second

// Receipt follows a change. Only what the change itself put counts as rejected: a newer version of the same resource has a receipt
// of its own.
func (r *Registry) Receipt(c *store.ShownChange) Receipt {
	put := map[resource.Key]*resource.Resource{}
	for _, k := range c.Keys {
		if k.After != nil {
			put[k.Key] = k.After
		}
	}
	return r.receipt(c.Seq, c.Revision, func(rej *kdsv1.Rejection) bool {
		key, err := kds.KeyFrom(rej.GetKey())
		if err != nil || put[key] == nil {
			return false
		}
		if len(rej.GetHash()) == 0 {
			return true
		}
		b, err := resource.Marshal(put[key])
		if err != nil {
			return true
		}
		h := resource.HashOf(key, b)
		return bytes.Equal(h[:], rej.GetHash())
	})
}

// ReceiptOf follows a revision, of which no contents are known.
func (r *Registry) ReceiptOf(revision int64) Receipt {
	return r.receipt(0, revision, func(*kdsv1.Rejection) bool { return false })
}

func (r *Registry) receipt(seq, revision int64, of func(*kdsv1.Rejection) bool) Receipt {
	snap, now := r.cfg.Store.Snapshot(), r.cfg.Now()
	out := Receipt{Change: seq, Revision: revision, Complete: true}
	r.mu.Lock()
	defer r.mu.Unlock()
	names := r.enabledLocked(snap)
	out.Zones = make([]ZoneReceipt, 0, len(names))
	for _, name := range names {
		z := r.zones[name].receipt(name, snap.Epoch(), uint64(revision), now, of)
		out.Zones = append(out.Zones, z)
		out.ZonesTotal++
		out.Proxies += z.Proxies
		out.Acked += z.Acked
		if z.Live {
			out.ZonesLive++
			if z.LiveSince.After(out.LiveSince) {
				out.LiveSince = z.LiveSince
			}
		}
		if z.Connected && !z.Live && !z.Refused {
			out.Complete = false
		}
	}
	if out.Live = out.ZonesTotal > 0 && out.ZonesLive == out.ZonesTotal; !out.Live {
		out.LiveSince = time.Time{}
	}
	return out
}

// enabled are the zones that a change is to reach, as of a digest over all Zones: that of one revision is almost always that of the
// next.
type enabled struct {
	epoch string
	zones resource.Digest
	names []string
}

// enabledLocked lists them, ordered.
func (r *Registry) enabledLocked(snap *store.Snapshot) []string {
	epoch, digest := snap.Epoch(), snap.Digest(kindZone)
	if r.enabled.names == nil || r.enabled.epoch != epoch || r.enabled.zones != digest {
		r.enabled = enabled{epoch, digest, make([]string, 0, digest.Count())}
		for e := range snap.Each(kindZone, "") {
			if view.Enabled(snap, e.Resource.Name) {
				r.enabled.names = append(r.enabled.names, e.Resource.Name)
			}
		}
	}
	return r.enabled.names
}

// receipt is the zone's part; a nil zone was never seen.
func (z *zone) receipt(name, epoch string, revision uint64, now time.Time, of func(*kdsv1.Rejection) bool) ZoneReceipt {
	out := ZoneReceipt{Zone: name, Nacks: []Nack{}, Rejected: []Rejected{}}
	if z == nil {
		return out
	}
	var rejected []*kdsv1.Rejection
	out.Taken, out.Live = true, true
	for _, rep := range z.sorted() {
		if !rep.connected() {
			continue
		}
		out.Connected = true
		out.Proxies += uint64(rep.status.GetProxies())
		taken := rep.held.Epoch == epoch && rep.held.Revision >= revision && rep.status.GetRevision() >= revision
		since, live := rep.liveSince(revision)
		live = live && rep.held.Epoch == epoch
		out.Taken, out.Live = out.Taken && taken, out.Live && live
		switch {
		case live:
			out.Acked += uint64(rep.status.GetProxies())
			if since.After(out.LiveSince) {
				out.LiveSince = since
			}
		case taken:
			out.Acked += uint64(rep.status.GetAcked())
			least := revision
			if now.Sub(rep.took) >= grace {
				least = 0
			}
			out.Nacks = append(out.Nacks, nacks(rep.status, least)...)
		}
		for _, rej := range rep.allRejected() {
			if of(rej) {
				rejected = append(rejected, rej)
			}
		}
	}
	out.Rejected = listed(rejected)
	out.Refused = len(out.Nacks) > 0 || len(out.Rejected) > 0
	if !out.Connected || out.Refused {
		out.Taken, out.Live, out.LiveSince = out.Taken && out.Connected, false, time.Time{}
	}
	if !out.Live {
		out.LiveSince = time.Time{}
	}
	return out
}
