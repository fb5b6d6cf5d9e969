package gossip

import (
	"reflect"
	"testing"
	"time"
)

// Whatever a replica sends, it is refused whole, or merged in a way that the order and number of its copies don't change; what this
// replica says of itself stays its own.
func FuzzMerge(f *testing.F) {
	for _, records := range [][]Record{
		{{Owner: "b", Key: "k", Version: 1, Value: []byte("v")}, {Owner: "b", Key: "l", Version: 2, Deleted: true}},
		{{Owner: "a", Key: "mine", Version: 1 << 40, Value: []byte("forged")}, {Owner: "a", Key: "new", Version: 7}},
	} {
		b, err := encode(records)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"format": 2, "records": []}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := decode(b)
		if err != nil {
			return
		}
		now := time.Unix(1000, 0)
		start := func() *state {
			s := newState("a", time.Minute)
			s.join("a", "address")
			s.write("mine", []byte("own"), false, now)
			return s
		}
		once, backwards := start(), start()
		once.merge(records, now)
		for i := range records {
			backwards.merge(records[len(records)-1-i:len(records)-i], now)
		}
		backwards.merge(records, now)
		of := func(s *state) []Record { return s.sorted(func(r Record) bool { return r.Owner != "a" }) }
		if !reflect.DeepEqual(of(once), of(backwards)) {
			t.Fatalf("%+v, and in another order %+v", of(once), of(backwards))
		}
		for _, r := range once.sorted(func(r Record) bool { return r.Owner == "a" }) {
			if own := r.Key == "mine"; string(r.Value) != map[bool]string{true: "own"}[own] || r.Deleted == own {
				t.Fatalf("what another said of this replica counts: %+v", r)
			}
		}
		once.expire(now.Add(time.Hour))
		if again, err := encode(of(backwards)); err != nil {
			t.Fatal(err)
		} else if back, err := decode(again); err != nil || len(back) != len(of(backwards)) {
			t.Fatalf("%d records come back as %d: %v", len(of(backwards)), len(back), err)
		}
	})
}
