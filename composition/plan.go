package composition

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DefaultTimeout bounds a composition that says nothing.
const DefaultTimeout = 15 * time.Second

// What a failure of a call means.
const (
	Fail    = "fail"
	Omit    = "omit"
	Default = "default"
)

// Plan is a composition as the composer carries it out.
type Plan struct {
	Name string `json:"name"`
	// Path is that of the endpoint, with {NAME} for one segment.
	Path    string        `json:"path"`
	Timeout time.Duration `json:"timeout"`
	Calls   []Call        `json:"calls"`
	Status  int           `json:"status"`
	// Body is JSON with expressions; empty for an object with all bodies.
	Body string `json:"body,omitempty"`
	// ForwardHeaders are in lower case.
	ForwardHeaders []string `json:"forwardHeaders,omitempty"`
}

// Call is one call of a plan.
type Call struct {
	Name    string        `json:"name"`
	Method  string        `json:"method"`
	Path    string        `json:"path"`
	Headers []Header      `json:"headers,omitempty"`
	Body    string        `json:"body,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
	// After are the names of the calls that must have come to an end before, beside those that expressions name.
	After     []string `json:"after,omitempty"`
	Expected  []int    `json:"expected,omitempty"`
	OnFailure string   `json:"onFailure"`
	Default   string   `json:"default,omitempty"`
}

// Header is a name and a value with expressions.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Problem is one thing wrong with a plan; Field is such as calls[0].path.
type Problem struct{ Field, Message, Hint string }

// Compiled is a plan that holds together, ready for requests.
type Compiled struct {
	Plan
	path  []segment
	calls []compiledCall
	body  *JSON
}

type compiledCall struct {
	path    Text
	headers []Text
	body    *JSON
	// needs are the places of the calls that come before.
	needs    []int
	standsIn any
}

// segment is a literal of a path or, with name set, what that is the name of.
type segment struct{ literal, name string }

var (
	segmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// CallName is how calls are named.
	CallName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,62}$`)
)

func parsePath(path string) ([]segment, error) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
		return nil, fmt.Errorf("%q is no path: it begins with / and has no query", path)
	}
	var out []segment
	seen := map[string]bool{}
	for _, s := range strings.Split(path[1:], "/") {
		inner, named := strings.CutPrefix(s, "{")
		inner, closed := strings.CutSuffix(inner, "}")
		switch {
		case !named && !closed && !strings.ContainsAny(s, "{}"):
			out = append(out, segment{literal: s})
		case named && closed && segmentName.MatchString(inner) && !seen[inner]:
			seen[inner] = true
			out = append(out, segment{name: inner})
		case seen[inner]:
			return nil, fmt.Errorf("{%s} is there twice", inner)
		default:
			return nil, fmt.Errorf("%q is neither a segment nor {NAME}", s)
		}
	}
	return out, nil
}

// PathExpression is a path with names as a regular expression for the whole path; exact is true where it names none, and is
// then the path itself.
func PathExpression(path string) (expression string, exact bool, err error) {
	segments, err := parsePath(path)
	if err != nil {
		return "", false, err
	}
	exact = true
	for _, s := range segments {
		if s.name != "" {
			expression, exact = expression+"/[^/]+", false
		} else {
			expression += "/" + regexp.QuoteMeta(s.literal)
		}
	}
	if exact {
		return path, true, nil
	}
	return expression, false, nil
}

