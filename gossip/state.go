package gossip

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"time"
)

// Record is what one replica says about one key. Only its owner writes it. Value is not to be changed.
type Record struct {
	Owner, Key string
	Value      []byte
}

type id struct{ owner, key string }

// buckets is into how many parts the records of an owner are split to find where two copies differ.
const buckets = 256

// sum is a hash over a set of records that one step adds a record to, or takes it from.
type sum [16]byte

func (s *sum) fold(o sum) {
	for i := range s {
		s[i] ^= o[i]
	}
}

// item is a record of a book.
type item struct {
	Key     string `json:"key"`
	Version uint64 `json:"version"`
	Value   []byte `json:"value,omitempty"`
}

// hash gives the sum of the record alone, and the bucket of its key.
func (i item) hash() (sum, int) {
	h := sha256.New()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(i.Key)))
	h.Write(n[:])
	h.Write([]byte(i.Key))
	binary.BigEndian.PutUint64(n[:], i.Version)
	h.Write(n[:])
	h.Write(i.Value)
	key := sha256.Sum256([]byte(i.Key))
	return sum(h.Sum(nil)[:16]), int(key[0])
}

// book is what one owner says. It changes only as its owner writes, one version after the other, so of two copies the one of the higher
// version is newer as a whole, and what was deleted needs no trace.
type book struct {
	version uint64 // of the newest change
	records map[string]item
	sums    [buckets]sum
}

func newBook() *book { return &book{records: map[string]item{}} }

func (b *book) put(i item) {
	b.drop(i.Key)
	s, at := i.hash()
	b.sums[at].fold(s)
	b.records[i.Key] = i
}

func (b *book) drop(key string) {
	if old, ok := b.records[key]; ok {
		s, at := old.hash()
		b.sums[at].fold(s)
		delete(b.records, key)
	}
}

func (b *book) sum() (s sum) {
	for _, part := range b.sums {
		s.fold(part)
	}
	return s
}

// change notes that a key was written.
type change struct {
	version uint64
	key     string
}

// maxChanges bounds the changes that are kept for those who have to hear of them. Who is further behind compares sums.
const maxChanges = 4096

// state holds what one replica knows. It is pure: time comes in as an argument. Not safe for concurrent use.
type state struct {
	self  string
	grace time.Duration
	books map[string]*book // by owner, that of self included
	// log has the newest changes of self, after the version start.
	log   []change
	start uint64

	alive    map[string]string   // member to its address
	departed map[string]Departed // owners that are not alive
	byes     map[string]bool     // members that said goodbye and are still alive
	// buried holds, for each owner whose records have gone, the version that it had. Replicas bury at slightly different times;
	// without it they would hand a dead owner's records back and forth for ever. It is cleared when the owner returns.
	buried map[string]uint64
	// touched are the records that changed since the last take.
	touched map[id]bool
	repairs uint64 // books that were mended by what another replica had of them
}

func newState(self string, grace time.Duration) *state {
	return &state{self: self, grace: grace, books: map[string]*book{self: newBook()}, alive: map[string]string{}, departed: map[string]Departed{}, byes: map[string]bool{},
		buried: map[string]uint64{}, touched: map[id]bool{}}
}

func (s *state) own() *book { return s.books[s.self] }

// next is a version for a change of self. Versions follow the clock, so those of a restarted replica are above its former ones, and
// still grow when the clock doesn't.
func (s *state) next(key string, now time.Time) uint64 {
	b := s.own()
	first := b.version == 0
	b.version = max(b.version+1, uint64(max(now.UnixNano(), 0)))
	if first {
		s.start = b.version // no change leads here from what a former life said
	}
	s.log = append(s.log, change{b.version, key})
	if len(s.log) > 2*maxChanges {
		s.log = slices.Clone(s.log[len(s.log)-maxChanges:])
		s.start = s.log[0].version - 1
	}
	s.touched[id{s.self, key}] = true
	return b.version
}

