package kds

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// anew makes a set of the same records that knows of no other.
func anew(t *testing.T, s *Set) *Set {
	t.Helper()
	out := NewSet()
	s.each("", func(e entry) bool {
		if err := out.Put(e.record); err != nil {
			t.Fatal(err)
		}
		return true
	})
	return out
}

// What differs between clones is the same whether it is known what changed since or all is compared, also where both have changed, and
// where the changes are more than are remembered.
func TestDiffOfClones(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	edit := func(s *Set) {
		k := key(fmt.Sprintf("Mesh/%d", rnd.IntN(40)))
		if rnd.IntN(3) == 0 {
			s.Delete(k)
		} else if err := s.Put(NewRecord(k, []byte{byte(rnd.IntN(3))})); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 300 {
		from := NewSet()
		for range rnd.IntN(60) {
			edit(from)
		}
		to := from.Clone()
		for range []int{0, 1, 7, maxEdits, maxEdits + 200}[round%5] {
			edit(to)
		}
		if round%3 == 0 {
			edit(from)
		}
		for _, pair := range [][2]*Set{{from, to}, {to, from}, {nil, to}, {from, nil}} {
			var plain [2]*Set
			for i, s := range pair {
				if s != nil {
					plain[i] = anew(t, s)
				}
			}
			upserts, deletes := Diff(pair[0], pair[1])
			wantUpserts, wantDeletes := Diff(plain[0], plain[1])
			got, want := &kdsv1.Report{Upserts: upserts, Deletes: deletes}, &kdsv1.Report{Upserts: wantUpserts, Deletes: wantDeletes}
			if !proto.Equal(got, want) {
				t.Fatalf("round %d: %v, want %v", round, got, want)
			}
		}
	}
}

// A few changes of a set are found without a look at all of it, and its size is not less than what it takes.
func TestDiffLooksAtWhatChanged(t *testing.T) {
	for _, size := range []int{10, 10_000} {
		from := filled(t, size)
		to := from.Clone()
		for range 3 {
			for i := range 3 {
				if err := to.Put(version(i, 1)); err != nil {
					t.Fatal(err)
				}
			}
		}
		to.Delete(key("Mesh/none"))
		if keys, known := to.since(from); !known || len(keys) != 3 {
			t.Errorf("of %d records %d are looked at, want 3", size, len(keys))
		}
		encoded := 0
		to.each("", func(e entry) bool { encoded += proto.Size(e.record); return true })
		if to.bytes < encoded {
			t.Errorf("%d records take %d bytes, and are said to take %d", size, encoded, to.bytes)
		}
		to.each("", func(e entry) bool { from.Delete(e.key); return true })
		if from.bytes != 0 {
			t.Errorf("%d bytes are left of an empty set", from.bytes)
		}
	}
}