// Compile checks a plan. Either the problems are empty or the plan can't be used; they come in the order of fields.
func Compile(p Plan) (*Compiled, []Problem) {
	var problems []Problem
	problem := func(field string, err error) {
		if err != nil {
			problems = append(problems, Problem{Field: field, Message: err.Error()})
		}
	}
	c := &Compiled{Plan: p}
	var err error
	c.path, err = parsePath(p.Path)
	problem("path", err)
	known := map[string]bool{}
	for _, s := range c.path {
		known[s.name] = true
	}
	place := map[string]int{}
	for i, call := range p.Calls {
		if _, twice := place[call.Name]; twice {
			problem(fmt.Sprintf("calls[%d].name", i), fmt.Errorf("call %q is there twice", call.Name))
			continue
		}
		place[call.Name] = i
	}
	uses := func(field string, t Text, calls map[string]bool) {
		paths, named := map[string]bool{}, map[string]bool{}
		t.paths(paths)
		for _, n := range slices.Sorted(maps.Keys(paths)) {
			if !known[n] {
				problem(field, fmt.Errorf("the path of the endpoint has no {%s}", n))
			}
		}
		t.calls(named)
		for _, n := range slices.Sorted(maps.Keys(named)) {
			if _, there := place[n]; !there {
				problem(field, fmt.Errorf("there is no call %q", n))
			}
			calls[n] = true
		}
	}
	document := func(field, text string, calls map[string]bool) *JSON {
		if text == "" {
			return nil
		}
		j, err := ParseJSON(text)
		problem(field, err)
		texts := slices.Sorted(maps.Keys(j.texts))
		for _, s := range texts {
			uses(field, j.texts[s], calls)
		}
		return &j
	}
	for i, call := range p.Calls {
		at := fmt.Sprintf("calls[%d].", i)
		var one compiledCall
		calls := map[string]bool{}
		one.path, err = ParseText(call.Path)
		problem(at+"path", err)
		uses(at+"path", one.path, calls)
		for n, h := range call.Headers {
			field := fmt.Sprintf("%sheaders[%d].value", at, n)
			t, err := ParseText(h.Value)
			problem(field, err)
			uses(field, t, calls)
			one.headers = append(one.headers, t)
		}
		one.body = document(at+"body", call.Body, calls)
		for n, name := range call.After {
			if _, there := place[name]; !there {
				problem(fmt.Sprintf("%safter[%d]", at, n), fmt.Errorf("there is no call %q", name))
			}
			calls[name] = true
		}
		if call.OnFailure == Default {
			one.standsIn, err = DecodeJSON([]byte(call.Default))
			if err != nil {
				problem(at+"default", fmt.Errorf("is no JSON: %w", err))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			if n, there := place[name]; there {
				one.needs = append(one.needs, n)
			}
		}
		c.calls = append(c.calls, one)
	}
	c.body = document("response.body", p.Body, map[string]bool{})
	if circle := c.circle(); circle != "" {
		problems = append(problems, Problem{Field: "calls", Message: "calls wait for each other: " + circle, Hint: "take one of the references away"})
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// circle names calls that wait for each other, beginning with the first that does; empty where there are none.
func (c *Compiled) circle() string {
	state := make([]int, len(c.calls)) // 1 while its needs are looked at, 2 after
	var way []string
	var visit func(int) string
	visit = func(i int) string {
		switch state[i] {
		case 1:
			return strings.Join(append(way[slices.Index(way, c.Calls[i].Name):], c.Calls[i].Name), " -> ")
		case 2:
			return ""
		}
		state[i] = 1
		way = append(way, c.Calls[i].Name)
		for _, n := range c.calls[i].needs {
			if found := visit(n); found != "" {
				return found
			}
		}
		way = way[:len(way)-1]
		state[i] = 2
		return ""
	}
	for i := range c.calls {
		if found := visit(i); found != "" {
			return found
		}
	}
	return ""
}

// Needs are the places of the calls that must have come to an end before a call.
func (c *Compiled) Needs(call int) []int { return c.calls[call].needs }

// Match gives the segments that the endpoint's path names; false where the path is another. Paths are compared as they are
// written, and values are unescaped by the caller.
func (c *Compiled) Match(path string) (map[string]string, bool) {
	if !strings.HasPrefix(path, "/") {
		return nil, false
	}
	parts := strings.Split(path[1:], "/")
	if len(parts) != len(c.path) {
		return nil, false
	}
	out := map[string]string{}
	for i, s := range c.path {
		switch {
		case s.name != "" && parts[i] != "":
			out[s.name] = parts[i]
		case s.name != "" || s.literal != parts[i]:
			return nil, false
		}
	}
	return out, true
}

// Request is what a call asks for.
type Request struct {
	Method, Target string
	Headers        []Header
	// Body is JSON; nil for none.
	Body []byte
}

// Request puts values into a call.
func (c *Compiled) Request(call int, v Values) (Request, error) {
	from, made := c.Calls[call], c.calls[call]
	out := Request{Method: from.Method}
	var err error
	if out.Target, err = made.path.Target(v); err != nil {
		return Request{}, err
	}
	for i, h := range from.Headers {
		line, err := made.headers[i].Line(v)
		if err != nil {
			return Request{}, fmt.Errorf("header %s: %w", h.Name, err)
		}
		out.Headers = append(out.Headers, Header{h.Name, line})
	}
	if made.body != nil {
		value, err := made.body.Value(v)
		if err != nil {
			return Request{}, err
		}
		if out.Body, err = json.Marshal(value); err != nil {
			return Request{}, err
		}
	}
	return out, nil
}

// Succeeds tells whether a status is a success of a call.
func (c *Compiled) Succeeds(call, status int) bool {
	if expected := c.Calls[call].Expected; len(expected) > 0 {
		return slices.Contains(expected, status)
	}
	return status >= 200 && status <= 299
}

// StandIn is what stands for the body of a call that failed; false where the whole fails with it.
func (c *Compiled) StandIn(call int) (any, bool) {
	switch c.Calls[call].OnFailure {
	case Omit:
		return nil, true
	case Default:
		return c.calls[call].standsIn, true
	}
	return nil, false
}

// Response is the body of the answer.
func (c *Compiled) Response(v Values) ([]byte, error) {
	var value any
	if c.body == nil {
		all := map[string]any{}
		for _, call := range c.Calls {
			all[call.Name] = v.Calls[call.Name].Body
		}
		value = all
	} else {
		var err error
		if value, err = c.body.Value(v); err != nil {
			return nil, err
		}
	}
	return json.Marshal(value)
}

// MaxEncoded bounds what Encode gives, in bytes: proxies take 60 KiB of headers.
const MaxEncoded = 40 << 10

// maxDecoded bounds the plan behind it.
const maxDecoded = 1 << 20

// Encode is a plan as text for a header: equal plans give equal texts.
func Encode(p Plan) (string, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := w.Write(plain); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	out := base64.RawURLEncoding.EncodeToString(packed.Bytes())
	if len(out) > MaxEncoded {
		return "", fmt.Errorf("takes %d bytes of headers, more than %d: make it smaller", len(out), MaxEncoded)
	}
	return out, nil
}

// Decode reads what Encode gave.
func Decode(text string) (Plan, error) {
	packed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxDecoded+1))
	switch {
	case err != nil:
		return Plan{}, fmt.Errorf("plan: %w", err)
	case len(plain) > maxDecoded:
		return Plan{}, errors.New("plan: too large")
	}
	var p Plan
	if err := json.Unmarshal(plain, &p); err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}
