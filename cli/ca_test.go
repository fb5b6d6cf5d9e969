package cli

import (
	"strings"
	"testing"
)

const waitingRoots = `{"mesh":"default","backend":"ca","phase":"trust","since":"2026-01-02T03:04:05Z","roots":[
	{"fingerprint":"aabbccddeeff00112233","notAfter":"2036-01-01T00:00:00Z","signs":true,"wanted":false},
	{"fingerprint":"ffeeddccbbaa99887766","notAfter":"2036-02-01T00:00:00Z","signs":false,"wanted":true}],
	"waiting":[{"zone":"west","reason":"1 of its proxies has not","proxies":["web-1"]}]}`

const oneRoot = `{"mesh":"default","backend":"ca","phase":"none","roots":[{"fingerprint":"ffeeddccbbaa99887766","notAfter":"2036-02-01T00:00:00Z","signs":true,"wanted":true}],"waiting":[]}`

func TestRoots(t *testing.T) {
	f := newFake(t)
	f.roots = []string{waitingRoots, waitingRoots, waitingRoots, waitingRoots, waitingRoots, oneRoot}
	for _, c := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"ca", "status"}, ExitDone, []string{"MESH", "default", "aabbccddeeff0011 ", "yes", "ffeeddccbbaa9988 ", "next", "west: 1 of its proxies has not (web-1)"}},
		{[]string{"ca", "status", "--mesh", "default", "-o", "json"}, ExitDone, []string{`"aabbccddeeff00112233"`, `"phase": "trust"`}},
		{[]string{"ca", "rotate"}, ExitUsage, []string{"--mesh"}},
		{[]string{"ca", "rotate", "--mesh", "default", "--without", "west"}, ExitDone, []string{"mesh default: both roots are trusted by more and more", "waiting for west"}},
		{[]string{"ca", "rotate", "--mesh", "default", "--wait"}, ExitDone, []string{"waiting for west", "mesh default: the next root signs, and it alone is trusted"}},
	} {
		code, out, errs := run(t, "", c.args...)
		if code != c.code {
			t.Errorf("%v: exit %d: %s", c.args, code, errs)
		}
		for _, want := range c.says {
			if !strings.Contains(out+errs, want) {
				t.Errorf("%v: it does not say %q:\n%s%s", c.args, want, out, errs)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	got := strings.Join(f.requests, "\n")
	want := "GET /v1/roots\nGET /v1/roots/default\nPOST /v1/roots/default/rotation/without\nPOST /v1/roots/default/rotation\nGET /v1/roots/default\nGET /v1/roots/default"
	if got != want || f.bodies[2] != `{"zones":["west"]}`+"\n" {
		t.Errorf("asked %s, want %s; %q", got, want, f.bodies[2])
	}
}
