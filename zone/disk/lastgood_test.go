package disk

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
)

// TestLastGood: of a record that is replaced by one that can't be used the version before is kept, through whatever else comes that can't
// be used, until one comes that can, or none is meant any more.
func TestLastGood(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s, err := Open(dir)
	must(t, err)
	usable := func(r *kdsv1.Record) bool { return !bytes.HasPrefix(r.GetPayload(), []byte("bad")) }
	key := func(name string) resource.Key { return resource.Key{Kind: "Timeout", Mesh: "default", Name: name} }
	n := uint64(0)
	for _, c := range []struct {
		what     string
		upserts  []string // name=payload
		deletes  []string
		snapshot bool
		good     []string
	}{
		{"never good", []string{"a=bad"}, nil, true, nil},
		{"good", []string{"a=one", "b=one"}, nil, false, nil},
		{"bad after good", []string{"a=bad two"}, nil, false, []string{"a=one"}},
		{"bad after bad", []string{"a=bad three", "c=bad"}, nil, false, []string{"a=one"}},
		{"another is deleted", nil, []string{"c"}, false, []string{"a=one"}},
		{"the same again in a snapshot", []string{"a=bad three", "b=one"}, nil, true, []string{"a=one"}},
		{"bad by a snapshot", []string{"a=bad three", "b=bad two"}, nil, true, []string{"a=one", "b=one"}},
		{"good again", []string{"a=four"}, nil, false, []string{"b=one"}},
		{"deleted", nil, []string{"b"}, false, nil},
		{"bad again", []string{"a=bad five"}, nil, false, []string{"a=four"}},
		{"not in a snapshot", []string{"b=two"}, nil, true, nil},
	} {
		s.Usable = usable
		var upserts []*kdsv1.Record
		for _, u := range c.upserts {
			name, payload, _ := bytes.Cut([]byte(u), []byte("="))
			upserts = append(upserts, kds.NewRecord(key(string(name)), payload))
		}
		var deletes []resource.Key
		for _, d := range c.deletes {
			deletes = append(deletes, key(d))
		}
		n++
		must(t, s.Apply(upserts, deletes, c.snapshot, kds.NewSet().Position("e", n)))
		for _, again := range []string{"", " after a restart"} {
			if again != "" {
				must(t, s.Close())
				s, err = Open(dir)
				must(t, err)
			}
			all, err := s.Good()
			must(t, err)
			var got []string
			for _, r := range all {
				got = append(got, fmt.Sprintf("%s=%s", r.GetKey().GetName(), r.GetPayload()))
			}
			if slices.Sort(got); !slices.Equal(got, c.good) || s.Recovered != "" {
				t.Errorf("%s%s: %v %q, want %v", c.what, again, got, s.Recovered, c.good)
			}
		}
	}
	must(t, s.Close())
}

// TestFileWithoutLastGood: a file of software that kept no last good versions is whole, and keeps them from then on.
func TestFileWithoutLastGood(t *testing.T) {
	dir, _, _ := filled(t)
	db, err := bolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket(goodBucket) }))
	must(t, db.Close())
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	set, _, err := s.Load()
	must(t, err)
	good, err := s.Good()
	must(t, err)
	if s.Recovered != "" || set.Len() != 30 || len(good) != 0 {
		t.Errorf("%q, %d records, %d last good", s.Recovered, set.Len(), len(good))
	}
}
