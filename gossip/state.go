package gossip

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Record is what one replica says about one key. Only its owner writes it. Value is not to be changed.
type Record struct {
	Owner   string `json:"owner"`
	Key     string `json:"key"`
	Version uint64 `json:"version"` // grows with each write of the owner, over all its keys
	Value   []byte `json:"value,omitempty"`
	Deleted bool   `json:"deleted,omitempty"` // a tombstone, so that a late copy does not bring the record back
}

type id struct{ owner, key string }

// newer is a total order of the records of one id. Equal versions come only from a broken owner; they are still ordered, by
// content, so that all replicas agree.
func newer(a, b Record) bool {
	if a.Version != b.Version {
		return a.Version > b.Version
	}
	if a.Deleted != b.Deleted {
		return a.Deleted
	}
	return bytes.Compare(a.Value, b.Value) > 0
}

// state holds what one replica knows. It is pure: time comes in as an argument. Not safe for concurrent use.
type state struct {
	self    string
	grace   time.Duration
	version uint64 // the last version given to a record of self
	records map[id]Record
	alive   map[string]string    // member to its address
	expires map[string]time.Time // owners that are not alive, with the time their records go
	// buried holds, for each owner whose records have gone, their highest version. Replicas bury at slightly different times;
	// without it they would hand a dead owner's records back and forth for ever. It is cleared when the owner returns.
	buried map[string]uint64
}

func newState(self string, grace time.Duration) *state {
	return &state{self: self, grace: grace, records: map[id]Record{}, alive: map[string]string{}, expires: map[string]time.Time{}, buried: map[string]uint64{}}
}

// write sets a record of self. Versions follow the clock, so those of a restarted replica are above its former ones, and still
// grow when the clock doesn't.
func (s *state) write(key string, value []byte, deleted bool, now time.Time) {
	s.version = max(s.version+1, uint64(max(now.UnixNano(), 0)))
	s.records[id{s.self, key}] = Record{Owner: s.self, Key: key, Version: s.version, Value: value, Deleted: deleted}
}

// merge takes records in and says whether any was news. It is commutative, associative and idempotent. The records of self that
// came from a former life are overruled: those keys are returned, to be spread.
func (s *state) merge(records []Record, now time.Time) (changed bool, overruled []string) {
	for _, r := range records {
		at := id{r.Owner, r.Key}
		held, ok := s.records[at]
		if ok && !newer(r, held) || r.Version <= s.buried[r.Owner] {
			continue
		}
		changed = true
		if r.Owner == s.self {
			s.version = max(s.version, r.Version)
			s.write(r.Key, held.Value, held.Deleted || !ok, now)
			overruled = append(overruled, r.Key)
			continue
		}
		s.records[at] = r
		if _, alive := s.alive[r.Owner]; !alive && s.expires[r.Owner].IsZero() {
			s.expires[r.Owner] = now.Add(s.grace)
		}
	}
	return changed, overruled
}

func (s *state) join(member, address string) {
	s.alive[member] = address
	delete(s.expires, member)
	delete(s.buried, member)
}

func (s *state) leave(member string, now time.Time) {
	delete(s.alive, member)
	if member != s.self {
		s.expires[member] = now.Add(s.grace)
	}
}

// expire buries the records of the owners whose grace is over, and says whether there were any.
func (s *state) expire(now time.Time) bool {
	changed := false
	for owner, at := range s.expires {
		if now.Before(at) {
			continue
		}
		delete(s.expires, owner)
		for at, r := range s.records {
			if at.owner == owner {
				s.buried[owner] = max(s.buried[owner], r.Version)
				delete(s.records, at)
				changed = true
			}
		}
	}
	return changed
}

// sorted returns the records that keep accepts, by owner and key.
func (s *state) sorted(keep func(Record) bool) []Record {
	var out []Record
	for _, r := range s.records {
		if keep(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Key, b.Key))
	})
	return out
}

// frame is the wire form of deltas and of the full state.
type frame struct {
	Format  int      `json:"format"`
	Records []Record `json:"records"`
}

const format = 1

func encode(records []Record) ([]byte, error) { return json.Marshal(frame{format, records}) }

func decode(b []byte) ([]Record, error) {
	var f frame
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("decode gossip frame: %w", err)
	}
	if f.Format != format {
		return nil, fmt.Errorf("gossip frame has format %d, this replica speaks %d: run one version in all replicas", f.Format, format)
	}
	for _, r := range f.Records {
		// The largest version is refused since its owner could never overrule it.
		if r.Owner == "" || r.Key == "" || r.Version > 1<<63 {
			return nil, errors.New("gossip frame has a record without owner or key, or with an impossible version")
		}
	}
	return f.Records, nil
}
