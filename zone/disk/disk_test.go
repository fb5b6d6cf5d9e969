package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
)

func records(t testing.TB, n, size int) ([]*kdsv1.Record, kds.Position) {
	t.Helper()
	set := kds.NewSet()
	var all []*kdsv1.Record
	for i := range n {
		r := kds.NewRecord(resource.Key{Kind: "Dataplane", Mesh: "default", Name: fmt.Sprintf("dp-%d", i)}, make([]byte, size))
		if err := set.Put(r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all, set.Position("e", uint64(n))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func filled(t testing.TB) (dir string, at kds.Position, identity string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	s, err := Open(dir)
	must(t, err)
	all, at := records(t, 30, 100)
	must(t, s.Apply(all, nil, true, at))
	must(t, s.SaveIntermediate(Intermediate{Mesh: "default", Key: []byte("k"), Chain: [][]byte{{1}}}))
	must(t, s.SetRegistrations(map[string]*Registration{"a": {Key: "a", Value: []byte("v"), Seen: time.Unix(5, 6).UTC()}, "b": {Key: "b"}, "never there": nil}))
	identity = s.Identity
	must(t, s.Close())
	return dir, at, identity
}

func TestReopenKeepsAll(t *testing.T) {
	dir, at, identity := filled(t)
	must(t, os.Chmod(filepath.Join(dir, fileName), 0o644))
	s, err := Open(dir)
	must(t, err)
	defer s.Close()
	_, got, err := s.Load()
	must(t, err)
	i, err := s.LoadIntermediates()
	must(t, err)
	r, err := s.Registrations()
	must(t, err)
	if got != at || s.Identity != identity || s.Recovered != "" || len(i) != 1 || len(r) != 2 || !r[0].Seen.Equal(time.Unix(5, 6)) {
		t.Errorf("reopened: %v %v %q %v %v", got, s.Identity, s.Recovered, i, r)
	}
	if info, _ := os.Stat(filepath.Join(dir, fileName)); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second opener: %v", err)
	}
}

func TestFullDiskKeepsTheOldState(t *testing.T) {
	dir, at, _ := filled(t)
	info, err := os.Stat(filepath.Join(dir, fileName))
	must(t, err)
	s, err := open(dir, int(info.Size())+pageSize)
	must(t, err)
	defer s.Close()
	all, next := records(t, 60, 50000)
	if err := s.Apply(all, nil, false, next); err == nil {
		t.Fatal("no error")
	}
	if _, got, err := s.Load(); err != nil || got != at {
		t.Errorf("after a failed write: %v %v", got, err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	dir, _, _ := filled(t)
	s, err := Open(dir)
	must(t, err)
	must(t, s.db.Update(func(tx *bolt.Tx) error {
		return put(tx, metaBucket, formatKey, binary.BigEndian.AppendUint64(nil, format+1))
	}))
	must(t, s.Close())
	if _, err := Open(dir); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
}

// TestDamageNeverPanics also covers a copy taken in the middle of a write: a cut file.
func TestDamageNeverPanics(t *testing.T) {
	dir, at, identity := filled(t)
	path := filepath.Join(dir, fileName)
	good, err := os.ReadFile(path)
	must(t, err)
	recovered := 0
	try := func(what string, b []byte) {
		must(t, os.WriteFile(path, b, 0o600))
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		_, got, err := s.Load()
		must(t, err)
		if s.Recovered != "" {
			recovered++
			must(t, os.Remove(path+".corrupt-1"))
		}
		if s.Identity != identity || s.Recovered == "" && got != at || s.Recovered != "" && got.Revision != 0 {
			t.Errorf("%s: %v %q", what, got, s.Recovered)
		}
		must(t, s.Close())
	}
	for i := 0; i < len(good); i += 61 {
		b := append([]byte(nil), good...)
		b[i] ^= 0x41
		try(fmt.Sprint("flip ", i), b)
	}
	for _, n := range []int{0, 1, 100, pageSize, 2 * pageSize, 3*pageSize + 7} {
		try(fmt.Sprint("cut ", n), good[:n])
	}
	if recovered < 5 {
		t.Errorf("%d recovered", recovered)
	}
}

func TestApplyIsWholeOrNothing(t *testing.T) {
	dir, at, _ := filled(t)
	s, err := Open(dir)
	must(t, err)
	all, _ := records(t, 31, 100)
	if err := s.Apply([]*kdsv1.Record{all[30], {}}, nil, false, at); err == nil {
		t.Error("a record without key was taken")
	}
	if _, got, err := s.Load(); err != nil || got != at {
		t.Errorf("after a refused delta: %v %v", got, err)
	}
	gone, err := kds.KeyFrom(all[0].GetKey())
	must(t, err)
	want := kds.NewSet()
	for _, r := range all[1:] {
		must(t, want.Put(r))
	}
	next := want.Position("e", 31)
	must(t, s.Apply(all[30:], []resource.Key{gone}, false, next))
	must(t, s.SetRegistrations(map[string]*Registration{"a": nil, "b": nil, "never there": nil}))
	must(t, s.Close())
	s, err = Open(dir)
	must(t, err)
	if _, got, err := s.Load(); err != nil || got != next || s.Recovered != "" {
		t.Errorf("after the delta: %v %v %q", got, err, s.Recovered)
	}
	if r, err := s.Registrations(); err != nil || len(r) != 0 {
		t.Errorf("registrations: %v %v", r, err)
	}
	must(t, s.Apply(all[:1], nil, true, next))
	must(t, s.Close())
	s, err = Open(dir)
	must(t, err)
	defer s.Close()
	if set, _, err := s.Load(); err != nil || set.Len() != 1 || s.Recovered != "" {
		t.Errorf("after a snapshot: %v %v %q", set.Len(), err, s.Recovered)
	}
}

func FuzzDamage(f *testing.F) {
	f.Add(uint32(4096), byte(1), uint32(8200), byte(0x80))
	sound, _, _ := filled(f)
	file, err := os.ReadFile(filepath.Join(sound, fileName))
	must(f, err)
	f.Fuzz(func(t *testing.T, at uint32, x byte, at2 uint32, y byte) {
		path := filepath.Join(t.TempDir(), fileName)
		b := bytes.Clone(file)
		b[int(at)%len(b)] ^= x
		b[int(at2)%len(b)] ^= y
		must(t, os.WriteFile(path, b, 0o600))
		s, err := Open(filepath.Dir(path))
		if err != nil {
			if !errors.Is(err, ErrNewer) {
				t.Fatal(err)
			}
			return
		}
		if _, _, err := s.Load(); err != nil {
			t.Error(err)
		}
		must(t, s.Close())
	})
}
