package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/loopback"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// TestMain makes the tests independent of the settings of who runs them.
func TestMain(m *testing.M) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "ZONEFORGE_") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("XDG_CONFIG_HOME", filepath.Join(os.TempDir(), "zoneforge-no-such-folder"))
	os.Exit(m.Run())
}

const meshDocument = "type: Mesh\nname: default\n"

func timeout(connect string) string {
	return "type: Timeout\nmesh: default\nname: all\nsources:\n  - match: {kuma.io/service: web}\ndestinations:\n  - match: {kuma.io/service: '*'}\n" +
		"conf:\n  connectTimeout: " + connect + "\n"
}

func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// session runs command lines and compares what they print, with their exit codes, with a golden.
type session struct {
	t    *testing.T
	text bytes.Buffer
	hide map[string]string
}

func (s *session) run(stdin string, args ...string) {
	s.t.Helper()
	code, out, errs := run(s.t, stdin, args...)
	fmt.Fprintf(&s.text, "$ zoneforge %s\n%s", strings.Join(args, " "), out)
	for line := range strings.Lines(errs) {
		s.text.WriteString("! " + line)
	}
	if code != 0 {
		fmt.Fprintf(&s.text, "exit %d\n", code)
	}
	s.text.WriteByte('\n')
}

func (s *session) golden(name string) {
	s.t.Helper()
	got := s.text.String()
	for from, to := range s.hide {
		got = strings.ReplaceAll(got, from, to)
	}
	got = regexp.MustCompile(`go1\.\S+ \S+/\S+`).ReplaceAllString(got, "GO")
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if got != string(want) {
		s.t.Errorf("%s differs (-update rewrites it):\n%s", path, difference(string(want), got))
	}
}

func TestChangesGolden(t *testing.T) {
	f := newFake(t)
	s := &session{t: t, hide: map[string]string{strings.TrimPrefix(f.server.URL, "https://"): "GLOBAL"}}
	s.run(timeout("5s"), "apply", "-f", "-")
	s.run(meshDocument+"---\n"+timeout("5s"), "apply", "-f", "-", "--dry-run")
	s.run(meshDocument+"---\n"+timeout("5s"), "apply", "-f", "-", "--message", "first")
	s.run(timeout("5s"), "apply", "-f", "-")
	s.run(timeout("5s")+"---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n", "diff", "-f", "-")
	s.run(timeout("9s"), "diff", "-f", "-")
	s.run(timeout("9s"), "apply", "-f", "-", "-o", "json")
	s.run("", "history")
	s.run("", "history", "-o", "yaml", "--limit", "1")
	s.run("", "audit")
	s.run("", "audit", "-o", "yaml")
	s.run("", "audit", "--limit", "1001")
	s.run("", "show", "2")
	s.run("", "show", "0")
	s.run("", "show", "9")
	s.run("", "get", "timeouts")
	s.run("", "get", "timeout", "all", "-o", "yaml")
	s.run("", "get", "timeout", "all", "-o", "json")
	s.run("", "get", "retries")
	s.run("", "get", "retries", "-o", "json")
	s.run("", "get", "meshes")
	s.run("", "get", "meshes", "-m", "default")
	s.run("", "get", "wat")
	s.run("", "rollback", "1")
	s.run("", "rollback", "2", "--dry-run")
	s.run("", "rollback", "2")
	s.run("", "get", "timeout", "all", "-o", "yaml")
	s.run("", "delete", "timeout", "al")
	s.run("", "delete", "timeout", "all")
	s.run("", "rollback", "4")
	s.run(strings.Replace(timeout("5s"), "conf", "cnf", 1), "apply", "-f", "-")
	s.run("type: Secret\nmesh: default\nname: s\ndata: c2VjcmV0\n", "apply", "-f", "-")
	s.run("", "get", "secret", "s", "-o", "yaml")
	s.run("type: Secret\nmesh: default\nname: s\ndata: b3RoZXI=\n", "diff", "-f", "-")
	s.run("type: Secret\nmesh: default\nname: s\ndata: b3RoZXI=\n", "apply", "-f", "-")
	s.run("", "rollback", "7")
	s.run("", "rollback", "6")
	s.run("", "rollback", "6", "--force")
	s.run("", "apply")
	s.run("", "apply", "-f", "-", "--wait", "--dry-run")
	s.run("", "version")
	s.golden("changes")
	if sent := strings.Join(f.bodies, ""); !strings.Contains(sent, "c2VjcmV0") {
		t.Error("the bytes of a secret were not sent")
	}
}

