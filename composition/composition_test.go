package composition

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestTexts(t *testing.T) {
	body, err := DecodeJSON([]byte(`{"a": {"b": [1.50, "x y", null, {"c": true}]}, "n": 12345678901234567890}`))
	if err != nil {
		t.Fatal(err)
	}
	v := Values{Path: map[string]string{"id": "a/b ?"}, Query: map[string][]string{"q": {"1&2", "3"}}, Header: map[string][]string{"x-a": {"A"}},
		Body: body, Calls: map[string]Answer{"one": {Status: 201, Body: body}, "gone": {}}}
	for text, want := range map[string]string{
		"/x/${path.id}":                                       "/x/a%2Fb%20%3F",
		"/x?q=${query.q}&n=${query.none}":                     "/x?q=1%262&n=",
		"/${header.X-A}/${body.a.b[0]}":                       "/A/1.50",
		"/${calls.one.body.a.b[1]}?${body.n}":                 "/x%20y?12345678901234567890",
		"/${calls.one.status}?${calls.one.body.a.b[3]}":       "/201?%7B%22c%22%3Atrue%7D",
		"/$${path.id}?${calls.gone.body}${calls.gone.status}": "/${path.id}?",
	} {
		parsed, err := ParseText(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsed.Target(v); got != want || err != nil {
			t.Errorf("%s gives %q %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"${path.id":                   "does not end it",
		"${what.x}":                   `"what" is no source`,
		"${path}":                     "write ${path.NAME}",
		"${query.a.b}":                "write ${query.NAME}",
		"${calls.one}":                "write ${calls.NAME.body}",
		"${calls.one.status.x}":       "write ${calls.NAME.body}",
		"${body.a!}":                  "is no way to a value",
		"${calls.one.body[12345678]}": "is no way to a value",
	} {
		if _, err := ParseText(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"/${query.none}", "/${body.a.b[9]}"} {
		parsed, err := ParseText(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parsed.Target(v); err == nil {
			t.Errorf("%s: an empty segment of a path gives %q", text, got)
		}
	}
	up, err := ParseText("/a/${path.id}")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := up.Target(Values{Path: map[string]string{"id": ".."}}); err == nil {
		t.Errorf("a value leads up: %q", got)
	}
	line, err := ParseText("a ${query.q}")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := line.Line(Values{Query: map[string][]string{"q": {"x\r\ny: z"}}}); err == nil {
		t.Errorf("a header of two lines: %q", got)
	}
	doc, err := ParseJSON(`{"all": "${body.a}", "text": "n is ${body.n}", "none": "${body.x.y}", "list": ["${calls.one.status}", 2.50]}`)
	if err != nil {
		t.Fatal(err)
	}
	value, err := doc.Value(v)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(value)
	if want := `{"all":{"b":[1.50,"x y",null,{"c":true}]},"list":[201,2.50],"none":null,"text":"n is 12345678901234567890"}`; string(got) != want || err != nil {
		t.Errorf("document %s %v, want %s", got, err, want)
	}
}

func TestPlans(t *testing.T) {
	plan := Plan{Name: "p", Path: "/p/{id}/x", Timeout: 5, Status: 200, Calls: []Call{
		{Name: "b", Method: "GET", Path: "/${calls.a.body.id}", OnFailure: Omit},
		{Name: "a", Method: "GET", Path: "/${path.id}", OnFailure: Fail},
		{Name: "c", Method: "GET", Path: "/", After: []string{"b"}, OnFailure: Default, Default: `{"x": 1}`},
	}}
	c, problems := Compile(plan)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for call, want := range [][]int{{1}, nil, {0}} {
		if got := c.Needs(call); !reflect.DeepEqual(got, want) {
			t.Errorf("call %d needs %v, want %v", call, got, want)
		}
	}
	if path, ok := c.Match("/p/7/x"); !ok || path["id"] != "7" {
		t.Errorf("path %v %v", path, ok)
	}
	for _, path := range []string{"/p//x", "/p/7/x/", "/p/7", "p/7/x", "/q/7/x"} {
		if _, ok := c.Match(path); ok {
			t.Errorf("%s is taken", path)
		}
	}
	if expression, exact, err := PathExpression(plan.Path); expression != "/p/[^/]+/x" || exact || err != nil {
		t.Errorf("expression %q %v %v", expression, exact, err)
	}
	encoded, err := Encode(plan)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Encode(plan)
	if err != nil || again != encoded {
		t.Errorf("equal plans differ: %v", err)
	}
	pieces := map[string]string{}
	for _, h := range Pieces(strings.Repeat("x", 20_000)) {
		pieces[h.Name] = h.Value
	}
	if got := Join(func(name string) string { return pieces[name] }); len(pieces) != 3 || len(got) != 20_000 {
		t.Errorf("%d pieces join to %d bytes", len(pieces), len(got))
	}
	if decoded, err := Decode(encoded); err != nil || !reflect.DeepEqual(decoded, plan) {
		t.Errorf("decoded %+v %v", decoded, err)
	}
	if _, err := Decode("!"); err == nil {
		t.Error("rubbish is decoded")
	}
	plan.Calls[1].Path = "/${calls.c.body}${path.nope}${calls.nope.body}"
	plan.Calls[2].Default, plan.Body = "{", `{"x": "${calls.d.body}"}`
	var got []string
	_, problems = Compile(plan)
	for _, p := range problems {
		got = append(got, p.Field+": "+p.Message)
	}
	want := []string{
		`calls[1].path: the path of the endpoint has no {nope}`, `calls[1].path: there is no call "nope"`, "calls[2].default: is no JSON: unexpected EOF",
		`response.body: there is no call "d"`, "calls: calls wait for each other: b -> a -> c -> b",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