// write sets a record of self.
func (s *state) write(key string, value []byte, now time.Time) {
	s.own().put(item{Key: key, Version: s.next(key, now), Value: value})
}

// erase removes a record of self, and says whether there was one.
func (s *state) erase(key string, now time.Time) bool {
	if _, ok := s.own().records[key]; !ok {
		return false
	}
	s.next(key, now)
	s.own().drop(key)
	return true
}

// since is what self changed after a version; ok is false when that is too long ago.
func (s *state) since(version uint64) (d delta, ok bool) {
	b := s.own()
	d = delta{Owner: s.self, From: version, To: b.version, Sum: b.sum()}
	if version < s.start || version == 0 {
		return d, false
	}
	seen := map[string]bool{}
	for _, c := range slices.Backward(s.log) {
		if c.version <= version {
			break
		}
		if seen[c.key] {
			continue
		}
		seen[c.key] = true
		if i, ok := b.records[c.key]; ok {
			d.Upserts = append(d.Upserts, i)
		} else {
			d.Deletes = append(d.Deletes, c.key)
		}
	}
	return d, true
}

// change takes an owner's changes. It gives what is missing for them, or nil. A copy is always what its owner had at some version.
func (s *state) change(d delta, now time.Time) (changed bool, missing *want) {
	b := s.books[d.Owner]
	switch {
	case d.Owner == s.self || d.To <= s.buried[d.Owner]:
		return false, nil
	case b == nil:
		return false, &want{Owner: d.Owner}
	case d.To <= b.version:
		return false, nil
	case d.From > b.version:
		return false, s.wants(d.Owner)
	}
	for _, key := range d.Deletes {
		b.drop(key)
		s.touched[id{d.Owner, key}] = true
	}
	for _, i := range d.Upserts {
		b.put(i)
		s.touched[id{d.Owner, i.Key}] = true
	}
	b.version = d.To
	s.heard(d.Owner, now)
	if b.sum() != d.Sum {
		return true, s.wants(d.Owner)
	}
	return true, nil
}

// heard notes records whose owner nobody saw alive.
func (s *state) heard(owner string, now time.Time) {
	_, alive := s.alive[owner]
	if _, known := s.departed[owner]; !alive && !known {
		s.departed[owner] = Departed{Name: owner, Since: now}
	}
}

// wants asks for all in which a newer copy differs from the own one.
func (s *state) wants(owner string) *want {
	w := &want{Owner: owner}
	if b := s.books[owner]; b != nil {
		w.Version, w.Sums = b.version, make([]byte, 0, buckets*len(sum{}))
		for _, part := range b.sums {
			w.Sums = append(w.Sums, part[:]...)
		}
	}
	return w
}

// summaries say which version of each book is held.
func (s *state) summaries() []summary {
	var out []summary
	for owner, b := range s.books {
		out = append(out, summary{owner, b.version, b.sum()})
	}
	slices.SortFunc(out, func(a, b summary) int { return cmp.Compare(a.Owner, b.Owner) })
	return out
}

// compare looks at what a peer holds of one book, and gives what to ask that peer for, or nil. A copy of the same version that differs
// is damaged at one of the two, and only the owner knows at which.
func (s *state) compare(from string, o summary) *want {
	b := s.books[o.Owner]
	if b == nil {
		b = newBook()
	}
	switch {
	case o.Owner == s.self:
		// What a former life of this replica said is overruled by whatever it says now.
		if o.Version > b.version {
			b.version = o.Version + 1
			s.log, s.start = nil, b.version
		}
		return nil
	case o.Version <= s.buried[o.Owner]:
		return nil
	case o.Version > b.version || o.Version == b.version && from == o.Owner && o.Sum != b.sum():
		return s.wants(o.Owner)
	}
	return nil
}

