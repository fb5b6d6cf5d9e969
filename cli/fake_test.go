package cli

import (
	"cmp"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/resource"
)

const testToken = "ann's-token"

// fakeGlobal speaks the contract of global's REST over TLS: the resources and changes for real, zones and receipts from
// what a test lays down.
type fakeGlobal struct {
	t  *testing.T
	ca string

	mu     sync.Mutex
	server *httptest.Server
	// resources are as they are shown; exact holds their secrets, too.
	resources, exact map[resource.Key]string
	history          []map[string]any
	// receipts are the bodies of watches, one after another; the last stays.
	receipts []string
	watches  []string
	zones    string
	proxies  map[string]string // by zone
	proxy    string
	requests []string
	bodies   []string
	// roots are told one after another; the last stays.
	roots []string
	// kek and reseals are told one after another; the last stays.
	kek, reseals []string
	// health and checkUps, by zone, are what a doctor is told; NOW in them is when.
	health   string
	checkUps map[string]string
	// replicas are those of global.
	replicas string
}

func told(w io.Writer, text string) {
	fmt.Fprint(w, strings.ReplaceAll(text, "NOW", time.Now().UTC().Format(time.RFC3339Nano)))
}

func newFake(t *testing.T) *fakeGlobal {
	t.Helper()
	f := &fakeGlobal{t: t, resources: map[resource.Key]string{}, exact: map[resource.Key]string{}, proxies: map[string]string{}, zones: `{"items":[]}`}
	f.server = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that refuse it are what is tested
	f.server.StartTLS()
	t.Cleanup(f.server.Close)
	dir := t.TempDir()
	f.ca = filepath.Join(dir, "ca.crt")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
	if err := os.WriteFile(f.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("ZONEFORGE_ADDRESS", f.server.URL)
	t.Setenv("ZONEFORGE_CA", f.ca)
	t.Setenv("ZONEFORGE_TOKEN", testToken)
	return f
}

// root is what is told next.
func (f *fakeGlobal) root() string {
	one := f.roots[0]
	if len(f.roots) > 1 {
		f.roots = f.roots[1:]
	}
	return one
}

func refuse(w http.ResponseWriter, status int, code, detail, mend, violations string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:zoneforge:problem:%s","title":"x","status":%d,"detail":%q,"code":%q,"mend":%q,"violations":[%s]}`,
		code, status, detail, code, mend, violations)
}

