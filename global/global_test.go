package global

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/zoneforge/zoneforge/e2e/goroutines"
)

// patience is how long tests wait for what comes soon on a machine that does nothing else.
const patience = 5 * time.Minute

// TestMain finds goroutines that are left over. A probe of another replica that is under way when gossip stops ends by its own timeout.
func TestMain(m *testing.M) {
	goroutines.Verify(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// running is a replica on ephemeral ports with a client that trusts its certificate.
type running struct {
	*testing.T
	*Global
	client *http.Client
	dir    string
	stop   func() error
	logs   *observer.ObservedLogs
}

func config(dir string) Config {
	return Config{DataDir: dir, RESTAddress: "127.0.0.1:0", KDSAddress: "127.0.0.1:0", Version: "1.2.3", Replica: "one"}
}

func start(t *testing.T, cfg Config, change ...func(*Global)) *running {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	cfg.Logger = zap.New(core)
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, fn := range change {
		fn(g)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	stopped := false
	r := &running{T: t, Global: g, dir: cfg.DataDir, logs: logs, stop: func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for g.Addresses() == (Addresses{}) {
		select {
		case err := <-ended:
			stopped = true
			cancel()
			t.Fatalf("ended before it was ready: %v", err)
		case <-limit.C:
			t.Fatal("not ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.file(filepath.Join("tls", "server-ca.crt")))
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	r.client = &http.Client{Transport: tr, Timeout: patience}
	t.Cleanup(tr.CloseIdleConnections)
	return r
}

// file reads from the data directory.
func (r *running) file(name string) []byte {
	r.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.Fatal(err)
	}
	return b
}

func (r *running) admin() string { return strings.TrimSpace(string(r.file("admin-token"))) }

// do sends a request with a token, or with none.
func (r *running) do(token, method, path, body string, headers ...string) (int, string) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, "https://"+r.Addresses().REST+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// want sends a request and checks the answer's code and parts.
func (r *running) want(code int, token, method, path, body string, parts ...string) string {
	r.Helper()
	got, text := r.do(token, method, path, body)
	if got != code {
		r.Errorf("%s %s: %d, want %d: %s", method, path, got, code, text)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			r.Errorf("%s %s lacks %s: %s", method, path, p, text)
		}
	}
	return text
}

// token asks for a token.
func (r *running) token(by, what, body string) string {
	r.Helper()
	asked := time.Now()
	var out struct {
		Token, ID string
		Expires   time.Time
	}
	if err := json.Unmarshal([]byte(r.want(201, by, "POST", "/v1/tokens/"+what, body)), &out); err != nil {
		r.Fatal(err)
	}
	if out.Token == "" || out.ID == "" || out.Expires.Before(asked) {
		r.Fatalf("%s token: %+v", what, out)
	}
	return out.Token
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// runError runs a replica that can't start.
func runError(t *testing.T, cfg Config) error {
	t.Helper()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err = g.Run(ctx); err == nil {
		t.Fatal("it ran")
	}
	return err
}

func TestFirstStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := start(t, config(dir))
	admin := r.admin()
	for path, want := range map[string]os.FileMode{"": 0o700, "kek": 0o600, "admin-token": 0o600, "zoneforge.json": 0o600, "tls": 0o700, "tls/server.key": 0o600, "store": 0o700} {
		if got := mode(t, filepath.Join(dir, path)); got != want {
			t.Errorf("%q has mode %o, want %o", path, got, want)
		}
	}
	told := false
	for _, e := range r.logs.All() {
		line := fmt.Sprint(e.Message, e.ContextMap())
		told = told || strings.Contains(line, filepath.Join(dir, "admin-token"))
		if strings.Contains(line, admin) {
			t.Errorf("the log shows the token: %s", e.Message)
		}
	}
	if !told {
		t.Error("the log does not say where the admin token is")
	}
	r.want(200, admin, "GET", "/v1/version", "", `"version":"1.2.3"`, `"replica":"one"`, `"epoch":"`)
	r.want(200, admin, "GET", "/v1/meshes/default", "", `"enabledBackend":"ca-1"`, `"type":"builtin"`)
	r.want(200, admin, "GET", "/v1/traffic-permissions", "", `"items":[]`)
	// The keys of the federation are shown to nobody.
	r.want(200, admin, "GET", "/v1/signing-keys", "", `"sealedSeed":"[redacted]"`)
	r.eventually(200, admin, "/v1/certificate-authorities", `"sealedKey":"[redacted]"`)
	r.want(200, "", "GET", "/healthz", "", "ok")
	r.want(200, "", "GET", "/readyz", "", "ready")
	for _, path := range []string{"/metrics", "/v1/version", "/v1/changes", "/v1/nothing"} {
		r.want(401, "", "GET", path, "", "unauthenticated")
	}
	r.want(200, admin, "GET", "/metrics", "", "zoneforge_store_revision", `zoneforge_rest_requests_total{code="401",method="GET",route="/metrics"} 1`,
		`zoneforge_changes_total{outcome="committed"} 0`, "go_goroutines")
}

func TestTokensAndRoles(t *testing.T) {
	r := start(t, config(t.TempDir()))
	admin := r.admin()
	writer := r.token(admin, "user", `{"name":"wim","role":"writer","meshes":["default"]}`)
	viewer := r.token(admin, "user", `{"name":"vera","role":"viewer","ttl":"1h"}`)
	zone := r.token(admin, "zone", `{"zone":"east"}`)
	proxy := r.token(writer, "dataplane", `{"mesh":"default","services":["web"],"tags":{"env":"prod","v":["1","2"]}}`)
	r.token(admin, "zone-ingress", `{"zone":"east","ttl":"1h"}`)

	const secret = `{"message":"m","resources":[{"type":"Secret","mesh":"default","name":"s","data":"c2VjcmV0"}]}`
	r.want(403, viewer, "POST", "/v1/changes", secret, "forbidden")
	// Whoever may not write learns nothing of what is wrong with a document.
	if text := r.want(403, viewer, "POST", "/v1/changes", `{"resources":[{"type":"Secret","nonsense":1}]}`); strings.Contains(text, "nonsense") {
		t.Errorf("a viewer is told %s", text)
	}
	r.want(200, writer, "POST", "/v1/changes", secret, `"created":[{"kind":"Secret"`)
	r.want(403, writer, "POST", "/v1/changes", `{"resources":[{"type":"Mesh","name":"other"}]}`, "Mesh other")
	r.want(200, viewer, "GET", "/v1/changes", "", `"author":"wim"`)
	for _, what := range []string{"user", "zone", "zone-ingress"} {
		r.want(403, writer, "POST", "/v1/tokens/"+what, `{}`, "forbidden")
	}
	r.want(403, viewer, "POST", "/v1/tokens/dataplane", `{"mesh":"default"}`, "forbidden")
	r.want(403, writer, "POST", "/v1/tokens/dataplane", `{"mesh":"other"}`, "forbidden")
	r.want(404, admin, "POST", "/v1/tokens/nonsense", `{}`, "zone-ingress")
	for _, bad := range []struct{ what, body, part string }{
		{"user", `{"name":"x","role":"king"}`, `\"king\" is no role`},
		{"user", `{"name":"x","role":"writer"}`, "meshes to write in"},
		{"user", `{"name":"x","role":"admin","meshes":["default"]}`, "not limited to meshes"},
		{"user", `{"role":"admin"}`, `"path":"name"`},
		{"user", `{"name":"x","role":"writer","meshes":["none"]}`, `mesh \"none\" does not exist`},
		{"user", `{"name":"x","role":"viewer","ttl":"-1h"}`, `"path":"ttl"`},
		{"user", `{"name":"x","role":"viewer","ttl":"soon"}`, `"path":"ttl"`},
		{"zone", `{}`, "the zone is needed"},
		{"zone", `{"zone":"East"}`, "no name of a zone"},
		{"dataplane", `{}`, "the mesh of the dataplane"},
		{"dataplane", `{"mesh":"default","tags":{"a":[]}}`, `tag \"a\"`},
	} {
		r.want(422, admin, "POST", "/v1/tokens/"+bad.what, bad.body, bad.part)
	}
	r.want(400, admin, "POST", "/v1/tokens/zone", `{"zone":"east","surprise":1}`, "surprise")
	r.want(413, admin, "POST", "/v1/tokens/zone", `{"zone":"`+strings.Repeat("x", 1<<17)+`"}`, "too_large")

	// Tokens for other purposes, and what is no token, open nothing.
	for name, wrong := range map[string]string{"zone": zone, "dataplane": proxy, "nonsense": "a.b.c", "cut": viewer[:len(viewer)-4], "empty": " "} {
		if code, text := r.do(wrong, "GET", "/v1/meshes", ""); code != 401 {
			t.Errorf("%s token: %d %s", name, code, text)
		}
	}
	if code, _ := r.do("", "GET", "/v1/meshes", "", "Authorization", "Basic "+admin); code != 401 {
		t.Errorf("basic authorization: %d", code)
	}

	r.want(403, writer, "POST", "/v1/tokens/revocations", `{"token":"`+viewer+`"}`)
	r.want(422, admin, "POST", "/v1/tokens/revocations", `{"token":"a.b.c"}`, "malformed token")
	for range 2 {
		r.want(204, admin, "POST", "/v1/tokens/revocations", `{"token":"`+viewer+`"}`)
	}
	r.want(401, viewer, "GET", "/v1/meshes", "", "unauthenticated")
	for _, other := range []string{zone, proxy} {
		r.want(204, admin, "POST", "/v1/tokens/revocations", `{"token":"`+other+`"}`)
	}

	asked := time.Now()
	brief := r.token(admin, "user", `{"name":"b","role":"viewer","ttl":"2s"}`)
	// It is issued in whole seconds.
	if code, text := r.do(brief, "GET", "/v1/meshes", ""); code != 200 && time.Since(asked) < time.Second {
		t.Errorf("a token of two seconds: %d %s", code, text)
	}
	expired := time.After(patience)
	for code := 0; code != 401; {
		code, _ = r.do(brief, "GET", "/v1/meshes", "")
		select {
		case <-expired:
			t.Fatal("a token of two seconds still opens after minutes")
		default:
		}
	}
}

func TestLoopback(t *testing.T) {
	cfg := config(t.TempDir())
	closed := start(t, cfg)
	closed.want(401, "", "GET", "/v1/meshes", "")
	if err := closed.stop(); err != nil {
		t.Fatal(err)
	}
	cfg.TrustLoopback = true
	open := start(t, cfg)
	open.want(200, "", "POST", "/v1/changes", `{"resources":[{"type":"Mesh","name":"m"}]}`, "created")
	open.want(200, "", "GET", "/v1/changes", "", `"author":"loopback"`)
	// A token that is sent counts.
	open.want(401, "a.b.c", "GET", "/v1/meshes", "")
	for _, header := range []string{"X-Forwarded-For", "Origin", "Sec-Fetch-Site"} {
		if code, _ := open.do("", "GET", "/v1/meshes", "", header, "x"); code != 401 {
			t.Errorf("with %s: %d", header, code)
		}
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	cfg := config(t.TempDir())
	r := start(t, cfg)
	admin, epoch := r.admin(), r.want(200, r.admin(), "GET", "/v1/version", "")
	ca := r.file(filepath.Join("tls", "server-ca.crt"))
	viewer := r.token(admin, "user", `{"name":"vera","role":"viewer"}`)
	revoked := r.token(admin, "user", `{"name":"rex","role":"viewer"}`)
	r.want(204, admin, "POST", "/v1/tokens/revocations", `{"token":"`+revoked+`"}`)
	r.want(200, admin, "POST", "/v1/changes", `{"message":"mine","resources":[{"type":"Mesh","name":"mine"}],"deletes":[{"kind":"Mesh","name":"default"}]}`)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	r = start(t, cfg)
	if r.admin() != admin {
		t.Error("the admin token changed")
	}
	if !bytes.Equal(ca, r.file(filepath.Join("tls", "server-ca.crt"))) {
		t.Error("the authority of the servers changed")
	}
	if again := r.want(200, admin, "GET", "/v1/version", ""); again != epoch {
		t.Errorf("was %s, is %s", epoch, again)
	}
	r.want(200, viewer, "GET", "/v1/meshes/mine", "", `"name":"mine"`)
	r.want(401, revoked, "GET", "/v1/meshes", "")
	r.want(404, viewer, "GET", "/v1/meshes/default", "")
	r.want(200, viewer, "GET", "/v1/changes", "", `"message":"mine"`)

	// What an operator deleted stays away, an empty file asks for a new one.
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.DataDir, "admin-token")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg)
	if _, err := os.Stat(path); err == nil {
		t.Error("the admin token came back")
	}
	r.want(200, admin, "GET", "/v1/meshes", "")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg)
	r.want(200, r.admin(), "GET", "/v1/meshes", "")
}

func TestStartErrors(t *testing.T) {
	if _, err := New(Config{RESTAddress: "nonsense", Domain: "no domain", TLSCertFile: "x", EtcdUsername: "u"}); err == nil {
		t.Error("a wrong configuration is taken")
	} else {
		for _, part := range []string{"data-dir", "rest-address", "domain", "tls-key-file", "password of etcd", "etcd-endpoints"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error lacks %s: %v", part, err)
			}
		}
	}
	cfg := config(t.TempDir())
	r := start(t, cfg)
	wants := func(cfg Config, parts ...string) {
		t.Helper()
		err := runError(t, cfg)
		for _, p := range parts {
			if !strings.Contains(err.Error(), p) {
				t.Errorf("the error lacks %q: %v", p, err)
			}
		}
	}
	wants(cfg, "in use by another process")
	busy := config(t.TempDir())
	busy.RESTAddress = r.Addresses().REST
	wants(busy, "rest-address", "in use", busy.RESTAddress)
	busy = config(t.TempDir())
	busy.KDSAddress = r.Addresses().REST
	wants(busy, "kds-address")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	other := cfg
	other.Domain = "elsewhere"
	wants(other, `domain "zoneforge"`)
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "state.db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wants(config(foreign), "zone's state")
	kek := filepath.Join(cfg.DataDir, "kek")
	saved := r.file("kek")
	if err := os.Remove(kek); err != nil {
		t.Fatal(err)
	}
	wants(cfg, "kek", "restore it from a backup")
	if err := os.WriteFile(kek, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(cfg, "wrong sealing key")
	if err := os.WriteFile(kek, saved, 0o600); err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(cfg.DataDir, "zoneforge.json")
	text := r.file("zoneforge.json")
	if err := os.WriteFile(mark, []byte(`{"role":"global","epoch":"other","domain":"zoneforge"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(cfg, "epoch other", "zoneforge.json")
	if err := os.WriteFile(mark, []byte(`{"role":"zone"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(cfg, "that of a zone")
	if err := os.WriteFile(mark, text, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, cfg) // nothing was harmed meanwhile
}

// TestBusyPort takes a port by hand, as some other program does.
func TestBusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := config(t.TempDir())
	cfg.KDSAddress = l.Addr().String()
	if err := runError(t, cfg); !strings.Contains(err.Error(), "kds-address "+cfg.KDSAddress+" is in use") {
		t.Error(err)
	}
}