const zones = `{"items":[
 {"zone":"east","connected":true,"enabled":true,"since":"2026-01-02T03:04:05Z","lastSeen":"2026-01-02T03:05:05Z","version":"v1","revision":107,"wanted":107,
  "inSync":true,"proxies":3,"acked":2,"nacks":[{"mesh":"default","proxy":"Dataplane/default/web-1","typeUrl":"type.googleapis.com/envoy.config.listener.v3.Listener",
  "revision":107,"error":"address in use\nreally","time":"2026-01-02T03:04:06Z"}],"rejected":[{"kind":"TrafficRoute","mesh":"default","name":"r","reason":"weight"}],
  "ingresses":[{"name":"east.ingress-1","address":"10.0.0.1","port":10001}],"services":[{"mesh":"default","service":"web","count":2}],"repairs":0,
  "replicas":[{"replica":"cp-0","connected":true,"since":"2026-01-02T03:04:05Z","revision":107,"proxies":3,"acked":2}]},
 {"zone":"west","connected":false,"enabled":true,"version":"v1","revision":101,"wanted":107,"inSync":false,"problem":"disk full","proxies":0,"acked":0},
 {"zone":"moon","connected":false,"enabled":false,"version":"","revision":0,"wanted":107,"inSync":false,"proxies":0,"acked":0}]}`

const eastProxies = `{"items":[
 {"kind":"Dataplane","mesh":"default","name":"web-1","services":["web","web-admin"],"address":"10.0.0.7","since":"2026-01-02T03:04:05Z","revision":107,"acked":true,"nacks":[]},
 {"kind":"ZoneIngress","mesh":"","name":"ingress-1","services":[],"address":"10.0.0.1","since":"2026-01-02T03:04:05Z","revision":106,"acked":false,"nacks":[{"error":"x"}]}]}`

const webProxy = `{"kind":"Dataplane","mesh":"default","name":"web-1","services":["web"],"address":"10.0.0.7","since":"2026-01-02T03:04:05Z","revision":107,
 "acked":false,"waiting":"the certificate of web","nacks":[{"typeUrl":"type.googleapis.com/envoy.config.listener.v3.Listener","names":["inbound"],"error":"no","time":"2026-01-02T03:04:05Z"}],
 "rejected":[{"kind":"Retry","mesh":"default","name":"odd","revision":107,"why":"no such method"}],"policies":[{"kind":"Timeout","name":"all","revision":103,"why":"matches web to *"}],"config":{"listeners":[{"name":"inbound"}],"secrets":"[redacted]"}}`

func TestStatusGolden(t *testing.T) {
	f := newFake(t)
	s := &session{t: t, hide: map[string]string{}}
	s.run("", "get", "zones")
	f.zones, f.proxies["east"], f.proxy = zones, eastProxies, webProxy
	s.run("", "get", "zones")
	s.run("", "get", "zones", "west")
	s.run("", "get", "zone", "west", "-o", "yaml")
	s.run("", "inspect", "zone", "east")
	s.run("", "inspect", "zone", "north")
	s.run("", "get", "dataplanes")
	s.run("", "get", "dataplanes", "--zone", "east", "web-1", "-o", "json")
	s.run("", "get", "dataplanes", "--zone", "west")
	s.run("", "get", "dataplanes", "db-1")
	s.run("", "get", "meshes", "--zone", "east")
	s.run("", "inspect", "dataplane", "web-1")
	s.run("", "inspect", "dataplane", "web-1", "--config", "-o", "yaml")
	s.run("", "inspect", "dataplane", "web-2")
	s.golden("status")
	for _, want := range []string{"GET /v1/zones/east/dataplanes/default/web-1", "GET /v1/zones/east/dataplanes/default/web-1?config=true"} {
		if !slices.Contains(f.requests, want) {
			t.Errorf("%s was not asked: %q", want, f.requests)
		}
	}
}

