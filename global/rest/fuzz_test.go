package rest

import (
	"bytes"
	"net/http/httptest"
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
