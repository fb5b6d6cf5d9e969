package rest

import (
	"bytes"
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// Whatever is sent as a change, the answer is a plan or says what is wrong and what to do; nothing is changed by asking.
func FuzzChanges(f *testing.F) {
	s := newStore(f)
	h := New(Config{Store: s, Authenticator: byName{}})
	f.Add(true, `type: Mesh
name: default
`)
	f.Add(true, "type: Timeout\nmesh: default\nname: a\n---\n{}")
	f.Add(false, `{"message": "m", "resources": [{"type": "Mesh", "name": "default"}], "deletes": [{"kind": "Mesh", "name": "other"}]}`)
	f.Add(false, `{"resources": [null, 1, "x", {"type": "Secret", "mesh": "m", "name": "s", "data": "*"}]} {}`)
	f.Fuzz(func(t *testing.T, yaml bool, body string) {
		media := js
		if yaml {
			media = ym
		}
		for _, who := range []string{"admin", "writer"} {
			w := client{t, h}.do(who, "POST", "/v1/changes?dryRun=true", media, body)
			says := strings.Contains(w.Body.String(), `"mend":`) || strings.Contains(w.Body.String(), `"hint":`)
			if w.Code >= 500 || w.Code != 200 && !says {
				t.Fatalf("%d: %s", w.Code, w.Body)
			}
		}
		if at := s.Snapshot().Revision(); at != 0 {
			t.Fatalf("a dry run led to revision %d", at)
		}
	})
}

// The small bodies, as those that ask for tokens.
func FuzzReadJSON(f *testing.F) {
	for _, k := range tokenKinds {
		f.Add([]byte(k.example))
	}
	f.Add([]byte(`{"services": "web", "tags": {"env": ["a", 1]}} {}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var in struct {
			Mesh     string            `json:"mesh"`
			Services values            `json:"services"`
			Tags     map[string]values `json:"tags"`
			TTL      string            `json:"ttl"`
		}
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", js)
		if p := readJSON(httptest.NewRecorder(), r, &in, "an example"); p != nil && (p.Code == "" || p.Mend == "") {
			t.Fatalf("%+v", p)
		}
	})
}

// Whatever path and query are asked for, the answer is what is there or says what is wrong and what to do, at once.
func FuzzQueries(f *testing.F) {
	s := newStore(f)
	h := New(Config{Store: s, Authenticator: byName{}, Zones: &fakeZones{of: 1, changed: make(chan struct{}), answer: []byte("{}")}})
	if w := (client{f, h}).do("admin", "POST", "/v1/changes", ym, "type: Mesh\nname: default\n"); w.Code >= 300 {
		f.Fatal(w.Body)
	}
	for _, seed := range []string{"/v1/changes?limit=2&before=9", "/v1/changes?kind=Mesh&mesh=&name=default", "/v1/changes/1", "/v1/changes/1/status",
		"/v1/meshes/default/timeouts?limit=1&after=a", "/v1/meshes/default", "/v1/zones/east/dataplanes?mesh=default", "/v1/zones/east/dataplanes/-/a?config=true",
		"/v1/status/zones/east", "/v1/zones/east/check-up", "/v1/version", "/v1/meshes/%2e%2e/timeouts/%00", "/v1/changes?limit=-1&before=99999999999999999999"} {
		path, query, _ := strings.Cut(seed, "?")
		f.Add(path, query)
	}
	f.Fuzz(func(t *testing.T, path, query string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // so that what would be followed ends with what is known
		r := httptest.NewRequest("GET", "/", nil).WithContext(ctx)
		r.URL = &url.URL{Path: "/" + strings.TrimLeft(path, "/"), RawQuery: query}
		r.Header.Set("Authorization", "Bearer admin")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch {
		case w.Code >= 500:
			t.Fatalf("%q %q: %d %s", path, query, w.Code, w.Body)
		case w.Code >= 400 && !strings.Contains(w.Body.String(), `"mend":`):
			t.Fatalf("%q %q: %d without what to do: %s", path, query, w.Code, w.Body)
		}
	})
}