func TestOneSilentZoneHidesNoOther(t *testing.T) {
	f := newFake(t)
	f.zones = strings.Replace(zones, `"zone":"west","connected":false`, `"zone":"west","connected":true`, 1)
	f.proxies["east"] = eastProxies
	code, out, errs := run(t, "", "get", "dataplanes")
	if code != ExitDone || !strings.Contains(out, "web-1") || !strings.Contains(errs, "zone west: the zone is not connected") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestTokens(t *testing.T) {
	f := newFake(t)
	for _, c := range []struct {
		args       []string
		path, body string
	}{
		{[]string{"zone", "east"}, "zone", `{"zone":"east"}`},
		{[]string{"zone-ingress", "east", "--ttl", "2h"}, "zone-ingress", `{"ttl":"2h0m0s","zone":"east"}`},
		{[]string{"user", "ann", "--role", "writer", "-m", "a", "-m", "b"}, "user", `{"meshes":["a","b"],"name":"ann","role":"writer"}`},
		{[]string{"dataplane", "--service", "web", "--tag", "env=a", "--tag", "env=b", "--zone", "east"}, "dataplane",
			`{"mesh":"default","services":["web"],"tags":{"env":["a","b"]},"zone":"east"}`},
	} {
		code, out, errs := run(t, "", append([]string{"token"}, c.args...)...)
		if code != ExitDone || out != "signed-for-"+c.path+"\n" || !strings.Contains(errs, "lives until 2026-01-02 03:04:05Z") {
			t.Errorf("%v: exit %d, %q, %q", c.args, code, out, errs)
		}
		last := len(f.requests) - 1
		if f.requests[last] != "POST /v1/tokens/"+c.path || strings.TrimSpace(f.bodies[last]) != c.body {
			t.Errorf("%v asks %s with %s", c.args, f.requests[last], f.bodies[last])
		}
	}
	path := filepath.Join(t.TempDir(), "token")
	if code, out, errs := run(t, "", "token", "zone", "east", "--out", path); code != ExitDone || strings.Contains(out+errs, "signed-for") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if code, out, errs := run(t, "", "token", "rotate-key", "zone"); code != ExitDone || out != "new-key\n" || strings.TrimSpace(f.bodies[len(f.bodies)-1]) != `{"purpose":"zone"}` {
		t.Errorf("exit %d, %q, %q, sent %s", code, out, errs, f.bodies[len(f.bodies)-1])
	}
	if code, out, errs := run(t, "", "token", "retire-key", "a/b"); code != ExitDone || out != "the key is retired\n" || f.requests[len(f.requests)-1] != "DELETE /v1/tokens/keys/a%2Fb" {
		t.Errorf("exit %d, %q, %q, asked %s", code, out, errs, f.requests[len(f.requests)-1])
	}
	if code, _, errs := run(t, "", "token", "revoke", path); code != ExitDone || strings.TrimSpace(f.bodies[len(f.bodies)-1]) != `{"token":"signed-for-zone"}` {
		t.Errorf("exit %d, %q, sent %s", code, errs, f.bodies[len(f.bodies)-1])
	}
	for _, args := range [][]string{{"user", "ann"}, {"dataplane", "--tag", "env"}, {"zone"}, {"zone", "east", "--ttl", "-1h"}} {
		if code, _, errs := run(t, "", append([]string{"token"}, args...)...); code != ExitUsage {
			t.Errorf("%v: exit %d, %q", args, code, errs)
		}
	}
}

const (
	sent     = `{"change":1,"revision":101,"live":false,"proxies":3,"acked":0,"zonesLive":0,"zonesTotal":2,"zones":[{"zone":"east","connected":true,"proxies":2},{"zone":"west","connected":true,"proxies":1}]}` + "\n"
	halfway  = `{"change":1,"revision":101,"live":false,"proxies":3,"acked":2,"zonesLive":1,"zonesTotal":2,"zones":[{"zone":"east","connected":true,"taken":true,"live":true,"proxies":2,"acked":2},{"zone":"west","connected":true,"taken":true,"proxies":1}]}` + "\n"
	complete = `{"change":1,"revision":101,"live":true,"liveSince":"2026-01-02T03:04:05.25Z","proxies":3,"acked":3,"zonesLive":2,"zonesTotal":2,"zones":[{"zone":"east","connected":true,"taken":true,"live":true,"proxies":2,"acked":2},{"zone":"west","connected":true,"taken":true,"live":true,"proxies":1,"acked":1}]}` + "\n"
	refused  = `{"change":1,"revision":101,"live":false,"proxies":3,"acked":2,"zonesLive":1,"zonesTotal":2,"zones":[{"zone":"east","connected":true,"taken":true,"live":true,"proxies":2,"acked":2},{"zone":"west","connected":true,"taken":true,"refused":true,"proxies":1,"nacks":[{"mesh":"default","proxy":"web-1","typeUrl":"type.googleapis.com/envoy.config.cluster.v3.Cluster","revision":101,"error":"bad\nTLS"}],"rejected":[{"kind":"Timeout","mesh":"default","name":"all","reason":"too short"}]}]}` + "\n"
	absent   = `{"change":1,"revision":101,"live":false,"complete":true,"proxies":2,"acked":2,"zonesLive":1,"zonesTotal":2,"zones":[{"zone":"east","connected":true,"taken":true,"live":true,"proxies":2,"acked":2},{"zone":"west","connected":false}]}` + "\n"
)

func TestWait(t *testing.T) {
	for _, c := range []struct {
		name, timeout string
		receipts      []string
		code          int
		out, errs     string
	}{
		{"live", "60s", []string{sent + halfway + complete}, 0,
			"zone east: sent, 0 of 2 proxies\nzone west: sent, 0 of 1 proxy\nzone east: live, 2 of 2 proxies\nzone west: reaching proxies, 0 of 1 proxy\n" +
				"zone west: live, 1 of 1 proxy\nrevision 101 is live on 3 of 3 proxies in 2 of 2 zones since 2026-01-02T03:04:05.25Z\n", ""},
		{"a replica stops meanwhile", "60s", []string{sent, halfway, complete}, 0,
			"revision 101 is live on 3 of 3 proxies in 2 of 2 zones since 2026-01-02T03:04:05.25Z\n", ""},
		{"refused", "60s", []string{sent + refused}, 1,
			"west: Timeout default/all: too short\nwest: proxy default/web-1 refuses Cluster of revision 101: bad TLS\nrevision 101 is live on 2 of 3 proxies in 1 of 2 zones\n",
			"zoneforge: change 1 is committed but not live everywhere: refused in west\n"},
		{"not in time", "300ms", []string{halfway}, 1, "in 1 of 2 zones\n", "not through in west after 300ms\n"},
		{"a zone comes back", "60s", []string{absent, absent, complete}, 0,
			"zone west: not connected\nzone west: live, 1 of 1 proxy\nrevision 101 is live on 3 of 3 proxies in 2 of 2 zones since 2026-01-02T03:04:05.25Z\n", ""},
		{"absent", "300ms", []string{absent}, 1, "zone west: not connected\n", "west not connected, to take it on return\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			f.receipts = c.receipts
			code, out, errs := run(t, meshDocument, "apply", "-f", "-", "--wait", "--timeout", c.timeout)
			if code != c.code || !strings.Contains(out, c.out) || !strings.HasSuffix(errs, c.errs) {
				t.Errorf("exit %d\n%s%s", code, out, errs)
			}
			if len(f.watches) == 0 || !strings.HasPrefix(f.watches[0], "watch=true&timeout=") {
				t.Errorf("watched with %q", f.watches)
			}
		})
	}
	t.Run("json", func(t *testing.T) {
		newFake(t).receipts = []string{sent + complete}
		code, out, errs := run(t, meshDocument, "apply", "-f", "-", "--wait", "-o", "json")
		if code != 0 || !strings.HasPrefix(out, "{") || !strings.Contains(out, `"liveSince": "2026-01-02T03:04:05.25Z"`) || !strings.Contains(errs, "zone east: live") {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
	})
	t.Run("nothing to wait for", func(t *testing.T) {
		f := newFake(t)
		f.receipts = []string{complete}
		run(t, meshDocument, "apply", "-f", "-", "--wait")
		if code, out, _ := run(t, meshDocument, "apply", "-f", "-", "--wait"); code != 0 || !strings.Contains(out, "nothing to change") || len(f.watches) != 1 {
			t.Errorf("exit %d, %q, %d watches", code, out, len(f.watches))
		}
	})
}

// A zone may be lost late, when others were waited for.
func TestAnAbsenceIsWaitedForFromItsBeginning(t *testing.T) {
	read := func(text string) (r receipt) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	f, now := &follower{}, time.Now()
	for i, step := range []struct {
		receipt string
		after   time.Duration
		settled bool
	}{
		{absent, 0, false}, {absent, absentGrace - time.Second, false}, {absent, time.Second, true},
		{halfway, time.Minute, false}, {absent, time.Minute, false}, {absent, absentGrace, true}, {complete, 0, true},
	} {
		r := read(step.receipt)
		now = now.Add(step.after)
		if f.miss(r, now); f.settled(&r, now) != step.settled {
			t.Errorf("step %d: settled is not %v", i, step.settled)
		}
	}
}

func TestProgressIsRewrittenOnATerminal(t *testing.T) {
	f := newFake(t)
	f.receipts = []string{sent + complete}
	c, err := newClient(newApply(Streams{}).Flags())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := (&follower{out: &out, inPlace: true}).follow(context.Background(), c, 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	want := "\x1b[2Kzone east: sent, 0 of 2 proxies\n\x1b[2Kzone west: sent, 0 of 1 proxy\n\x1b[J" +
		"\x1b[2A\x1b[2Kzone east: live, 2 of 2 proxies\n\x1b[2Kzone west: live, 1 of 1 proxy\n\x1b[J" +
		"revision 101 is live on 3 of 3 proxies in 2 of 2 zones since 2026-01-02T03:04:05.25Z\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestClientErrors(t *testing.T) {
	f := newFake(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/meshes":
			http.Redirect(w, r, f.server.URL, http.StatusFound)
		case "/v1/timeouts":
			fmt.Fprint(w, "<html>")
		default:
			refuse(w, http.StatusForbidden, "forbidden", "not allowed", "use a token of an admin", "")
		}
	}))
	defer other.Close()
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	closed := fmt.Sprintf("127.0.0.1:%d", port)
	noCA := file(t, "ca.crt", "nothing")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"refused", []string{"get", "meshes", "--address", closed}, 1, "is global running there? Its address is set by --address, ZONEFORGE_ADDRESS"},
		{"unknown authority", []string{"get", "meshes", "--ca", ""}, 1, "is not proven by the CA"},
		{"no certificate", []string{"get", "meshes", "--ca", noCA}, 1, "holds no certificate in PEM"},
		{"wrong name", []string{"get", "meshes", "--address", strings.Replace(f.server.URL, "127.0.0.1", "localhost", 1)}, 1, "is not in global's certificate"},
		{"no TLS", []string{"get", "meshes", "--address", strings.TrimPrefix(plain.URL, "http://")}, 1, "does not speak TLS"},
		{"http", []string{"get", "meshes", "--address", plain.URL}, 2, "tokens are sent over TLS alone"},
		{"wrong token", []string{"get", "meshes", "--token-file", file(t, "token", "wrong")}, 1, "ask an admin for a new one [unauthenticated]"},
		{"no token in the file", []string{"get", "meshes", "--token-file", file(t, "token", "\n")}, 1, "holds no token"},
		{"forbidden", []string{"get", "retries", "--address", other.URL}, 1, "not allowed; use a token of an admin [forbidden]"},
		{"redirect", []string{"get", "meshes", "--address", other.URL}, 1, "302 Found, and not as global does"},
		{"not global", []string{"get", "timeouts", "--address", other.URL}, 1, "is not what global says"},
		{"bad settings", []string{"get", "meshes", "--client-config", file(t, "client.yaml", "adress: x\n")}, 2, "client.yaml:1:1: unknown setting \"adress\"; did you mean address?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if code, _, errs := run(t, "", c.args...); code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("exit %d, %q, want %d with %q", code, errs, c.code, c.want)
			}
		})
	}
	for i, r := range f.requests {
		if strings.Contains(r, "redirect") || f.bodies[i] != "" {
			t.Errorf("unexpected request %s", r)
		}
	}
}

