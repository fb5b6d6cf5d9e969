package composer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/composition"
)

// behind plays Envoy: it takes the composer's calls and answers by their name.
func behind(t *testing.T, answers map[string]http.HandlerFunc) *Composer {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, composition.BackSocket))
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := answers[r.Header.Get(composition.CallHeader)]; h != nil {
			h(w, r)
			return
		}
		http.NotFound(w, r)
	})}}
	s.Start()
	t.Cleanup(s.Close)
	return New(dir, zap.NewNop())
}

func do(t *testing.T, c *Composer, plan composition.Plan, method, target, body string, header ...string) (*http.Response, string) {
	t.Helper()
	encoded, err := composition.Encode(plan)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, h := range composition.Pieces(encoded) {
		r.Header.Set(h.Name, h.Value)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	out := w.Result()
	text, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return out, string(text)
}

func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	}
}

func TestParallelAndSequential(t *testing.T) {
	// a and b answer only once both are asked; c is asked with a's answer.
	var asked atomic.Int32
	both := make(chan struct{})
	meet := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 2 {
				close(both)
			}
			select {
			case <-both:
				fmt.Fprint(w, text)
			case <-r.Context().Done():
			}
		}
	}
	c := behind(t, map[string]http.HandlerFunc{
		"p/a": meet(`{"id": 7}`), "p/b": meet(`[1.0]`),
		"p/c": func(w http.ResponseWriter, r *http.Request) {
			var sent any
			_ = json.NewDecoder(r.Body).Decode(&sent)
			fmt.Fprintf(w, `{"asked": %q, "sent": %q, "x": %q, "auth": %q, "trace": %q, "other": %q, "host": %q}`, r.Method+" "+r.URL.String(), fmt.Sprint(sent),
				r.Header.Get("X-Of"), r.Header.Get("Authorization"), r.Header.Get("Traceparent"), r.Header.Get("Cookie"), r.Host)
		},
	})
	plan := composition.Plan{Name: "p", Path: "/p/{who}", Timeout: time.Minute, Status: 201, ForwardHeaders: []string{"authorization"}, Calls: []composition.Call{
		{Name: "c", Method: "POST", Path: "/c/${calls.a.body.id}?who=${path.who}", Headers: []composition.Header{{Name: "X-Of", Value: "${query.of}"}}, Body: `{"got": "${body.x}"}`, OnFailure: composition.Fail},
		{Name: "a", Method: "GET", Path: "/a", OnFailure: composition.Fail},
		{Name: "b", Method: "GET", Path: "/b", OnFailure: composition.Fail},
	}}
	r, text := do(t, c, plan, "POST", "http://api.example.com/p/me%2Fyou?of=it", `{"x": 5}`, "Authorization", "Bearer x", "Traceparent", "00-1", "Cookie", "c")
	want := `{"a":{"id":7},"b":[1.0],"c":{"asked":"POST /c/7?who=me%2Fyou","auth":"Bearer x","host":"api.example.com","other":"","sent":"map[got:5]","trace":"00-1","x":"it"}}`
	if r.StatusCode != 201 || text != want || r.Header.Get(composition.PartialHeader) != "" {
		t.Errorf("%d %v %s\nwant %s", r.StatusCode, r.Header, text, want)
	}
}

