package xds

import (
	"regexp"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
)

// The substitution is RE2 in Envoy and in Go, so what it makes of paths is tried here.
func TestRewritePath(t *testing.T) {
	segments := func(v string) ir.PathMatch { return ir.PathMatch{Kind: ir.PathSegments, Value: v} }
	for _, c := range []struct {
		match      ir.PathMatch
		kind       ir.PathRewriteKind
		to         string
		path, want string
	}{
		{segments("/api"), ir.RewritePrefix, "/v1", "/api", "/v1"},
		{segments("/api"), ir.RewritePrefix, "/v1", "/api/x", "/v1/x"},
		{segments("/api/"), ir.RewritePrefix, "/v1/", "/api/x", "/v1/x"},
		{segments("/api"), ir.RewritePrefix, "/", "/api", "/"},
		{segments("/api"), ir.RewritePrefix, "/", "/api/x/y", "/x/y"},
		{segments("/a.b"), ir.RewritePrefix, "/", "/a.b/c", "/c"},
		{segments("/"), ir.RewritePrefix, "/v1", "/x", "/v1/x"},
		{segments("/"), ir.RewritePrefix, "/v1", "/", "/v1/"},
		{ir.PathMatch{Kind: ir.PathPrefix, Value: "/v"}, ir.RewritePrefix, "/w", "/v1/x", "/w1/x"},
		{ir.PathMatch{Kind: ir.PathExact, Value: "/a"}, ir.RewriteFull, "/b", "/a", "/b"},
		{segments("/a"), ir.RewriteFull, `/b\1`, "/a/c", `/b\1`},
	} {
		got, err := rewritePath(&ir.PathRewrite{Kind: c.kind, Value: c.to}, c.match)
		if err != nil {
			t.Errorf("%v: %v", c, err)
			continue
		}
		// Envoy writes references as \1, Go as ${1}; none is used, and an escaped backslash is one.
		by := strings.ReplaceAll(got.GetSubstitution(), `\\`, `\`)
		if out := regexp.MustCompile(got.GetPattern().GetRegex()).ReplaceAllLiteralString(c.path, by); out != c.want {
			t.Errorf("%s of %s in %s: %s, want %s", c.to, c.match.Value, c.path, out, c.want)
		}
	}
	for _, c := range []struct {
		rewrite ir.PathRewrite
		match   ir.PathMatch
		want    string
	}{
		{ir.PathRewrite{Kind: ir.RewritePrefix, Value: "/b"}, ir.PathMatch{Kind: ir.PathExact, Value: "/a"}, "matched by prefix"},
		{ir.PathRewrite{Kind: ir.RewriteFull, Value: "b"}, segments("/a"), "begin with /"},
		{ir.PathRewrite{Kind: "other", Value: "/b"}, segments("/a"), "not known"},
	} {
		if _, err := rewritePath(&c.rewrite, c.match); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.rewrite, err, c.want)
		}
	}
}