func (f *fakeGlobal) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	f.requests, f.bodies = append(f.requests, r.Method+" "+r.URL.RequestURI()), append(f.bodies, string(body))
	if r.Header.Get("Authorization") != "Bearer "+testToken {
		refuse(w, http.StatusUnauthorized, "unauthenticated", "the request carries no valid credentials", "send a valid token", "")
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/changes", func(w http.ResponseWriter, r *http.Request) { f.change(w, r, body) })
	mux.HandleFunc("GET /v1/changes", func(w http.ResponseWriter, _ *http.Request) {
		items := slices.Clone(f.history)
		slices.Reverse(items)
		f.answer(w, map[string]any{"items": items})
	})
	mux.HandleFunc("GET /v1/audit", func(w http.ResponseWriter, _ *http.Request) {
		f.answer(w, map[string]any{"items": []map[string]any{
			{"entry": 4, "time": "2026-01-02T03:04:04Z", "name": "ann", "role": "admin", "from": "10.0.0.1", "method": "GET", "path": "/v1/backup", "status": 0},
			{"entry": 3, "time": "2026-01-02T03:04:03Z", "from": "10.0.0.9", "method": "PUT", "path": "/v1/meshes/m", "status": 401, "code": "unauthenticated", "omitted": 7},
			{"entry": 2, "time": "2026-01-02T03:04:02Z", "name": "vera", "role": "viewer", "from": "10.0.0.2", "method": "POST", "path": "/v1/changes", "status": 403, "code": "forbidden"},
			{"entry": 1, "time": "2026-01-02T03:04:01Z", "name": "ann", "role": "admin", "token": "id", "from": "10.0.0.1", "method": "POST", "path": "/v1/changes", "status": 200,
				"what": []string{"put Mesh m", "delete Timeout m/t", "delete Timeout m/u", "delete Timeout m/v"}, "count": 30, "change": 5},
		}})
	})
	mux.HandleFunc("GET /v1/changes/{seq}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("seq"))
		if n < 1 || n > len(f.history) {
			refuse(w, http.StatusNotFound, "not_found", "there is no such change", "list the changes to see their numbers", "")
			return
		}
		f.answer(w, f.history[n-1])
	})
	mux.HandleFunc("GET /v1/changes/{seq}/status", func(w http.ResponseWriter, r *http.Request) {
		f.watches = append(f.watches, r.URL.RawQuery)
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprint(w, f.receipts[0])
		if len(f.receipts) > 1 {
			f.receipts = f.receipts[1:]
		}
	})
	for _, pattern := range []string{"GET /v1/roots/{mesh}", "POST /v1/roots/{mesh}/rotation", "POST /v1/roots/{mesh}/rotation/without"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, f.root()) })
	}
	mux.HandleFunc("GET /v1/roots", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"items":[%s]}`, f.root()) })
	f.sealing(mux)
	mux.HandleFunc("GET /v1/status/global", func(w http.ResponseWriter, _ *http.Request) { told(w, f.health) })
	mux.HandleFunc("GET /v1/zones/{zone}/check-up", func(w http.ResponseWriter, r *http.Request) {
		if up, ok := f.checkUps[r.PathValue("zone")]; ok {
			told(w, up)
			return
		}
		refuse(w, http.StatusBadGateway, "zone_error", "this zone of version 0.9 doesn't know the query", "see the zone's log", "")
	})
	mux.HandleFunc("GET /v1/status/replicas", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, cmp.Or(f.replicas, `{"items":[]}`))
	})
	mux.HandleFunc("GET /v1/status/zones", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, f.zones) })
	mux.HandleFunc("GET /v1/status/zones/{zone}", func(w http.ResponseWriter, r *http.Request) {
		var list struct{ Items []json.RawMessage }
		if err := json.Unmarshal([]byte(f.zones), &list); err != nil {
			f.t.Error(err)
		}
		for _, raw := range list.Items {
			if strings.Contains(string(raw), `"zone":"`+r.PathValue("zone")+`"`) {
				f.answer(w, raw)
				return
			}
		}
		refuse(w, http.StatusNotFound, "not_found", `zone "`+r.PathValue("zone")+`" is not known`, "list the zones to see which have connected", "")
	})
	mux.HandleFunc("GET /v1/zones/{zone}/dataplanes", func(w http.ResponseWriter, r *http.Request) {
		if answer, ok := f.proxies[r.PathValue("zone")]; ok {
			fmt.Fprint(w, answer)
			return
		}
		refuse(w, http.StatusServiceUnavailable, "zone_not_connected", "the zone is not connected", "start the zone", "")
	})
	mux.HandleFunc("GET /v1/zones/{zone}/dataplanes/{mesh}/{name}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, f.proxy) })
	mux.HandleFunc("POST /v1/tokens/revocations", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /v1/tokens/keys", func(w http.ResponseWriter, _ *http.Request) {
		f.answer(w, map[string]any{"id": "new-key", "purpose": "zone"})
	})
	mux.HandleFunc("DELETE /v1/tokens/keys/{id}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /v1/tokens/{what}", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusCreated)
		f.answer(w, map[string]string{"token": "signed-for-" + r.PathValue("what"), "id": "id-1", "expires": "2026-01-02T03:04:05Z"})
	})
	mux.HandleFunc("GET /v1/version", func(w http.ResponseWriter, _ *http.Request) {
		f.answer(w, map[string]string{"version": "v9", "epoch": "e1", "replica": "g-0"})
	})
	mux.HandleFunc("GET /v1/{plural}", func(w http.ResponseWriter, r *http.Request) {
		f.list(w, r.PathValue("plural"), r.URL.Query().Get("mesh"))
	})
	mux.HandleFunc("GET /v1/{plural}/{name}", func(w http.ResponseWriter, r *http.Request) {
		f.one(w, r.PathValue("plural"), "", r.PathValue("name"))
	})
	mux.HandleFunc("GET /v1/meshes/{mesh}/{plural}/{name}", func(w http.ResponseWriter, r *http.Request) {
		f.one(w, r.PathValue("plural"), r.PathValue("mesh"), r.PathValue("name"))
	})
	mux.ServeHTTP(w, r)
}

func (f *fakeGlobal) answer(w http.ResponseWriter, value any) {
	if err := json.NewEncoder(w).Encode(value); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeGlobal) one(w http.ResponseWriter, plural, mesh, name string) {
	for key, raw := range f.resources {
		if kind, _ := resource.Lookup(key.Kind); kind.Plural == plural && key.Mesh == mesh && key.Name == name {
			fmt.Fprint(w, raw)
			return
		}
	}
	refuse(w, http.StatusNotFound, "not_found", plural+" "+name+" does not exist", "list the kind to see what there is", "")
}

func (f *fakeGlobal) list(w http.ResponseWriter, plural, mesh string) {
	var keys []resource.Key
	for key := range f.resources {
		if kind, _ := resource.Lookup(key.Kind); kind.Plural == plural && (mesh == "" || key.Mesh == mesh) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, resource.Key.Compare)
	items := []json.RawMessage{}
	for _, key := range keys {
		items = append(items, json.RawMessage(f.resources[key]))
	}
	f.answer(w, map[string]any{"items": items, "revision": len(f.history)})
}

// change does what global does with a change, in short; a mesh that is missing is the violation that it finds.
func (f *fakeGlobal) change(w http.ResponseWriter, r *http.Request, body []byte) {
	var in struct {
		Message   string
		Resources []json.RawMessage
		Deletes   []keyOf
	}
	if err := json.Unmarshal(body, &in); err != nil {
		refuse(w, http.StatusBadRequest, "bad_body", err.Error(), "", "")
		return
	}
	dry := r.URL.Query().Get("dryRun") == "true"
	done := changed{DryRun: dry, Created: []keyOf{}, Updated: []keyOf{}, Unchanged: []keyOf{}, Deleted: []keyOf{}}
	var keys []map[string]any
	next, exact := map[resource.Key]string{}, map[resource.Key]string{}
	for i, raw := range in.Resources {
		batch := resource.Decode("body", raw, resource.Options{RefuseProxy: true})
		if len(batch.Violations) > 0 {
			refuse(w, http.StatusUnprocessableEntity, "invalid", batch.Violations[0].String(), "", "")
			return
		}
		got := batch.Resources[0]
		_, known := f.resources[resource.Key{Kind: "Mesh", Name: got.Mesh}]
		if _, coming := next[resource.Key{Kind: "Mesh", Name: got.Mesh}]; got.Mesh != "" && !known && !coming {
			refuse(w, http.StatusUnprocessableEntity, "invalid", "the change has violations, nothing was applied", "mend all violations and repeat",
				fmt.Sprintf(`{"file":"resources[%d]","path":"mesh","message":"mesh %s does not exist","hint":"create the mesh first"}`, i, got.Mesh))
			return
		}
		shown, err := resource.EncodeJSON(got)
		if err != nil {
			f.t.Error(err)
		}
		whole, err := resource.EncodeJSON(got, resource.WithSecrets())
		if err != nil {
			f.t.Error(err)
		}
		key := keyOf(got.Key)
		switch before, ok := f.resources[got.Key]; {
		case ok && f.exact[got.Key] == string(whole):
			done.Unchanged = append(done.Unchanged, key)
		case ok:
			done.Updated = append(done.Updated, key)
			keys = append(keys, map[string]any{"kind": key.Kind, "mesh": key.Mesh, "name": key.Name, "before": json.RawMessage(before), "after": json.RawMessage(shown)})
		default:
			done.Created = append(done.Created, key)
			keys = append(keys, map[string]any{"kind": key.Kind, "mesh": key.Mesh, "name": key.Name, "after": json.RawMessage(shown)})
		}
		next[got.Key], exact[got.Key] = string(shown), string(whole)
	}
	for _, key := range in.Deletes {
		if before, ok := f.resources[resource.Key(key)]; ok {
			done.Deleted = append(done.Deleted, key)
			keys = append(keys, map[string]any{"kind": key.Kind, "mesh": key.Mesh, "name": key.Name, "before": json.RawMessage(before)})
		}
	}
	if !dry && len(keys) > 0 {
		for key, raw := range next {
			f.resources[key], f.exact[key] = raw, exact[key]
		}
		for _, key := range in.Deletes {
			delete(f.resources, resource.Key(key))
		}
		done.Change = int64(len(f.history) + 1)
		done.Revision = done.Change + 100
		f.history = append(f.history, map[string]any{"change": done.Change, "revision": done.Revision, "author": "ann", "message": in.Message,
			"time": fmt.Sprintf("2026-01-02T03:04:%02dZ", done.Change), "count": len(keys), "keys": keys})
	}
	f.answer(w, done)
}
