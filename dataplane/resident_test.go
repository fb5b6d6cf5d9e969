package dataplane

import (
	"errors"
	"strings"
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
		{"once", 1, func() { files, own = fewFiles+1, 8*mib }, "fd"},
		{"at rest", 3, func() { files = mib }, "---"},
		{"a heap that grew a little", 1, func() { files, own = fewFiles+1, 8*mib+muchFree }, "d"},
		{"at rest again", 3, func() { files = mib }, "---"},
		{"a heap that grew", 1, func() { files, own = fewFiles+1, 9*mib }, "fd"},
		{"of files all the time", 5, func() { files = fewFiles + 1 }, "ddddd"},
		{"at rest for good", 3, func() { files = mib }, "---"},
		{"of both all the time", 30, func() { files, own = fewFiles+1, own+mib }, "fdd" + "fdddd" + "fdddddddd" + "fddddddddddddd" + "fddd"},
		{"at rest for long", 41, func() { files = mib }, strings.Repeat("-", mostLooks-3) + "fd" + strings.Repeat("-", mostLooks-1) + "fd---"},
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
