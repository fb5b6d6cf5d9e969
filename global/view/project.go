package view

import (
	"bytes"
	"maps"
	"slices"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

const (
	kindMesh         = "Mesh"
	kindZone         = "Zone"
	kindSecret       = "Secret"
	kindIngress      = "ZoneIngress"
	kindAvailability = "ServiceAvailability"
)

// filtered reports whether zones get only some resources of a kind.
func filtered(kind string) bool {
	return kind == kindSecret || kind == kindIngress || kind == kindAvailability
}

// projection is the store's state as far as it goes to zones, with the indexes by which one resource decides over another. Each
// index maps back what a resource said when it was last looked at, so that a change undoes exactly that.
type projection struct {
	set *kds.Set
	log *zap.Logger

	// named has the Secrets that a policy names, authority those that hold a Mesh's root.
	named, authority references
	// zoneOf has the zone of each offered resource, with the resource's hash; offered is the inverse.
	zoneOf  map[resource.Key]offering
	offered map[string]*offers
}

type offering struct {
	zone string
	hash resource.Hash
}

// offers are what one zone offers, with their digests.
type offers struct {
	keys    map[resource.Key]bool
	digests map[string]resource.Digest // by the replica that reports
	list    []resource.Key             // keys in order, once it was asked for; nil after a change
}

// references know, per Secret, the resources that name it.
type references struct {
	by map[resource.Key][]resource.Key
	of map[resource.Key]map[resource.Key]bool
}

func newReferences() references {
	return references{by: map[resource.Key][]resource.Key{}, of: map[resource.Key]map[resource.Key]bool{}}
}

// set notes what a resource names now, and gives what it named before and names now.
func (r references) set(from resource.Key, to []resource.Key) (touched []resource.Key) {
	touched = append(slices.Clone(r.by[from]), to...)
	for _, k := range r.by[from] {
		if delete(r.of[k], from); len(r.of[k]) == 0 {
			delete(r.of, k)
		}
	}
	delete(r.by, from)
	if len(to) > 0 {
		r.by[from] = to
	}
	for _, k := range to {
		if r.of[k] == nil {
			r.of[k] = map[resource.Key]bool{}
		}
		r.of[k][from] = true
	}
	return touched
}

func project(snap *store.Snapshot, log *zap.Logger) *projection {
	p := &projection{
		set: kds.NewSet(), log: log, named: newReferences(), authority: newReferences(), zoneOf: map[resource.Key]offering{},
		offered: map[string]*offers{},
	}
	var keys []resource.Key
	for _, k := range resource.Kinds() {
		if k.ToZones {
			for e := range snap.Each(k.Name, "") {
				keys = append(keys, e.Resource.Key)
			}
		}
	}
	p.apply(snap, keys)
	return p
}

// apply looks again at keys and at all whose presence depends on them. It gives those that differ for a zone.
func (p *projection) apply(snap *store.Snapshot, keys []resource.Key) (changed []resource.Key) {
	look := make(map[resource.Key]bool, len(keys))
	for _, key := range keys {
		look[key] = true
		e, ok := snap.Get(key)
		switch key.Kind {
		case kindMesh:
			var to []resource.Key
			if ok {
				to = authorities(e.Resource)
			}
			mark(look, p.authority.set(key, to))
		case kindIngress, kindAvailability:
			p.withdraw(key)
			if ok {
				p.offer(key, offering{zoneOf(e.Resource), e.Hash})
			}
		case kindSecret:
		default:
			var to []resource.Key
			if kind, known := resource.Lookup(key.Kind); ok && known && kind.Writer == resource.WriterUser {
				to = secrets(e.Resource)
			}
			mark(look, p.named.set(key, to))
		}
	}
	// After all offers are known: a Zone decides over those of before and of now.
	for _, key := range keys {
		if o := p.offered[key.Name]; key.Kind == kindZone && o != nil {
			for k := range o.keys {
				look[k] = true
			}
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(look), resource.Key.Compare) {
		if p.refresh(snap, key) {
			changed = append(changed, key)
		}
	}
	return changed
}

func mark(look map[resource.Key]bool, keys []resource.Key) {
	for _, k := range keys {
		look[k] = true
	}
}

func (p *projection) withdraw(key resource.Key) {
	old, had := p.zoneOf[key]
	if !had {
		return
	}
	delete(p.zoneOf, key)
	o := p.offered[old.zone]
	delete(o.keys, key)
	o.fold(key, func(d *resource.Digest) { d.Remove(old.hash) })
	o.list = nil
	if len(o.keys) == 0 {
		delete(p.offered, old.zone)
	}
}

func (p *projection) offer(key resource.Key, by offering) {
	o := p.offered[by.zone]
	if o == nil {
		o = &offers{keys: map[resource.Key]bool{}, digests: map[string]resource.Digest{}}
		p.offered[by.zone] = o
	}
	o.keys[key], p.zoneOf[key] = true, by
	o.fold(key, func(d *resource.Digest) { d.Add(by.hash) })
	o.list = nil
}

// fold changes the digest that a key is part of.
func (o *offers) fold(key resource.Key, by func(*resource.Digest)) {
	_, replica := kds.SplitOfferName(key.Name)
	d := o.digests[replica]
	by(&d)
	if o.digests[replica] = d; d.Count() == 0 {
		delete(o.digests, replica)
	}
}

// offers lists, ordered, what a zone offers. Read-only.
func (p *projection) offers(zone string) []resource.Key {
	o := p.offered[zone]
	if o == nil {
		return nil
	}
	if o.list == nil {
		o.list = slices.SortedFunc(maps.Keys(o.keys), resource.Key.Compare)
	}
	return o.list
}

// refresh makes the set right about one key and reports whether that changed it.
func (p *projection) refresh(snap *store.Snapshot, key resource.Key) bool {
	e, ok := snap.Get(key)
	if !ok || !p.goes(snap, e) {
		return p.set.Delete(key)
	}
	if old, had := p.set.Get(key); had && bytes.Equal(old.GetHash(), e.Hash[:]) {
		return false
	}
	record, err := recordOf(e.Resource)
	if err == nil {
		err = p.set.Put(record)
	}
	if err != nil {
		// It came out of the store's bytes, so this is a fault of the software; the zones keep what they have of it.
		p.log.Error("resource can't be sent to zones", zap.String("kind", key.Kind), zap.String("mesh", key.Mesh),
			zap.String("name", key.Name), zap.Error(err))
		return false
	}
	return true
}

func recordOf(r *resource.Resource) (*kdsv1.Record, error) {
	payload, err := resource.Marshal(r)
	if err != nil {
		return nil, err
	}
	return kds.NewRecord(r.Key, payload), nil
}

// goes reports whether zones get a resource.
func (p *projection) goes(snap *store.Snapshot, e store.Entry) bool {
	key := e.Resource.Key
	kind, ok := resource.Lookup(key.Kind)
	switch {
	case !ok || !kind.ToZones:
		return false
	case key.Kind == kindSecret:
		// A root's key never leaves global, even if a listener names it by mistake.
		return len(p.named.of[key]) > 0 && len(p.authority.of[key]) == 0
	case key.Kind == kindIngress || key.Kind == kindAvailability:
		return Enabled(snap, zoneOf(e.Resource))
	}
	return true
}

// Enabled reports whether there is a Zone of a name that is not disabled.
func Enabled(snap *store.Snapshot, zone string) bool {
	e, ok := snap.Get(resource.Key{Kind: kindZone, Name: zone})
	if !ok {
		return false
	}
	z, ok := e.Resource.Spec.(*meshv1.Zone)
	return ok && (z.Enabled == nil || z.GetEnabled())
}

// zoneOf is the zone that offers a resource.
func zoneOf(r *resource.Resource) string {
	switch s := r.Spec.(type) {
	case *meshv1.ZoneIngress:
		return s.GetZone()
	case *federationv1.ServiceAvailability:
		return s.GetZone()
	}
	return ""
}

// secrets are the Secrets that a policy refers to.
func secrets(r *resource.Resource) (out []resource.Key) {
	for _, name := range resource.Secrets(r) {
		out = append(out, resource.Key{Kind: kindSecret, Mesh: r.Mesh, Name: name})
	}
	return out
}

// authorities are the Secrets that a Mesh's certificate authorities name, whether in use or not.
func authorities(r *resource.Resource) (out []resource.Key) {
	m, ok := r.Spec.(*meshv1.Mesh)
	if !ok {
		return nil
	}
	for _, b := range m.GetMtls().GetBackends() {
		for _, ref := range []*meshv1.Mesh_SecretReference{b.GetConf().GetCert(), b.GetConf().GetKey()} {
			if ref.GetSecret() != "" {
				out = append(out, resource.Key{Kind: kindSecret, Mesh: r.Name, Name: ref.GetSecret()})
			}
		}
	}
	return out
}
