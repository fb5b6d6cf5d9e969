package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestKeyIsReplacedThroughACrash kills global while it seals its secrets with another key. The same command goes on from there, and a
// backup of before is restored by the former key beside the newer one.
func TestKeyIsReplacedThroughACrash(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	var secrets []string
	for i := range 400 {
		secrets = append(secrets, fmt.Sprintf("type: Secret\nmesh: default\nname: s-%d\ndata: aHVzaC1odXNo\n", i))
	}
	f.cli("apply", "-f", f.write("secrets.yaml", strings.Join(secrets, "---\n")))
	viewer := f.token("viewer", "user", "ann", "--role", "viewer")
	keys := func() []string {
		t.Helper()
		text, err := os.ReadFile(f.path("global", "kek"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(text))
	}
	// Whoever is too late for a rotation tries the next one.
	file, former := "", ""
	for attempt := 0; ; attempt++ {
		if attempt == 20 {
			t.Fatalf("none of %d rotations could be met under way", attempt)
		}
		file, former = f.path(fmt.Sprintf("before-%d.backup", attempt)), keys()[0]
		f.cli("backup", "--out", file)
		ended := make(chan error)
		go func() {
			_, err := f.try("kek", "rotate")
			ended <- err
		}()
		under := false
		for over := false; !over && !under; {
			select {
			case err := <-ended:
				if over = true; err != nil {
					t.Fatal(err)
				}
			default:
				under = len(keys()) == 2
			}
		}
		if !under {
			continue
		}
		f.kill("global")
		err := <-ended
		f.startGlobal()
		if n := len(keys()); n == 2 {
			if err == nil {
				t.Error("the command ended well, though global did not")
			}
			break
		}
	}
	f.says(f.cli("audit"), "make key-encryption key", "issue user token for viewer ann")
	f.says(f.cli("kek", "rotate"), "sealed anew", "is retired")
	if now := keys(); len(now) != 1 || now[0] == former {
		t.Fatalf("%d keys, or the former one", len(now))
	}
	if out := f.cli("kek", "status"); strings.Count(out, "\n") != 2 || strings.Contains(out, keys()[0][:16]) {
		t.Errorf("%s", out)
	}
	whole := func() {
		t.Helper()
		if out := f.cli("get", "secrets"); strings.Count(out, "s-") != 400 {
			t.Errorf("%d secrets", strings.Count(out, "s-"))
		}
		if _, err := f.tryAs(viewer, "get", "zones"); err != nil {
			t.Error(err)
		}
		f.says(f.cli("apply", "-f", f.path("secrets.yaml")), "unchanged")
	}
	whole()
	f.kill("global")
	f.startGlobal()
	whole()

	// The backup of before.
	if code := f.end("global"); code != 0 {
		t.Errorf("global ends with %d", code)
	}
	f.fails(1, []string{"wrong sealing key"}, f.restoreArgs(file, "--replace")...)
	f.write("global/kek", keys()[0]+"\n"+former+"\n")
	f.says(f.cli(f.restoreArgs(file, "--replace")...), "new epoch")
	f.startGlobal()
	whole()
	if code, body, err := f.rest(http.MethodGet, "/v1/kek", nil); err != nil || code != http.StatusOK || strings.Count(string(body), `"resources":`) != 2 {
		t.Errorf("%d %s %v", code, body, err)
	}
	f.says(f.cli("kek", "rotate"), "is retired")
	if now := keys(); len(now) != 1 || now[0] == former {
		t.Error(errors.New("the former key is still there"))
	}
	whole()
	logs := f.said("global")
	for _, key := range []string{former, keys()[0]} {
		if strings.Contains(logs, key) {
			t.Error("a key is in the log")
		}
	}
}
