package audit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func numbers(t *testing.T, l *Log, limit int, before int64) (out []int64) {
	t.Helper()
	list, err := l.Entries(limit, before)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		out = append(out, e.Number)
	}
	return out
}

func opened(t *testing.T, dir string, limit int64, now func() time.Time) *Log {
	t.Helper()
	l, err := open(dir, limit, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // a test may have closed it
	return l
}

func record(t *testing.T, l *Log, list ...Entry) {
	t.Helper()
	for _, e := range list {
		if err := l.Record(e); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLogGoesOn numbers entries across restarts, also over a line that a crash cut off.
func TestLogGoesOn(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, 1<<20, time.Now)
	ok := Entry{Name: "wim", Method: "PUT", Path: "/v1/x", Status: 200, What: []string{"put Mesh m"}, Change: 7}
	record(t, l, ok, ok, ok)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v", info, err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(`{"entry":4,"name":"cut o`)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	l = opened(t, dir, 1<<20, time.Now)
	record(t, l, ok)
	if got := numbers(t, l, 0, 0); len(got) != 4 || got[0] != 4 || got[3] != 1 {
		t.Errorf("entries %v", got)
	}
	if got := numbers(t, l, 2, 4); len(got) != 2 || got[0] != 3 || got[1] != 2 {
		t.Errorf("two before 4: %v", got)
	}
	list, _ := l.Entries(1, 0)
	if e := list[0]; e.Name != "wim" || e.Change != 7 || len(e.What) != 1 {
		t.Errorf("it came back as %+v", e)
	}
}

// TestWhatWasBegun lists a request that was begun until its outcome is recorded, also after a restart and where both are in different
// files, and forgets no refusals for it.
func TestWhatWasBegun(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, 300, time.Now)
	begin := func() int64 {
		t.Helper()
		n, err := l.Begin(Entry{Name: "ada", Method: "POST", Path: "/v1/kek", Status: 201, What: []string{"make key"}})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	want := func(about string, limit int, before int64, want ...int64) {
		t.Helper()
		if got := numbers(t, l, limit, before); !slices.Equal(got, want) {
			t.Errorf("%s: entries %v, want %v", about, got, want)
		}
	}
	for range burst + 1 {
		if err := l.Record(Entry{Status: 401}); err != nil {
			t.Fatal(err)
		}
	}
	crashed, ended := begin(), begin()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = opened(t, dir, 300, time.Now)
	want("before the outcome", 2, 0, ended, crashed)
	l.omitted = 1
	refused := begin()
	record(t, l, Entry{Name: "ada", Status: 201, Begun: ended}, Entry{Name: "ada", Status: 500, Begun: refused})
	want("after it", 3, 0, refused+2, refused+1, crashed)
	want("a page later", 1, refused, crashed)
	list, err := l.Entries(3, 0)
	if err != nil || list[0].Begun != refused || list[1].Omitted != 1 || list[2].Status != 0 || list[2].What[0] != "make key" {
		t.Errorf("%+v %v", list, err)
	}
}

// TestLogIsBounded keeps the newest entries in as many bytes as were given.
func TestLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, 1000, time.Now)
	for range 200 {
		record(t, l, Entry{Name: "wim", Path: strings.Repeat("x", 50), Status: 200})
	}
	var size int64
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != files {
		t.Fatalf("%d files, %v", len(list), err)
	}
	for _, f := range list {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > files*1001 {
		t.Errorf("%d bytes", size)
	}
	got := numbers(t, l, 0, 0)
	if len(got) < 15 || got[0] != 200 || got[len(got)-1] != 200-int64(len(got))+1 {
		t.Errorf("entries %v", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = opened(t, dir, 1000, time.Now)
	record(t, l, Entry{Name: "wim", Status: 200})
	if got := numbers(t, l, 1, 0); got[0] != 201 {
		t.Errorf("it goes on with %v", got)
	}
}

// TestFloodOfRefusals counts what it doesn't tell, and pushes out neither what was done nor the refusals of others.
func TestFloodOfRefusals(t *testing.T) {
	now := time.Unix(1, 0)
	l := opened(t, t.TempDir(), 1<<20, func() time.Time { return now })
	for range 10 * burst {
		record(t, l, Entry{Status: 401})
	}
	record(t, l, Entry{Name: "vera", Status: 403}, Entry{Name: "wim", Status: 200})
	list, err := l.Entries(3, 0)
	if err != nil || list[0].Name != "wim" || list[1].Name != "vera" || list[1].Omitted != 9*burst || list[0].Omitted != 0 || list[2].Number != burst {
		t.Errorf("%+v %v", list, err)
	}
	now = now.Add(2 * refill)
	record(t, l, Entry{Status: 401}, Entry{Status: 401}, Entry{Status: 401}, Entry{Name: "wim", Status: 200})
	if list, _ = l.Entries(2, 0); list[0].Omitted != 1 || list[1].Status != 401 {
		t.Errorf("%+v", list)
	}
}
