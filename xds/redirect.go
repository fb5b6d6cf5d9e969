package xds

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/zoneforge/zoneforge/ir"
)

// rewritePath is the substitution that makes a new path. Envoy's own prefix_rewrite leaves "//" where a prefix with a slash at its
// end is taken away, so that a path below it would be another one; a substitution on the border of a segment doesn't.
func rewritePath(p *ir.PathRewrite, match ir.PathMatch) (*matcherv3.RegexMatchAndSubstitute, error) {
	if !strings.HasPrefix(p.Value, "/") {
		return nil, fmt.Errorf("rewritten path %q does not begin with /", p.Value)
	}
	// A backslash begins a reference to a group.
	value := strings.ReplaceAll(p.Value, `\`, `\\`)
	substitute := func(expression, by string) *matcherv3.RegexMatchAndSubstitute {
		return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: expression}, Substitution: by}
	}
	switch p.Kind {
	case ir.RewriteFull:
		return substitute("^/.*$", value), nil
	case ir.RewritePrefix:
		switch match.Kind {
		case ir.PathSegments, ir.PathPrefix:
			prefix, with := regexp.QuoteMeta(strings.TrimRight(match.Value, "/")), strings.TrimRight(value, "/")
			switch {
			case with == "": // the prefix goes, and what is left begins with one slash
				return substitute("^"+prefix+"/*", "/"), nil
			case prefix == "":
				return substitute("^/", with+"/"), nil
			default:
				return substitute("^"+prefix, with), nil
			}
		}
		return nil, fmt.Errorf("a prefix can be rewritten only where the path is matched by prefix, not by %s", match.Kind)
	}
	return nil, fmt.Errorf("rewrite of kind %q is not known", p.Kind)
}

var redirectCodes = map[uint32]routev3.RedirectAction_RedirectResponseCode{
	301: routev3.RedirectAction_MOVED_PERMANENTLY,
	302: routev3.RedirectAction_FOUND,
	303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT,
	308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

func redirect(r *ir.Redirect, match ir.PathMatch) (*routev3.RedirectAction, error) {
	code, ok := redirectCodes[r.Status]
	var errs []error
	if !ok {
		errs = append(errs, fmt.Errorf("redirect with status %d: use 301, 302, 303, 307 or 308", r.Status))
	}
	out := &routev3.RedirectAction{ResponseCode: code, HostRedirect: r.Host, PortRedirect: r.Port}
	if r.Scheme != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch {
	case r.Path == nil:
	case r.Path.Kind == ir.RewriteFull:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.Path.Value}
	default:
		rewrite, err := rewritePath(r.Path, match)
		errs = append(errs, err)
		out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: rewrite}
	}
	return out, errors.Join(errs...)
}

func mirrorTo(m ir.Mirror, names *known) (*routev3.RouteAction_RequestMirrorPolicy, error) {
	if !names.has(aCluster, m.Cluster) {
		return nil, fmt.Errorf("mirror to cluster %q, which is not among the proxy's clusters: add it", m.Cluster)
	}
	return &routev3.RouteAction_RequestMirrorPolicy{
		Cluster: m.Cluster,
		RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
			Numerator: m.Millionths, Denominator: typev3.FractionalPercent_MILLION,
		}},
	}, nil
}