func TestConfigKeepsHowToReachGlobal(t *testing.T) {
	f := newFake(t)
	t.Setenv("ZONEFORGE_ADDRESS", "")
	t.Setenv("ZONEFORGE_CA", "")
	t.Setenv("ZONEFORGE_TOKEN", "")
	token := file(t, "token", testToken+"\n")
	if code, _, errs := run(t, "", "config", "set"); code != ExitUsage {
		t.Errorf("exit %d, %q", code, errs)
	}
	if code, out, errs := run(t, "", "version"); code != 0 || strings.Contains(out, "global") {
		t.Errorf("exit %d, %q, %q: nothing is configured", code, out, errs)
	}
	if code, _, errs := run(t, "", "config", "set", "--address", f.server.URL, "--ca", f.ca); code != 0 {
		t.Fatalf("exit %d, %q", code, errs)
	}
	if code, _, errs := run(t, "", "config", "set", "--token-file", token); code != 0 {
		t.Fatalf("exit %d, %q", code, errs)
	}
	if code, out, errs := run(t, "", "version"); code != 0 || !strings.Contains(out, "global v9, replica g-0, epoch e1") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if code, out, _ := run(t, "", "config", "show"); code != 0 || !strings.Contains(out, token) || strings.Contains(out, testToken) {
		t.Errorf("exit %d, %q", code, out)
	}
}

