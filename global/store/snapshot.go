package store

import (
	"iter"
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/zoneforge/zoneforge/resource"
)

// Entry is one resource in a snapshot.
type Entry struct {
	Resource *resource.Resource
	// Revision of the commit that wrote it.
	Revision int64
	// Hash is resource.HashOf of the key and the canonical bytes.
	Hash resource.Hash

	stored resource.Hash // over the bytes in etcd
}

// Snapshot is the whole state at one revision. It is immutable and safe for concurrent use.
type Snapshot struct {
	revision  int64
	epoch     string
	ancestors []string // the epochs before, the newest first
	tree      *iradix.Tree[Entry]
	kinds     map[string]resource.Digest
	digest    resource.Digest // over the bytes in etcd, as in head
	log       []logEntry
	stale     chan struct{}
	tally     *tally // where it counts what is looked at; nil for nowhere
}

// logEntry says what differs between two revisions.
type logEntry struct {
	from, to int64
	keys     []resource.Key
}

// The log's bounds; a reader that is further behind compares digests.
const (
	maxLogEntries = 1024
	maxLogKeys    = 65536
)

// Revision grows by one with every commit of an epoch.
func (s *Snapshot) Revision() int64 { return s.revision }

// Epoch of the store.
func (s *Snapshot) Epoch() string { return s.epoch }

// Follows says whether an epoch is that of the snapshot, or one that the store had before.
func (s *Snapshot) Follows(epoch string) bool {
	return epoch == s.epoch || slices.Contains(s.ancestors, epoch)
}

// Stale is closed when a newer snapshot is there.
func (s *Snapshot) Stale() <-chan struct{} { return s.stale }

// Get finds one resource.
func (s *Snapshot) Get(k resource.Key) (Entry, bool) {
	s.visited(1)
	e, ok := s.tree.Get(k.Path())
	return e, ok && e.Resource != nil
}

// Each iterates over a kind's resources in the order of their keys; an empty mesh means all meshes.
func (s *Snapshot) Each(kind, mesh string) iter.Seq[Entry] {
	prefix := append([]byte(kind), 0)
	if mesh != "" {
		prefix = append(append(prefix, mesh...), 0)
	}
	return func(yield func(Entry) bool) {
		it := s.tree.Root().Iterator()
		it.SeekPrefix(prefix)
		n := uint64(0)
		defer func() { s.visited(n) }()
		for {
			_, e, ok := it.Next()
			if !ok {
				return
			}
			n++
			if e.Resource != nil && !yield(e) {
				return
			}
		}
	}
}

func (s *Snapshot) visited(n uint64) {
	if s.tally != nil {
		s.tally.visited.Add(n)
	}
}

// Digest over a kind's resources, each as its Entry.Hash.
func (s *Snapshot) Digest(kind string) resource.Digest { return s.kinds[kind] }

// Since gives the keys that changed after a revision, ordered; ok is false when the log doesn't reach back to it or it is of the future,
// and the reader must compare everything.
func (s *Snapshot) Since(revision int64) (keys []resource.Key, ok bool) {
	if revision == s.revision {
		return nil, true
	}
	if revision > s.revision || len(s.log) == 0 || s.log[0].from > revision {
		return nil, false
	}
	for i := len(s.log) - 1; i >= 0 && s.log[i].to > revision; i-- {
		keys = append(keys, s.log[i].keys...)
	}
	slices.SortFunc(keys, resource.Key.Compare)
	return slices.Compact(keys), true
}

// builder makes the next snapshot. It has one owner.
type builder struct {
	base       *Snapshot
	txn        *iradix.Txn[Entry]
	kinds      map[string]resource.Digest
	digest     resource.Digest
	keys       []resource.Key
	unreadable int
	tally      *tally
}

func build(base *Snapshot) *builder {
	b := &builder{base: base, kinds: map[string]resource.Digest{}}
	if base == nil {
		b.txn = iradix.New[Entry]().Txn()
		return b
	}
	b.txn, b.digest, b.tally = base.tree.Txn(), base.digest, base.tally
	for k, d := range base.kinds {
		b.kinds[k] = d
	}
	return b
}

// put sets a resource. One that can't be read counts for the store's digest and is otherwise absent.
func (b *builder) put(k resource.Key, e Entry) {
	b.remove(k)
	b.digest.Add(e.stored)
	if e.Resource != nil {
		d := b.kinds[k.Kind]
		d.Add(e.Hash)
		b.kinds[k.Kind] = d
	} else {
		b.unreadable++
	}
	b.txn.Insert(k.Path(), e)
	b.keys = append(b.keys, k)
}

func (b *builder) remove(k resource.Key) {
	old, ok := b.txn.Delete(k.Path())
	if !ok {
		return
	}
	b.digest.Remove(old.stored)
	if old.Resource != nil {
		d := b.kinds[k.Kind]
		d.Remove(old.Hash)
		b.kinds[k.Kind] = d
	} else {
		b.unreadable--
	}
	b.keys = append(b.keys, k)
}

func (b *builder) finish(revision int64, epoch string) *Snapshot {
	s := &Snapshot{
		revision: revision, epoch: epoch, tree: b.txn.Commit(), kinds: b.kinds, digest: b.digest, stale: make(chan struct{}),
		tally: b.tally,
	}
	if b.base != nil {
		s.ancestors = b.base.ancestors
		slices.SortFunc(b.keys, resource.Key.Compare)
		s.log = extend(b.base.log, logEntry{from: b.base.revision, to: revision, keys: slices.Compact(b.keys)})
	}
	return s
}

// extend appends within the log's bounds. It shares what is there, as only the newest snapshot is followed by another, and older ones
// see no further than their own end.
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

// changedKeys lists the keys whose stored bytes or revisions differ.
func changedKeys(a, b *Snapshot) []resource.Key {
	var keys []resource.Key
	key := func(e Entry, path []byte) resource.Key {
		if e.Resource != nil {
			return e.Resource.Key
		}
		return keyOfPath(path)
	}
	for path, e := range walk(b.tree) {
		if old, ok := a.tree.Get(path); !ok || old.stored != e.stored || old.Revision != e.Revision {
			keys = append(keys, key(e, path))
		}
	}
	for path, e := range walk(a.tree) {
		if _, ok := b.tree.Get(path); !ok {
			keys = append(keys, key(e, path))
		}
	}
	slices.SortFunc(keys, resource.Key.Compare)
	return keys
}

func walk(t *iradix.Tree[Entry]) iter.Seq2[[]byte, Entry] {
	return func(yield func([]byte, Entry) bool) {
		it := t.Root().Iterator()
		for path, e, ok := it.Next(); ok; path, e, ok = it.Next() {
			if !yield(path, e) {
				return
			}
		}
	}
}

func keyOfPath(path []byte) resource.Key {
	parts := [3]string{}
	n := 0
	for i := 0; i < len(path) && n < 2; i++ {
		if path[i] == 0 {
			n++
			continue
		}
		parts[n] += string(path[i : i+1])
	}
	rest := len(parts[0]) + len(parts[1]) + 2
	if rest <= len(path) {
		parts[2] = string(path[rest:])
	}
	return resource.Key{Kind: parts[0], Mesh: parts[1], Name: parts[2]}
}
