package simzone

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// state is what a zone holds. It never changes.
type state struct {
	set    *kds.Set
	digest resource.Digest
}

// states are shared by zones: the first that takes a delta checks its records and makes the next state, and others that hold the
// same and were sent the same share it.
type states struct {
	seed  maphash.Seed
	empty *state

	mu   sync.Mutex
	next map[step]*state
	// order bounds next: steps that all zones have made are of no more use.
	order []step
}

// step is a delta, by its bytes, to a state.
type step struct {
	from     *state
	delta    uint64
	snapshot bool
}

// maxSteps bounds the steps that are remembered.
const maxSteps = 256

func newStates() *states {
	return &states{seed: maphash.MakeSeed(), empty: &state{set: kds.NewSet()}, next: map[step]*state{}}
}

// apply gives the state after a delta.
func (s *states) apply(from *state, snapshot bool, upserts []*kdsv1.Record, deletes []*kdsv1.Key) (*state, error) {
	at := step{from, s.fingerprint(upserts, deletes), snapshot}
	if snapshot {
		at.from = s.empty
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if to := s.next[at]; to != nil {
		return to, nil
	}
	set := at.from.set.Clone()
	for _, k := range deletes {
		key, err := kds.KeyFrom(k)
		if err != nil {
			return nil, err
		}
		set.Delete(key)
	}
	for _, r := range upserts {
		if err := set.Put(r); err != nil {
			return nil, err
		}
	}
	to := &state{set: set, digest: set.Digest()}
	s.next[at] = to
	if s.order = append(s.order, at); len(s.order) > maxSteps {
		delete(s.next, s.order[0])
		s.order = s.order[1:]
	}
	return to, nil
}

func (s *states) fingerprint(upserts []*kdsv1.Record, deletes []*kdsv1.Key) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	part := func(b []byte) { maphash.WriteComparable(&h, len(b)); _, _ = h.Write(b) }
	key := func(k *kdsv1.Key) {
		part([]byte(k.GetKind()))
		part([]byte(k.GetMesh()))
		part([]byte(k.GetName()))
	}
	for _, r := range upserts {
		key(r.GetKey())
		part(r.GetHash())
		part(r.GetPayload())
	}
	maphash.WriteComparable(&h, len(upserts))
	for _, k := range deletes {
		key(k)
	}
	return h.Sum64()
}

// differing are the kinds whose digests are not these.
func (s *state) differing(want map[string]*kdsv1.Digest) (out []string) {
	have := s.set.Kinds()
	for kind, d := range want {
		if h := have[kind]; h.Count() != d.GetCount() || !bytes.Equal(h.Sum(), d.GetSum()) {
			out = append(out, kind)
		}
	}
	for kind := range have {
		if want[kind] == nil {
			out = append(out, kind)
		}
	}
	return out
}

// inventory are the entries of some kinds.
func (s *state) inventory(kinds []string) (out []*kdsv1.Inventory_Entry) {
	for _, kind := range kinds {
		s.set.Each(kind, func(_ resource.Key, r *kdsv1.Record) bool {
			out = append(out, &kdsv1.Inventory_Entry{Key: r.GetKey(), Hash: r.GetHash()})
			return true
		})
	}
	return out
}

// is compares a state with a digest as it travels.
func (s *state) is(d *kdsv1.Digest) error {
	if s.digest.Count() != d.GetCount() || s.digest.Count() > 0 && !bytes.Equal(s.digest.Sum(), d.GetSum()) {
		return fmt.Errorf("%d records with digest %x instead of %d with %x", s.digest.Count(), s.digest.Sum(), d.GetCount(), d.GetSum())
	}
	return nil
}