// answer gives what a peer asked for; ok is false when it isn't held here.
func (s *state) answer(w want) (c content, ok bool) {
	b := s.books[w.Owner]
	if b == nil || b.version < w.Version {
		return content{}, false
	}
	c = content{Owner: w.Owner, Version: b.version, Sum: b.sum()}
	var differ [buckets]bool
	for i := range buckets {
		var have sum
		none := len(w.Sums) != buckets*len(have) // whoever held nothing may hold something by now, so empty buckets count too
		if !none {
			copy(have[:], w.Sums[i*len(have):])
		}
		if differ[i] = none || have != b.sums[i]; differ[i] {
			c.Buckets = append(c.Buckets, i)
		}
	}
	for _, i := range b.records {
		if _, at := i.hash(); differ[at] {
			c.Items = append(c.Items, i)
		}
	}
	slices.SortFunc(c.Items, func(a, b item) int { return cmp.Compare(a.Key, b.Key) })
	return c, true
}

// take takes a newer copy of a book, if it fits: what differs between two versions stands in the buckets that were sent.
func (s *state) take(c content, now time.Time) (changed bool) {
	if c.Owner == s.self || c.Version <= s.buried[c.Owner] {
		return false
	}
	old := s.books[c.Owner]
	if old == nil {
		old = newBook()
	}
	if c.Version < old.version || c.Version == old.version && c.Sum == old.sum() {
		return false
	}
	next := &book{version: c.Version, records: make(map[string]item, len(old.records)+len(c.Items)), sums: old.sums}
	given := map[int]bool{}
	for _, i := range c.Buckets {
		if i >= 0 && i < buckets {
			given[i], next.sums[i] = true, sum{}
		}
	}
	for key, i := range old.records {
		if _, at := i.hash(); !given[at] {
			next.records[key] = i
		}
	}
	for _, i := range c.Items {
		next.put(i)
	}
	if next.sum() != c.Sum {
		return false // asked again with the next summary
	}
	for key, i := range old.records {
		if now, ok := next.records[key]; !ok || now.Version != i.Version {
			s.touched[id{c.Owner, key}] = true
		}
	}
	for key, i := range next.records {
		if was, ok := old.records[key]; !ok || was.Version != i.Version {
			s.touched[id{c.Owner, key}] = true
		}
	}
	s.books[c.Owner] = next
	s.repairs++
	s.heard(c.Owner, now)
	return true
}

func (s *state) join(member, address string) {
	s.alive[member] = address
	delete(s.departed, member)
	delete(s.byes, member)
	delete(s.buried, member)
}

func (s *state) leave(member string, now time.Time) {
	delete(s.alive, member)
	if member != s.self {
		s.departed[member] = Departed{Name: member, Since: now, Left: s.byes[member]}
	}
	delete(s.byes, member)
}

// bye notes that a member said goodbye, which may come after it has left.
func (s *state) bye(member string) {
	if _, alive := s.alive[member]; alive {
		s.byes[member] = true
	} else if d, ok := s.departed[member]; ok {
		d.Left = true
		s.departed[member] = d
	}
}

// gone lists the departed by name.
func (s *state) gone() []Departed {
	return slices.SortedFunc(maps.Values(s.departed), func(a, b Departed) int { return cmp.Compare(a.Name, b.Name) })
}

// expire buries the records of the owners that are gone for the grace, and says whether there were any.
func (s *state) expire(now time.Time, gone func(Departed) (time.Time, bool)) bool {
	changed := false
	for owner, d := range s.departed {
		if since, ok := gone(d); !ok || now.Before(since.Add(s.grace)) {
			continue
		}
		delete(s.departed, owner)
		if b := s.books[owner]; b != nil {
			for key := range b.records {
				s.touched[id{owner, key}] = true
				changed = true
			}
			s.buried[owner] = b.version
			delete(s.books, owner)
		}
	}
	return changed
}

// records lists all, by owner and key.
func (s *state) records() []Record {
	var out []Record
	for owner, b := range s.books {
		for key, i := range b.records {
			out = append(out, Record{owner, key, i.Value})
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Key, b.Key))
	})
	return out
}
