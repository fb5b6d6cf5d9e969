package kds

import (
	"maps"
	"slices"

	"github.com/google/btree"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Set is an ordered set of records with its digests, kept by one addition or subtraction per change.
type Set struct {
	tree  *btree.BTreeG[entry]
	kinds map[string]resource.Digest
	total resource.Digest
	// last is the newest change; it is another for each of them, and shared by clones until they change.
	last *edit
	// bytes are not fewer than those of all records.
	bytes int
}

// edit is one change of a set. Those before it are kept for Diff, maxEdits at most.
type edit struct {
	key    resource.Key
	before *edit
	number int
}

// maxEdits is how many changes apart two clones are found to differ without a look at all of their records.
const maxEdits = 512

func (s *Set) edited(key resource.Key) {
	next := &edit{key: key}
	if s.last != nil && s.last.number < maxEdits {
		next.before, next.number = s.last, s.last.number+1
	}
	s.last = next
}

type entry struct {
	key    resource.Key
	hash   resource.Hash
	record *kdsv1.Record
}

// most is no less than the size of the encoded record.
func (e entry) most() int {
	return len(e.record.GetPayload()) + len(e.record.GetHash()) + len(e.key.Kind) + len(e.key.Mesh) + len(e.key.Name) + 64
}

// NewSet makes an empty set.
func NewSet() *Set {
	less := func(a, b entry) bool { return a.key.Compare(b.key) < 0 }
	return &Set{tree: btree.NewG(16, less), kinds: map[string]resource.Digest{}, last: &edit{}}
}

// Put adds or replaces a record, which must not be changed afterwards. A record without key, or whose hash is not that of its
// bytes, is refused with an error that names it.
func (s *Set) Put(r *kdsv1.Record) error {
	key, hash, err := check(r)
	if err != nil {
		return err
	}
	s.put(entry{key, hash, r})
	return nil
}

func (s *Set) put(e entry) {
	old, had := s.tree.ReplaceOrInsert(e)
	d := s.kinds[e.key.Kind]
	if had {
		d.Remove(old.hash)
		s.total.Remove(old.hash)
		s.bytes -= old.most()
	}
	d.Add(e.hash)
	s.total.Add(e.hash)
	s.kinds[e.key.Kind] = d
	s.bytes += e.most()
	s.edited(e.key)
}

// Delete removes a record and reports whether there was one.
func (s *Set) Delete(key resource.Key) bool {
	old, had := s.tree.Delete(entry{key: key})
	if !had {
		return false
	}
	d := s.kinds[key.Kind]
	d.Remove(old.hash)
	s.total.Remove(old.hash)
	s.bytes -= old.most()
	s.edited(key)
	if d.Count() == 0 {
		delete(s.kinds, key.Kind)
	} else {
		s.kinds[key.Kind] = d
	}
	return true
}

// Get finds a record.
func (s *Set) Get(key resource.Key) (*kdsv1.Record, bool) {
	e, ok := s.tree.Get(entry{key: key})
	return e.record, ok
}

// damaged hashes records again, from a key on and until their bytes are most or more, and lists those that are no longer what they were
// when they came. next is where to go on; the empty key after the last.
func (s *Set) damaged(from resource.Key, most int) (keys []resource.Key, next resource.Key) {
	s.tree.AscendGreaterOrEqual(entry{key: from}, func(e entry) bool {
		if most <= 0 {
			next = e.key
			return false
		}
		most -= len(e.record.GetPayload())
		if resource.HashOf(e.key, e.record.GetPayload()) != e.hash {
			keys = append(keys, e.key)
		}
		return true
	})
	return keys, next
}

// Len is the number of records.
func (s *Set) Len() int { return s.tree.Len() }

// Digest is of all records.
func (s *Set) Digest() resource.Digest { return s.total }

// Each calls fn for the records of a kind ("" for all), ordered by key, until it returns false. fn must not change the set.
func (s *Set) Each(kind string, fn func(resource.Key, *kdsv1.Record) bool) {
	s.each(kind, func(e entry) bool { return fn(e.key, e.record) })
}

func (s *Set) each(kind string, fn func(entry) bool) {
	s.tree.AscendGreaterOrEqual(entry{key: resource.Key{Kind: kind}}, func(e entry) bool {
		return (kind == "" || e.key.Kind == kind) && fn(e)
	})
}

// Clone makes a set that changes independently, in constant time: both copy what they change later.
func (s *Set) Clone() *Set {
	return &Set{tree: s.tree.Clone(), kinds: maps.Clone(s.kinds), total: s.total, last: s.last, bytes: s.bytes}
}

// Kinds has the digest of each kind of which there are records.
func (s *Set) Kinds() map[string]resource.Digest { return maps.Clone(s.kinds) }

// Position is that of the set's records at a revision.
func (s *Set) Position(epoch string, revision uint64) Position {
	return Position{Epoch: epoch, Revision: revision, Digest: s.total}
}

// since lists, ordered and each once, the keys of which the set may hold another record than one that it is a clone of did; false when
// that is not known.
func (s *Set) since(from *Set) (keys []resource.Key, known bool) {
	if s == nil || from == nil {
		return nil, false
	}
	at := s.last
	for ; at != nil && at != from.last; at = at.before {
		keys = append(keys, at.key)
	}
	slices.SortFunc(keys, resource.Key.Compare)
	return slices.Compact(keys), at != nil
}

// Diff lists, ordered by key, what turns from into to. A nil set is empty. Where to is a clone of from that changed little, no more is looked
// at than what did.
func Diff(from, to *Set) (upserts []*kdsv1.Record, deletes []*kdsv1.Key) {
	if keys, known := to.since(from); known {
		for _, key := range keys {
			old, had := from.tree.Get(entry{key: key})
			switch now, has := to.tree.Get(entry{key: key}); {
			case has && !(had && old.hash == now.hash):
				upserts = append(upserts, now.record)
			case had && !has:
				deletes = append(deletes, KeyProto(key))
			}
		}
		return upserts, deletes
	}
	if to != nil {
		to.each("", func(e entry) bool {
			if from != nil {
				if old, ok := from.tree.Get(e); ok && old.hash == e.hash {
					return true
				}
			}
			upserts = append(upserts, e.record)
			return true
		})
	}
	if from != nil {
		from.each("", func(e entry) bool {
			if to == nil || !to.tree.Has(e) {
				deletes = append(deletes, KeyProto(e.key))
			}
			return true
		})
	}
	return upserts, deletes
}
