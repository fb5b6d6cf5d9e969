package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestKEK(t *testing.T) {
	f := newFake(t)
	const one, two = "00000000000000aa", "00000000000000bb"
	sealed := func(alone bool, keys []string, used string, replicas ...string) string {
		have := map[string][]string{}
		for _, name := range replicas {
			have[name] = keys
		}
		text, err := json.Marshal(map[string]any{"keys": keys, "alone": alone, "uses": []map[string]any{{"key": used, "resources": 7, "changes": 3}}, "replicas": have})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	did := func(from int) string {
		f.mu.Lock()
		defer f.mu.Unlock()
		return strings.Join(f.requests[from:], "\n")
	}
	for name, c := range map[string]struct {
		args     []string
		kek      []string
		requests []string
		says     []string
	}{
		"status": {[]string{"kek", "status"}, []string{sealed(true, []string{two}, one, "g")}, []string{"GET /v1/kek"}, []string{two + "   seals     0 ", one + "   MISSING   7 "}},
		"rotate": {[]string{"kek", "rotate"}, []string{sealed(true, []string{one}, one, "g"), sealed(true, []string{two, one}, two, "g")},
			[]string{"GET /v1/kek", "POST /v1/kek/keys", "POST /v1/kek/reseal", "POST /v1/kek/reseal", "GET /v1/kek", "DELETE /v1/kek/keys/" + one},
			[]string{"key " + two + " is in the key file", "6 values sealed anew", "key " + one + " is retired"}},
		"rotate, which was interrupted": {[]string{"kek", "rotate"}, []string{sealed(true, []string{two, one}, one, "g")},
			[]string{"GET /v1/kek", "POST /v1/kek/reseal", "POST /v1/kek/reseal", "GET /v1/kek", "DELETE /v1/kek/keys/" + one}, []string{"is retired"}},
		"rotate, in replicas": {[]string{"kek", "rotate"}, []string{sealed(false, []string{one}, one, "g", "h")}, []string{"GET /v1/kek", "POST /v1/kek/keys"}, []string{"copy the key file to the other replicas"}},
		"reseal":              {[]string{"kek", "reseal"}, nil, []string{"POST /v1/kek/reseal", "POST /v1/kek/reseal"}, []string{"6 values sealed anew"}},
		"retire":              {[]string{"kek", "retire", one}, nil, []string{"DELETE /v1/kek/keys/" + one}, []string{"the key is retired"}},
	} {
		f.mu.Lock()
		f.kek, f.reseals = c.kek, []string{`{"resealed":4,"more":true}`, `{"resealed":2,"more":false}`}
		from := len(f.requests)
		f.mu.Unlock()
		code, out, errs := run(t, "", c.args...)
		if got := did(from); code != ExitDone || got != strings.Join(c.requests, "\n") {
			t.Errorf("%s: exit %d, asked %s: %s", name, code, got, errs)
		}
		for _, want := range c.says {
			if !strings.Contains(out, want) {
				t.Errorf("%s: it does not say %q:\n%s", name, want, out)
			}
		}
	}
}

// sealing answers as global does to who replaces its key.
func (f *fakeGlobal) sealing(mux *http.ServeMux) {
	next := func(from *[]string) string {
		one := (*from)[0]
		if len(*from) > 1 {
			*from = slices.Delete(*from, 0, 1)
		}
		return one
	}
	mux.HandleFunc("GET /v1/kek", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, next(&f.kek)) })
	mux.HandleFunc("POST /v1/kek/reseal", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, next(&f.reseals)) })
	mux.HandleFunc("POST /v1/kek/keys", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"key":"00000000000000bb"}`)
	})
	mux.HandleFunc("DELETE /v1/kek/keys/{id}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
}
