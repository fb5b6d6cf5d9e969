package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// restoreArgs are those of a restore, to which a global is told as it is to run.
func (f *federation) restoreArgs(more ...string) []string {
	return append([]string{"restore", "--data-dir", f.path("global")}, more...)
}

// alive waits until global answers and both zones hold what it means them to.
func (f *federation) alive(zones ...string) {
	f.t.Helper()
	for _, zone := range zones {
		f.await("zone "+zone, func() error {
			s, err := f.status(zone)
			if err == nil && (!s.Connected || !s.InSync) {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})
	}
}

// TestBackupAndRestore loses global's disk, and puts a backup on a new one. Zones go back to what the backup holds, in which their
// revisions are lower, and no request is lost.
func TestBackupAndRestore(t *testing.T) {
	f := startAcross(t, edgeGateway)
	host := f.host(31)
	f.workload(host+":8080", "v1", nil)
	f.startInWest("echo", "echo", "http", 31, ", version: v1")
	f.settled("east", 1)
	f.settled("west", 2)
	rule := func(path string) string {
		return "      - matches: [{path: {match: EXACT, value: " + path + "}}]\n" + toV1
	}
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	client := newClient(t)
	f.apply(gatewayRoute("old", "", rule("/old")), "type: Secret\nmesh: default\nname: kept\ndata: aHVzaC1odXNo\n")
	f.answers(client, http.StatusOK, "GET", url("/old"))
	requests := f.send(url("/old"))

	file := f.path("one.backup")
	viewer := f.token("viewer", "user", "ann", "--role", "viewer")
	if _, err := f.tryAs(viewer, "backup", "--out", file); err == nil || !strings.Contains(err.Error(), "only an admin") {
		t.Errorf("a viewer's backup: %v", err)
	}
	f.says(f.cli("backup", "--out", file), file, "revision")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), "aHVzaC1odXNo") || strings.Contains(string(text), "PRIVATE KEY") {
		t.Errorf("secrets are in the backup: %v", err)
	}
	before := f.cli("get", "meshgatewayroutes", "-o", "yaml")
	for n := range 5 {
		f.apply(gatewayRoute("new", "", rule(fmt.Sprintf("/new-%d", n))))
	}
	f.answers(client, http.StatusOK, "GET", url("/new-4"))
	newer, err := f.status("east")
	if err != nil {
		t.Fatal(err)
	}

	// The disk is lost; the key was kept elsewhere.
	kek, err := os.ReadFile(f.path("global", "kek"))
	if err != nil {
		t.Fatal(err)
	}
	f.kill("global")
	if err := os.RemoveAll(f.path("global")); err != nil {
		t.Fatal(err)
	}
	f.says(f.cli("restore", "--check", file), "is whole", "federation zoneforge")
	f.fails(1, []string{"there is no key file", "put the key file"}, f.restoreArgs(file)...)
	other := f.write("other-kek", strings.Repeat("ab", 32))
	f.fails(1, []string{"wrong sealing key", "the key file of the global that made it"}, f.restoreArgs(file, "--key-encryption-key-file", other)...)
	f.write("global/kek", string(kek))
	f.fails(1, []string{"line ", "cut off"}, f.restoreArgs(f.write("short.backup", string(text[:len(text)/2])))...)
	f.fails(1, []string{"of the federation"}, f.restoreArgs(file, "--domain", "elsewhere")...)
	f.says(f.cli(f.restoreArgs(file)...), "new epoch", "start global")

	f.startGlobal()
	f.alive("east", "west")
	if s, err := f.status("east"); err != nil || s.Revision >= newer.Revision+5 || s.Repairs != 0 {
		t.Errorf("it had %d, and now %+v, %v", newer.Revision, s, err)
	}
	f.answers(client, http.StatusNotFound, "GET", url("/new-4"))
	if after := f.cli("get", "meshgatewayroutes", "-o", "yaml"); after != before {
		t.Errorf("restored is\n%s\nnot\n%s", after, before)
	}
	f.says(f.cli("history"), "restored the backup of")
	// Whoever had a token then has it now.
	if _, err := f.tryAs(viewer, "get", "zones"); err != nil {
		t.Error(err)
	}
	f.apply(gatewayRoute("new", "", rule("/newer")))
	f.answers(client, http.StatusOK, "GET", url("/newer"))

	// In place of what is there, only when asked to; a global that runs is left alone.
	f.fails(1, []string{"in use by another process"}, f.restoreArgs(file, "--replace")...)
	if code := f.end("global"); code != 0 {
		t.Errorf("global ends with %d", code)
	}
	f.fails(1, []string{"store is not empty", "--replace"}, f.restoreArgs(file)...)
	f.says(f.cli(f.restoreArgs(file, "--replace")...), "it replaces revision")
	f.startGlobal()
	f.alive("east", "west")
	f.answers(client, http.StatusNotFound, "GET", url("/newer"))
	f.settled("east", 1)
	f.settled("west", 2)
	requests.noneLost(t)
	if left, _ := filepath.Glob(f.path(".one.backup*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
