// Package composition owns the language of compositions: expressions in texts and in JSON, the order of calls, and the plan that a
// gateway's route hands to the composer beside its Envoy.
//
// It is pure: no I/O, no goroutine, no clock, no logger, and it imports nothing of this project. Who makes the calls is not its
// matter. Its values are immutable and may be used concurrently.
package composition

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Values are what expressions refer to.
type Values struct {
	// Path holds the segments that the endpoint's path names.
	Path map[string]string
	// Query and Header are those of the request; names of headers are in lower case.
	Query, Header map[string][]string
	// Body is the request's body as DecodeJSON gives it; nil where there is none.
	Body any
	// Calls are the answers that are there.
	Calls map[string]Answer
}

// Answer is what a call came to. One that failed and is done without has a nil body and status 0.
type Answer struct {
	Status int
	Body   any
}

// Text is a text with expressions.
type Text struct{ parts []part }

// part is a literal, or an expression where that is set.
type part struct {
	literal    string
	expression *expression
}

// expression is where a value is found: a source and the way from there.
type expression struct {
	source string
	steps  []step
	text   string
}

// step is a key of an object, or a place in a list.
type step struct {
	key   string
	index int
	list  bool
}

// Sources of values.
const (
	sourcePath   = "path"
	sourceQuery  = "query"
	sourceHeader = "header"
	sourceBody   = "body"
	sourceCalls  = "calls"
)

var stepForm = regexp.MustCompile(`^(?:\.([A-Za-z0-9_-]+)|\[([0-9]{1,6})\])`)

// ParseText reads a text. ${ begins an expression, and $${ stands for ${ itself.
func ParseText(text string) (Text, error) {
	var out Text
	literal := func(s string) {
		if s != "" {
			out.parts = append(out.parts, part{literal: s})
		}
	}
	for rest := text; rest != ""; {
		i := strings.Index(rest, "${")
		if i < 0 {
			literal(rest)
			break
		}
		if i > 0 && rest[i-1] == '$' {
			literal(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		literal(rest[:i])
		end := strings.IndexByte(rest[i:], '}')
		if end < 0 {
			return Text{}, fmt.Errorf("%q begins an expression and does not end it: add }", rest[i:])
		}
		e, err := parseExpression(rest[i+2 : i+end])
		if err != nil {
			return Text{}, err
		}
		out.parts = append(out.parts, part{expression: e})
		rest = rest[i+end+1:]
	}
	return out, nil
}

func parseExpression(text string) (*expression, error) {
	e := &expression{text: text}
	at := strings.IndexAny(text, ".[")
	if at < 0 {
		at = len(text)
	}
	e.source = text[:at]
	for rest := text[at:]; rest != ""; {
		m := stepForm.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("${%s}: %q is no way to a value: write .NAME or [0]", text, rest)
		}
		s := step{key: m[1]}
		if m[2] != "" {
			s.list = true
			s.index, _ = strconv.Atoi(m[2]) // at most six digits
		}
		e.steps = append(e.steps, s)
		rest = rest[len(m[0]):]
	}
	named := len(e.steps) > 0 && !e.steps[0].list
	switch e.source {
	case sourcePath, sourceQuery, sourceHeader:
		if !named || len(e.steps) > 1 {
			return nil, fmt.Errorf("${%s}: write ${%s.NAME}", text, e.source)
		}
	case sourceBody:
	case sourceCalls:
		if !named || len(e.steps) < 2 || e.steps[1].list || e.steps[1].key != "body" && (e.steps[1].key != "status" || len(e.steps) > 2) {
			return nil, fmt.Errorf("${%s}: write ${calls.NAME.body} or ${calls.NAME.status}", text)
		}
	default:
		return nil, fmt.Errorf("${%s}: %q is no source of values: use path, query, header, body or calls", text, e.source)
	}
	return e, nil
}

// calls adds the names of the calls whose answers a text needs.
func (t Text) calls(to map[string]bool) {
	for _, p := range t.parts {
		if e := p.expression; e != nil && e.source == sourceCalls {
			to[e.steps[0].key] = true
		}
	}
}

// paths adds the names of the path's segments that a text needs.
func (t Text) paths(to map[string]bool) {
	for _, p := range t.parts {
		if e := p.expression; e != nil && e.source == sourcePath {
			to[e.steps[0].key] = true
		}
	}
}

// value finds what an expression refers to; nil where there is nothing.
func (e *expression) value(v Values) any {
	first := func(list []string) any {
		if len(list) == 0 {
			return nil
		}
		return list[0]
	}
	var at any
	steps := e.steps
	switch e.source {
	case sourcePath:
		if s, ok := v.Path[steps[0].key]; ok {
			return s
		}
		return nil
	case sourceQuery:
		return first(v.Query[steps[0].key])
	case sourceHeader:
		return first(v.Header[strings.ToLower(steps[0].key)])
	case sourceBody:
		at = v.Body
	case sourceCalls:
		a, ok := v.Calls[steps[0].key]
		if !ok || a.Status == 0 && a.Body == nil {
			return nil
		}
		if steps[1].key == "status" {
			return json.Number(strconv.Itoa(a.Status))
		}
		at, steps = a.Body, steps[2:]
	}
	for _, s := range steps {
		switch x := at.(type) {
		case map[string]any:
			if s.list {
				return nil
			}
			at = x[s.key]
		case []any:
			if !s.list || s.index >= len(x) {
				return nil
			}
			at = x[s.index]
		default:
			return nil
		}
	}
	return at
}

// plain is a value within a text: nothing for nil, the text of a text, and JSON of the rest.
func plain(value any) (string, error) {
	switch x := value.(type) {
	case nil:
		return "", nil
	case string:
		return x, nil
	}
	out, err := json.Marshal(value)
	return string(out), err
}

// String puts values into a text, each as escape makes it.
func (t Text) String(v Values, escape func(string) (string, error)) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.expression == nil {
			b.WriteString(p.literal)
			continue
		}
		text, err := plain(p.expression.value(v))
		if err == nil {
			text, err = escape(text)
		}
		if err != nil {
			return "", fmt.Errorf("${%s}: %w", p.expression.text, err)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// Target puts values into the path and query of a request: in the path each is one segment or a part of one.
func (t Text) Target(v Values) (string, error) {
	inQuery := false
	var b strings.Builder
	for _, p := range t.parts {
		if p.expression == nil {
			b.WriteString(p.literal)
			inQuery = inQuery || strings.Contains(p.literal, "?")
			continue
		}
		text, err := plain(p.expression.value(v))
		switch {
		case err != nil:
			return "", fmt.Errorf("${%s}: %w", p.expression.text, err)
		case inQuery:
			b.WriteString(url.QueryEscape(text))
		case text == "" || text == "." || text == "..":
			return "", fmt.Errorf("${%s} is %q, which is no segment of a path", p.expression.text, text)
		default:
			b.WriteString(url.PathEscape(text))
		}
	}
	return b.String(), nil
}

// Line puts values into the value of a header.
func (t Text) Line(v Values) (string, error) {
	return t.String(v, func(s string) (string, error) {
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == '\x7f' }) {
			return "", errors.New("holds control characters, which no header may")
		}
		return s, nil
	})
}

