package composition

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode"
)

// fuzzed is a plan that takes something of everything that a client sends.
var fuzzed = Plan{
	Path: "/orders/{id}",
	Calls: []Call{
		{Name: "one", Method: "GET", Path: "/a/${path.id}?q=${query.q}", Headers: []Header{{"x-a", "${header.x-a}"}}},
		{Name: "two", Method: "POST", Path: "/b/${calls.one.body.id}", Body: `{"all": "${body}", "some": "is ${body.a[0].b}"}`, OnFailure: Omit},
	},
	Body: `{"one": "${calls.one.body}", "two": "${calls.two.status}", "path": "${path.id}"}`,
}

// Whatever stands in the headers that carry a plan, it is refused or holds together, and says the same when it is written again.
func FuzzDecode(f *testing.F) {
	text, err := Encode(fuzzed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Decode(text)
		if err != nil {
			return
		}
		c, problems := Compile(p)
		if (c == nil) != (len(problems) > 0) {
			t.Fatalf("%+v: %v and %v", p, c, problems)
		}
		again, err := Encode(p)
		if err != nil {
			return // too large
		}
		if q, err := Decode(again); err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%+v became %+v: %v", p, q, err)
		}
	})
}

// Whatever a client sends, and a service answers, each call is one line without a break to a path below the one that is written, and its body
// and the answer are JSON; or it is refused.
func FuzzRequest(f *testing.F) {
	c, problems := Compile(fuzzed)
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	f.Add("/orders/1", "x", "y", []byte(`{"a": [{"b": 1.50}]}`), []byte(`{"id": "a/b"}`))
	f.Add("/orders/..", "\r\n", "a\x00", []byte(`[]`), []byte(`{"id": ".."}`))
	f.Fuzz(func(t *testing.T, path, query, header string, body, answer []byte) {
		segments, ok := c.Match(path)
		if !ok {
			return
		}
		v := Values{Path: segments, Query: map[string][]string{"q": {query}}, Header: map[string][]string{"x-a": {header}}, Calls: map[string]Answer{}}
		var err error
		if v.Body, err = DecodeJSON(body); err != nil {
			v.Body = nil
		}
		said, err := DecodeJSON(answer)
		if err != nil {
			return
		}
		v.Calls["one"] = Answer{Status: 200, Body: said}
		v.Calls["two"] = Answer{}
		for i, prefix := range []string{"/a/", "/b/"} {
			r, err := c.Request(i, v)
			if err != nil {
				continue
			}
			target, err := url.ParseRequestURI(r.Target)
			if err != nil || strings.ContainsFunc(r.Target, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				t.Fatalf("%q: %v", r.Target, err)
			}
			if clean := target.JoinPath().Path; !strings.HasPrefix(clean, prefix) {
				t.Fatalf("%q leads to %q", r.Target, clean)
			}
			for _, h := range r.Headers {
				if strings.ContainsFunc(h.Value, func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r < 0x80 }) {
					t.Fatalf("header %q", h.Value)
				}
			}
			if r.Body != nil && !json.Valid(r.Body) {
				t.Fatalf("body %q", r.Body)
			}
		}
		if out, err := c.Response(v); err == nil && !json.Valid(out) {
			t.Fatalf("answer %q", out)
		}
	})
}