func TestFailures(t *testing.T) {
	c := behind(t, map[string]http.HandlerFunc{
		"p/good": says(200, `{"id": 1}`), "p/bad": says(500, `{}`), "p/text": says(200, "no json"), "p/missing": says(404, `{"why": "gone"}`),
		"p/empty": says(204, ""),
		"p/slow":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	})
	call := func(name, onFailure string) composition.Call {
		out := composition.Call{Name: name, Method: "GET", Path: "/", OnFailure: onFailure}
		if onFailure == composition.Default {
			out.Default = `{"id": "stand-in"}`
		}
		return out
	}
	with := func(c composition.Call, change func(*composition.Call)) composition.Call { change(&c); return c }
	after := func(name string) func(*composition.Call) {
		return func(c *composition.Call) { c.After = []string{name} }
	}
	for _, test := range []struct {
		name    string
		calls   []composition.Call
		timeout time.Duration
		status  int
		body    string
		without string
	}{
		{"good", []composition.Call{call("good", composition.Fail), call("empty", composition.Fail)}, 0, 200, `{"empty":null,"good":{"id":1}}`, ""},
		{"bad", []composition.Call{call("good", composition.Fail), call("bad", composition.Fail)}, 0, 502, `"detail":"it answered with status 500"`, ""},
		{"no JSON", []composition.Call{call("text", composition.Fail)}, 0, 502, `its answer is no JSON`, ""},
		{"omitted", []composition.Call{call("good", composition.Fail), call("bad", composition.Omit)}, 0, 200, `{"bad":null,"good":{"id":1}}`, "bad"},
		{"stood in for", []composition.Call{call("bad", composition.Default)}, 0, 200, `{"bad":{"id":"stand-in"}}`, "bad"},
		{"expected", []composition.Call{with(call("missing", composition.Fail), func(c *composition.Call) { c.Expected = []int{404} })}, 0, 200, `{"missing":{"why":"gone"}}`, ""},
		{"needs what failed", []composition.Call{call("bad", composition.Omit), with(call("good", composition.Omit), after("bad"))}, 0, 200, `{"bad":null,"good":null}`, "bad, good"},
		{"needs what was stood in for", []composition.Call{call("bad", composition.Default), with(call("good", composition.Fail), after("bad"))}, 0, 200, `"good":{"id":1}`, "bad"},
		{"fails with what failed", []composition.Call{call("bad", composition.Omit), with(call("good", composition.Fail), after("bad"))}, 0, 502, `a call that it needs failed: bad`, ""},
		{"slow", []composition.Call{call("slow", composition.Fail)}, 50 * time.Millisecond, 504, `it took too long`, ""},
		{"slow call", []composition.Call{with(call("slow", composition.Omit), func(c *composition.Call) { c.Timeout = 50 * time.Millisecond }), call("good", composition.Fail)}, 0, 200, `{"good":{"id":1},"slow":null}`, "slow"},
		{"one failure ends the rest", []composition.Call{call("bad", composition.Fail), call("slow", composition.Fail)}, time.Hour, 502, `call bad failed`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			timeout := test.timeout
			if timeout == 0 {
				timeout = time.Minute
			}
			r, text := do(t, c, composition.Plan{Name: "p", Path: "/", Timeout: timeout, Status: 200, Calls: test.calls}, "GET", "/", "")
			if r.StatusCode != test.status || !strings.Contains(text, test.body) || r.Header.Get(composition.PartialHeader) != test.without {
				t.Errorf("%d %q without %q, want %d %q without %q", r.StatusCode, text, r.Header.Get(composition.PartialHeader), test.status, test.body, test.without)
			}
		})
	}
	plan := composition.Plan{Name: "p", Path: "/x/{a}", Timeout: time.Minute, Status: 200, Calls: []composition.Call{call("good", composition.Fail)}}
	for target, status := range map[string]int{"/y": 404, "/x/a?%zz": 400} {
		if r, text := do(t, c, plan, "GET", target, ""); r.StatusCode != status {
			t.Errorf("%s: %d %s", target, r.StatusCode, text)
		}
	}
	if r, text := do(t, c, plan, "POST", "/x/a", "{"); r.StatusCode != 400 || !strings.Contains(text, "the body is no JSON") {
		t.Errorf("bad body: %d %s", r.StatusCode, text)
	}
	if r, text := do(t, c, plan, "POST", "/x/a", `"`+strings.Repeat("x", maxRequest)+`"`); r.StatusCode != 413 {
		t.Errorf("large body: %d %.80s", r.StatusCode, text)
	}
	if r, text := do(t, c, composition.Plan{Name: "p", Path: "/"}, "GET", "/", "", composition.PlanHeader+"-0", "rubbish"); r.StatusCode != 500 || strings.Contains(text, "rubbish") {
		t.Errorf("bad plan: %d %s", r.StatusCode, text)
	}
}

func TestRunEnds(t *testing.T) {
	c := New(t.TempDir(), zap.NewNop())
	l, err := c.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx, l) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if again, err := c.Listen(); err != nil {
		t.Error(err)
	} else if err := again.Close(); err != nil {
		t.Error(err)
	}
}
