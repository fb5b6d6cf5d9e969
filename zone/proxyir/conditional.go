package proxyir

import (
	"regexp"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// relation says how many of a route's requests meet a condition.
type relation int

const (
	disjoint relation = iota
	part
	whole
)

// Headers by which Envoy compares the path, with its query, and the method.
const (
	pathHeader   = ":path"
	methodHeader = ":method"
)

// narrow is the route's match for those of its requests that meet a condition. The path of the route stays as it is, since what
// the route rewrites depends on it; the condition's path is asked for besides.
func narrow(route ir.RouteMatch, condition *meshv1.RequestMatch) (ir.RouteMatch, relation) {
	c := requestMatch(condition)
	how := pathRelation(route.Path, c.Path)
	if how == disjoint {
		return route, disjoint
	}
	out := route
	out.Headers, out.Query = slices.Clone(route.Headers), slices.Clone(route.Query)
	if how == part {
		out.Headers = append(out.Headers, ir.ValueMatch{Name: pathHeader, TextMatch: ir.TextMatch{Kind: ir.TextRegex, Value: pathExpression(c.Path)}})
	}
	if c.Method != nil {
		switch {
		case route.Method == nil:
			out.Method, how = c.Method, part
		case *route.Method == *c.Method:
		case route.Method.Kind == ir.TextExact:
			return route, disjoint
		default:
			out.Headers, how = append(out.Headers, ir.ValueMatch{Name: methodHeader, TextMatch: *c.Method}), part
		}
	}
	add := func(to *[]ir.ValueMatch, values []ir.ValueMatch, has []ir.ValueMatch) {
		for _, v := range values {
			if !slices.Contains(has, v) {
				*to, how = append(*to, v), part
			}
		}
	}
	add(&out.Headers, c.Headers, route.Headers)
	add(&out.Query, c.Query, route.Query)
	return out, how
}

// pathRelation compares the paths of a route with those of a condition, which has no prefix that ends within a segment.
func pathRelation(route, condition ir.PathMatch) relation {
	if condition.Kind == ir.PathSegments && trimmed(condition.Value) == "" || route == condition {
		return whole
	}
	if route.Kind == ir.PathExact {
		if meets(route.Value, condition) {
			return whole
		}
		return disjoint
	}
	if route.Kind != ir.PathSegments || condition.Kind == ir.PathRegex {
		return part
	}
	switch {
	case condition.Kind == ir.PathExact && meets(condition.Value, route):
		return part
	case condition.Kind == ir.PathSegments && meets(trimmed(route.Value), condition):
		return whole
	case condition.Kind == ir.PathSegments && meets(trimmed(condition.Value), route):
		return part
	}
	return disjoint
}

// meets tells whether one path meets a condition. An expression that does not compile is refused elsewhere; it meets nothing.
func meets(path string, c ir.PathMatch) bool {
	switch c.Kind {
	case ir.PathExact:
		return path == c.Value
	case ir.PathSegments:
		rest, under := strings.CutPrefix(path, trimmed(c.Value))
		return under && (rest == "" || rest[0] == '/')
	case ir.PathRegex:
		expression, err := regexp.Compile(`^(?:` + c.Value + `)$`)
		return err == nil && expression.MatchString(path)
	}
	return false
}

// pathExpression matches a path with its query where the path meets a condition.
func pathExpression(c ir.PathMatch) string {
	switch c.Kind {
	case ir.PathExact:
		return regexp.QuoteMeta(c.Value) + `(?:\?.*)?`
	case ir.PathSegments:
		return regexp.QuoteMeta(trimmed(c.Value)) + `(?:[/?].*)?`
	}
	return `(?:` + c.Value + `)(?:\?.*)?`
}

func trimmed(prefix string) string { return strings.TrimRight(prefix, "/") }
