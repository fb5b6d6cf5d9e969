package xds

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/zoneforge/zoneforge/ir"
)

// fullRegex is a regex that Envoy matches against the whole text. Go's syntax is RE2's, which is Envoy's.
func fullRegex(value string) (*matcherv3.RegexMatcher, error) {
	if value == "" {
		return nil, errors.New("regex is empty: give it one, or match an empty text exactly")
	}
	// Parsing finds all that compiling would refuse, for a third of the time.
	if _, err := syntax.Parse(value, syntax.Perl); err != nil {
		return nil, fmt.Errorf("regex %q is not RE2: %w", value, err)
	}
	return &matcherv3.RegexMatcher{Regex: value}, nil
}

func exactly(value string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}
}

// text compares a text that is there. Absence is for the caller, as only some messages of Envoy can express it.
func text(m ir.TextMatch) (*matcherv3.StringMatcher, error) {
	switch m.Kind {
	case ir.TextExact:
		return exactly(m.Value), nil
	case ir.TextPrefix:
		if m.Value == "" {
			return anyText(), nil
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: m.Value}}, nil
	case ir.TextRegex:
		regex, err := fullRegex(m.Value)
		if err != nil {
			return nil, err
		}
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex}}, nil
	case ir.TextPresent:
		return anyText(), nil
	default:
		return nil, fmt.Errorf("kind of match %q is not possible here: use exact, prefix, regex or present", m.Kind)
	}
}

// anyText is what a prefix without characters would be, which Envoy refuses.
func anyText() *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: ".*"},
	}}
}

func headerMatch(name string, m ir.TextMatch) (*routev3.HeaderMatcher, error) {
	out := &routev3.HeaderMatcher{Name: name}
	switch m.Kind {
	case ir.TextPresent, ir.TextAbsent:
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: m.Kind == ir.TextPresent}
	default:
		compare, err := text(m)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", name, err)
		}
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: compare}
	}
	return out, nil
}

func queryMatch(name string, m ir.TextMatch) (*routev3.QueryParameterMatcher, error) {
	out := &routev3.QueryParameterMatcher{Name: name}
	switch m.Kind {
	case ir.TextPresent, ir.TextAbsent:
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: m.Kind == ir.TextPresent}
	default:
		compare, err := text(m)
		if err != nil {
			return nil, fmt.Errorf("query parameter %q: %w", name, err)
		}
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: compare}
	}
	return out, nil
}

// setPath fills in the condition on the path. The zero PathMatch sets none, which Envoy spells as the prefix "/".
func setPath(out *routev3.RouteMatch, m ir.PathMatch) error {
	switch m.Kind {
	case ir.PathExact, ir.PathPrefix, ir.PathSegments:
		if !strings.HasPrefix(m.Value, "/") {
			return fmt.Errorf("path %q does not begin with /", m.Value)
		}
		if strings.ContainsAny(m.Value, "?#") {
			return fmt.Errorf("path %q contains ? or #, which end a path: match query parameters instead", m.Value)
		}
	}
	switch m.Kind {
	case ir.PathExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Value}
	case ir.PathPrefix:
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.Value}
	case ir.PathSegments:
		// Envoy takes no trailing slash here, and none is needed: /a and /a/ end on the same border.
		trimmed := strings.TrimRight(m.Value, "/")
		if trimmed == "" {
			out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
			return nil
		}
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: trimmed}
	case ir.PathRegex:
		regex, err := fullRegex(m.Value)
		if err != nil {
			return fmt.Errorf("path: %w", err)
		}
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex}
	case "":
		if m.Value != "" {
			return fmt.Errorf("path %q has no kind of match: use exact, prefix, segments or regex", m.Value)
		}
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	default:
		return fmt.Errorf("path: kind of match %q is not known: use exact, prefix, segments or regex", m.Kind)
	}
	return nil
}

func routeMatch(m ir.RouteMatch) (*routev3.RouteMatch, error) {
	out := &routev3.RouteMatch{}
	var errs []error
	if err := setPath(out, m.Path); err != nil {
		errs = append(errs, err)
	}
	if m.Method != nil {
		method, err := headerMatch(":method", *m.Method)
		errs = append(errs, err)
		out.Headers = append(out.Headers, method)
	}
	for _, h := range m.Headers {
		header, err := headerMatch(h.Name, h.TextMatch)
		errs = append(errs, err)
		out.Headers = append(out.Headers, header)
	}
	for _, q := range m.Query {
		query, err := queryMatch(q.Name, q.TextMatch)
		errs = append(errs, err)
		out.QueryParameters = append(out.QueryParameters, query)
	}
	return out, errors.Join(errs...)
}
