package rest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/global/store"
)

// byName takes the bearer's word for who it is.
type byName struct{}

func (byName) Authenticate(r *http.Request) (Principal, error) {
	switch name := r.Header.Get("Authorization"); name {
	case "admin", "viewer":
		return Principal{Name: name, Role: Role(name)}, nil
	case "writer":
		return Principal{Name: name, Role: RoleWriter, Meshes: []string{"default"}}, nil
	}
	return Principal{}, errors.New("unknown")
}

type client struct {
	t testing.TB
	h http.Handler
}

func (c client) do(who, method, path, contentType, body string, headers ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", who)
	r.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	return w
}

func (c client) want(w *httptest.ResponseRecorder, status int, parts ...string) {
	c.t.Helper()
	if w.Code != status {
		c.t.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	for _, p := range parts {
		if !strings.Contains(w.Body.String(), p) {
			c.t.Errorf("answer lacks %s: %s", p, w.Body)
		}
	}
}

const (
	js = "application/json"
	ym = "application/yaml"
)

// newStore opens a store that runs until the test ends.
func newStore(t testing.TB) *store.Store {
	t.Helper()
	dir := t.TempDir()
	seal, err := store.OpenKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{DataDir: filepath.Join(dir, "data"), Seal: seal})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s
}

// TestAPI walks through one store's life, as starting etcd is what costs.
func TestAPI(t *testing.T) {
	s := newStore(t)
	c := client{t, New(Config{Store: s, Authenticator: byName{}, Now: func() time.Time { return time.Unix(1000, 0) },
		Ready: func(context.Context) error { return errors.New("still loading") }})}

	const change = `{"message":"first","resources":[{"type":"Mesh","name":"default"},{"type":"Secret","mesh":"default","name":"s","data":"c2VjcmV0"}]}`
	c.want(c.do("nobody", "GET", "/healthz", "", ""), 200, "ok")
	c.want(c.do("nobody", "GET", "/readyz", "", ""), 503, `"code":"not_ready"`)
	c.want(c.do("nobody", "GET", "/v1/meshes", "", ""), 401, `"code":"unauthenticated"`)
	c.want(c.do("nobody", "GET", "/nowhere", "", ""), 401)

	before := s.Snapshot().Revision()
	c.want(c.do("admin", "POST", "/v1/changes?dryRun=true", js, change), 200, `"dryRun":true`, `"created":[{"kind":"Mesh","name":"default"}`)
	if got := s.Snapshot().Revision(); got != before {
		t.Errorf("a dry run moved the revision from %d to %d", before, got)
	}
	c.want(c.do("viewer", "POST", "/v1/changes", js, change), 403, `"code":"forbidden"`)
	c.want(c.do("writer", "POST", "/v1/changes", js, change), 403, "Mesh default")
	c.want(c.do("admin", "POST", "/v1/changes", ym, "type: Secret\nmesh: other\nname: s\ndata: c2VjcmV0\n"), 422, `mesh \"other\" does not exist`)
	c.want(c.do("admin", "POST", "/v1/changes", js, change), 200, `"change":1`)
	c.want(c.do("admin", "POST", "/v1/changes", js, change), 200, `"change":0`, `"created":[],"updated":[],"unchanged":[{"kind":"Mesh"`)

	for _, path := range []string{"/v1/secrets?mesh=default", "/v1/meshes/default/secrets", "/v1/meshes/default/secrets/s", "/v1/changes/1"} {
		w := c.do("viewer", "GET", path, "", "")
		c.want(w, 200, "[redacted]")
		if strings.Contains(w.Body.String(), "c2VjcmV0") {
			t.Errorf("%s shows a secret", path)
		}
	}
	c.want(c.do("viewer", "GET", "/v1/changes?limit=5", "", ""), 200, `"author":"admin","message":"first","time":"1970-01-01T00:16:40Z","count":2`)
	c.want(c.do("viewer", "GET", "/v1/changes/99", "", ""), 404, `"code":"not_found"`)

	const secret = "/v1/meshes/default/secrets/s"
	tag := c.do("viewer", "GET", secret, "", "").Header().Get("ETag")
	c.want(c.do("viewer", "GET", secret, "", "", "If-None-Match", tag), 304)
	doc := "type: Secret\nmesh: default\nname: s\ndata: b3RoZXI=\n"
	c.want(c.do("writer", "PUT", secret, ym, doc, "If-None-Match", "*"), 412)
	c.want(c.do("writer", "PUT", secret, ym, doc, "If-Match", tag), 200, `"updated":[{`)
	c.want(c.do("writer", "PUT", secret, ym, doc, "If-Match", tag), 412, `"code":"precondition_failed"`)
	c.want(c.do("writer", "PUT", secret+"2", ym, doc), 422, "the body is not Secret default/s2")
	c.want(c.do("writer", "PUT", "/v1/meshes/other/secrets/s", ym, doc), 403)
	c.want(c.do("admin", "PUT", "/v1/meshes/default/trust-bundles/t", ym, doc), 403, `"code":"read_only_kind"`)
	c.want(c.do("admin", "DELETE", "/v1/meshes/default/dataplanes/d", "", ""), 403, "written by proxies")

	c.want(c.do("admin", "DELETE", "/v1/meshes/default", "", ""), 422, "still holds Secret default/s")
	c.want(c.do("admin", "POST", "/v1/changes", js, `{"deletes":[{"kind":"Nope","name":"x"},{"kind":"TrustBundle","mesh":"default","name":"x"}]}`),
		422, "deletes[0].kind", "deletes[1].kind")
	c.want(c.do("admin", "POST", "/v1/changes", js, `{"surprise":1}`), 400, "surprise")
	c.want(c.do("admin", "POST", "/v1/changes", "text/plain", "x"), 415, `"code":"unsupported_media_type"`)
	c.want(c.do("admin", "POST", "/v1/changes", ym, strings.Repeat("#", maxBody+1)), 413, `"code":"too_large"`)
	c.want(c.do("admin", "POST", "/v1/meshes", js, "{}"), 405, `"code":"method_not_allowed"`)
	c.want(c.do("writer", "DELETE", secret, "", ""), 200, `"deleted":[{`)
	c.want(c.do("writer", "DELETE", secret, "", ""), 404)
	c.want(c.do("admin", "DELETE", "/v1/meshes/default", "", ""), 200)

	lost := client{t, New(Config{Store: racing{s}, Authenticator: byName{}})}
	c.want(lost.do("admin", "PUT", "/v1/meshes/raced", ym, "type: Mesh\nname: raced\n"), 409, `"code":"conflict"`, "Mesh raced")

	goldens := []struct{ method, path, body, want string }{
		{"GET", "/nowhere", "", `{"type":"urn:zoneforge:problem:unknown_route","title":"Not Found","status":404,"detail":"there is no such route","code":"unknown_route",` +
			`"mend":"use /v1/{plural} for global kinds and /v1/meshes/{mesh}/{plural} for kinds of a mesh"}`},
		{"POST", "/v1/changes", "type: Mesh\nname: M\n", `{"type":"urn:zoneforge:problem:invalid","title":"Unprocessable Entity","status":422,` +
			`"detail":"the change has violations, nothing was applied","code":"invalid","mend":"mend all violations and repeat","violations":[{"file":"body","line":2,"column":7,` +
			`"path":"name","message":"\"M\" is no name for a Mesh","hint":"use lower-case letters, digits and hyphens, at most 63"}]}`},
	}
	for _, g := range goldens {
		w := c.do("admin", g.method, g.path, ym, g.body)
		if got := strings.TrimSpace(w.Body.String()); got != g.want || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s:\n got %s\nwant %s", g.method, g.path, got, g.want)
		}
	}
}

// racing is a store where another replica commits the same change just before this one does.
type racing struct{ *store.Store }

func (r racing) Commit(ctx context.Context, c store.Change) (store.Committed, error) {
	if _, err := r.Store.Commit(ctx, c); err != nil {
		return store.Committed{}, err
	}
	return r.Store.Commit(ctx, c)
}
