package dataplane

import (
	"errors"
	"testing"
)

// TestTrimmer has a program that needs more of its files than it may keep, and reads what is given back at each look: "f" the heap, "d" the
// files, "-" nothing.
func TestTrimmer(t *testing.T) {
	const mib = int64(1 << 20)
	own, files, did := 8*mib, int64(0), ""
	x := trimmer{
		resident: func() (int64, int64, error) { return own, files, nil },
		free:     func() { did += "f" },
		drop:     func() error { did += "d"; files = mib; return nil },
	}
	looks := func(n int, work func()) string {
		t.Helper()
		all := ""
		for range n {
			work()
			did = ""
			if err := x.look(); err != nil {
				t.Fatal(err)
			}
			if did == "" {
				did = "-"
			}
			all += did
		}
		return all
	}
	for _, step := range []struct {
		name  string
		looks int
		work  func()
		want  string
	}{
		{"few", 2, func() { files = fewFiles }, "--"},
		{"once", 4, func() { files, own = fewFiles+1, 8*mib }, "fd-d-"},
		{"at rest", 3, func() { files = mib }, "---"},
		{"a heap that grew a little", 1, func() { files, own = fewFiles+1, 8*mib+muchFree }, "d"},
		{"at rest again", 3, func() { files = mib }, "---"},
		{"a heap that grew", 1, func() { files, own = fewFiles+1, 9*mib }, "fd"},
		{"all the time", 41, func() { files = fewFiles + 1 }, "-d---d-------d------------d------------d-"},
	} {
		if got := looks(step.looks, step.work); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
	broken := trimmer{resident: func() (int64, int64, error) { return 0, 0, errors.New("no statm") }}
	if err := broken.look(); err == nil {
		t.Error("what can't be read is taken for nothing")
	}
}
