package resource

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// maxTemplate is how long the template of a body may be, in bytes.
const maxTemplate = 64 << 10

func checkTransform(s scope, t *meshv1.Transform) {
	if t.GetRequest() == nil && t.GetResponse() == nil {
		s.errorf("", "needs request or response")
	}
	checkTransformed(s.at("request"), t.GetRequest(), false)
	checkTransformed(s.at("response"), t.GetResponse(), true)
}

func checkTransformed(s scope, m *meshv1.Transform_Message, response bool) {
	if m == nil {
		return
	}
	if m.GetHeaders() == nil && m.GetBody() == nil {
		s.errorf("", "needs headers or body")
	}
	checkHeaderChange(s.at("headers"), m.GetHeaders())
	values := func(at scope, list []*meshv1.HeaderValue) {
		for i, h := range list {
			checkTemplate(at.index(i).at("value"), h.GetValue(), response)
		}
	}
	values(s.at("headers", "set"), m.GetHeaders().GetSet())
	values(s.at("headers", "add"), m.GetHeaders().GetAdd())
	b := m.GetBody()
	if b == nil {
		return
	}
	at := s.at("body")
	switch v := b.GetTemplate().(type) {
	case *meshv1.Transform_Body_Merge:
		checkJSONTemplate(at.at("merge"), v.Merge, response)
	case *meshv1.Transform_Body_Replace:
		checkJSONTemplate(at.at("replace"), v.Replace, response)
	case *meshv1.Transform_Body_Text:
		checkTemplateSize(at.at("text"), v.Text)
		checkTemplate(at.at("text"), v.Text, response)
	default:
		at.errorf("", "needs one of merge, replace and text")
	}
	checkHeaderValue(at.at("contentType"), b.GetContentType())
}

func checkTemplateSize(s scope, text string) {
	switch {
	case text == "":
		s.errorf("", "is empty")
	case len(text) > maxTemplate:
		s.errorf("let a service make the body", "the template has %d bytes, more than %d", len(text), maxTemplate)
	}
}

// checkJSONTemplate wants an object whose texts, at any depth, are templates.
func checkJSONTemplate(s scope, text string, response bool) {
	if checkTemplateSize(s, text); text == "" {
		return
	}
	raw, err := JSONOf(text)
	if err != nil {
		s.errorf("", "%s", err)
		return
	}
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		s.errorf("write an object, such as {\"name\": \"%REQUEST_BODY(user:name)%\"}", "is no JSON object")
		return
	}
	var problems []string
	var look func(any)
	look = func(v any) {
		switch v := v.(type) {
		case string:
			if err := template(v, response); err != nil {
				problems = append(problems, err.Error())
			}
		case []any:
			for _, inner := range v {
				look(inner)
			}
		case map[string]any:
			for _, inner := range v {
				look(inner)
			}
		}
	}
	look(object)
	slices.Sort(problems)
	for _, p := range slices.Compact(problems) {
		s.errorf("", "%s", p)
	}
}

func checkTemplate(s scope, text string, response bool) {
	if err := template(text, response); err != nil {
		s.errorf("", "%s", err)
	}
}

var (
	bodyCommand = regexp.MustCompile(`%(REQUEST|RESPONSE)_BODY\(([^()%]*)\)%`)
	anyBody     = regexp.MustCompile(`%(REQUEST|RESPONSE)_BODY\b`)
)

// template finds what of a template Envoy would refuse: its commands are those of log formats and the two of bodies.
func template(text string, response bool) error {
	for _, m := range bodyCommand.FindAllStringSubmatch(text, -1) {
		switch {
		case slices.Contains(strings.Split(m[2], ":"), ""):
			return fmt.Errorf("%s names no member of a body: write %%%s_BODY(MEMBER)%% or %%%s_BODY(MEMBER:INNER)%%", m[0], m[1], m[1])
		case m[1] == "RESPONSE" && !response:
			return fmt.Errorf("%s is not there yet when the request is changed", m[0])
		}
	}
	rest := bodyCommand.ReplaceAllString(text, "")
	if m := anyBody.FindStringSubmatch(rest); m != nil {
		return fmt.Errorf("%%%s_BODY%% names no member of a body: write %%%s_BODY(MEMBER)%% or %%%s_BODY(MEMBER:INNER)%%", m[1], m[1], m[1])
	}
	pieces, err := LogPieces(rest)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		if slices.Contains(meshCommands, p.Command) {
			return fmt.Errorf("%%%s%% is for logs alone", p.Command)
		}
	}
	return nil
}