// JSON is a document with expressions in its texts. A text that is one expression stands for the value itself.
type JSON struct {
	root  any
	texts map[string]Text
}

// ParseJSON reads a document.
func ParseJSON(text string) (JSON, error) {
	root, err := DecodeJSON([]byte(text))
	if err != nil {
		return JSON{}, fmt.Errorf("is no JSON: %w", err)
	}
	out := JSON{root: root, texts: map[string]Text{}}
	err = walk(root, func(s string) error {
		t, err := ParseText(s)
		out.texts[s] = t
		return err
	})
	return out, err
}

// DecodeJSON reads one document, numbers as they are written.
func DecodeJSON(data []byte) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the document")
	}
	return out, nil
}

// walk calls f for each text that is a value, in the order of keys.
func walk(node any, f func(string) error) error {
	switch x := node.(type) {
	case string:
		return f(x)
	case []any:
		for _, item := range x {
			if err := walk(item, f); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(x)) {
			if err := walk(x[k], f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Value puts values into a document.
func (j JSON) Value(v Values) (any, error) { return j.fill(j.root, v) }

func (j JSON) fill(node any, v Values) (any, error) {
	switch x := node.(type) {
	case string:
		t := j.texts[x]
		if len(t.parts) == 1 && t.parts[0].expression != nil {
			return t.parts[0].expression.value(v), nil
		}
		return t.String(v, func(s string) (string, error) { return s, nil })
	case []any:
		out := make([]any, len(x))
		for i, item := range x {
			var err error
			if out[i], err = j.fill(item, v); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, item := range x {
			var err error
			if out[k], err = j.fill(item, v); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return node, nil
}
