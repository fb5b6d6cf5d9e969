package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestProfilesAreStored holds that what a process did is stored before it is killed, and for each thing that is measured apart.
func TestProfilesAreStored(t *testing.T) {
	process := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := strings.TrimPrefix(r.URL.Path, "/debug/pprof/")
		if what == "profile" {
			<-time.After(time.Millisecond)
		}
		_, _ = w.Write([]byte(what))
	}))
	defer process.Close()
	dir := t.TempDir()
	p := newProfiles(dir, map[string]string{"zone": strings.TrimPrefix(process.URL, "http://"), "absent": "127.0.0.1:1"})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(p.begin("one"))
	must(p.mark())
	must(p.begin("two"))
	must(p.stop())
	got := map[string]string{}
	must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var data []byte
			data, err = os.ReadFile(path)
			name, _ := filepath.Rel(dir, path)
			got[strings.TrimSuffix(name, ".pb.gz")] = string(data)
		}
		return err
	}))
	want := []string{"one/zone/cpu-1", "two/zone/cpu-1"}
	for _, sum := range sums {
		for _, name := range []string{"one/zone/", "two/zone/"} {
			want = append(want, name+sum+"-before", name+sum+"-1")
		}
		want = append(want, "one/zone/"+sum+"-2")
	}
	for _, name := range want {
		what, _, _ := strings.Cut(filepath.Base(name), "-")
		if what = strings.Replace(what, "cpu", "profile", 1); got[name] != what {
			t.Errorf("%s is %q, want %q", name, got[name], what)
		}
		delete(got, name)
	}
	for name := range got {
		if !strings.Contains(name, "/zone/cpu-") {
			t.Errorf("%s is stored, too", name)
		}
	}
	var none *profiles
	must(none.begin("x"))
	must(none.mark())
	must(none.stop())
}

// TestAddressesAreOnesOwn holds that two who measure at once don't meet.
func TestAddressesAreOnesOwn(t *testing.T) {
	one, held, err := reserve("127.98")
	if err != nil {
		t.Fatal(err)
	}
	other, heldToo, err := reserve("127.98")
	if err != nil {
		t.Fatal(err)
	}
	defer heldToo.Close()
	if one == other || !strings.HasPrefix(one, "127.98.") {
		t.Errorf("both take %s", one)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	again, heldAgain, err := reserve("127.98")
	if err != nil {
		t.Fatal(err)
	}
	defer heldAgain.Close()
	if again != one {
		t.Errorf("%s is free again, and %s is taken", one, again)
	}
}