func TestDifference(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{"", "a\n", "+ a\n"},
		{"a\n", "", "- a\n"},
		{"a\nb\nc\nd\ne\nf\ng\n", "a\nb\nc\nD\ne\nf\ng\n", "  …\n  b\n  c\n- d\n+ D\n  e\n  f\n  …\n"},
		{"a\nb\n", "b\nc\n", "- a\n  b\n+ c\n"},
	} {
		if got := difference(c.before, c.after); got != c.want {
			t.Errorf("%q to %q:\n%s\nwant\n%s", c.before, c.after, got, c.want)
		}
	}
}

// A request that global was asked for too often is repeated once it may come back, and given up after a few times.
func TestTooManyRequests(t *testing.T) {
	f := newFake(t)
	busy := 2
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if busy--; busy >= 0 {
			w.Header().Set("Retry-After", "0")
			refuse(w, http.StatusTooManyRequests, "too_many_requests", "too many requests", "wait", "")
			return
		}
		f.server.Config.Handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	ca := file(t, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	if code, out, errs := run(t, "", "get", "meshes", "--address", server.URL, "--ca", ca); code != 0 {
		t.Errorf("exit %d, %q %q", code, out, errs)
	}
	busy = 100
	if code, _, errs := run(t, "", "get", "meshes", "--address", server.URL, "--ca", ca); code != 1 || !strings.Contains(errs, "[too_many_requests]") || busy != 100-maxAttempts {
		t.Errorf("exit %d, %q, %d left", code, errs, busy)
	}
}
