package resource

import (
	"net/url"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// checkFilter checks one filter of a rule on its own.
func checkFilter(s scope, rule *meshv1.MeshGatewayRoute_Rule, f *meshv1.Filter) {
	switch v := f.GetFilter().(type) {
	case nil:
		s.errorf("", "needs one of requestHeader, responseHeader, rewrite, redirect, mirror and directResponse")
	case *meshv1.Filter_RequestHeader:
		checkHeaderChange(s.at("requestHeader"), v.RequestHeader)
	case *meshv1.Filter_ResponseHeader:
		checkHeaderChange(s.at("responseHeader"), v.ResponseHeader)
	case *meshv1.Filter_Rewrite:
		at, w := s.at("rewrite"), v.Rewrite
		if w.GetPath() == nil && w.GetHostname() == "" {
			at.errorf("", "needs replaceFull, replacePrefixMatch or hostname")
		}
		switch p := w.GetPath().(type) {
		case *meshv1.Rewrite_ReplaceFull:
			checkPath(at.at("replaceFull"), p.ReplaceFull)
		case *meshv1.Rewrite_ReplacePrefixMatch:
			checkPath(at.at("replacePrefixMatch"), p.ReplacePrefixMatch)
			checkPrefixMatches(at.at("replacePrefixMatch"), rule)
		}
		if w.GetHostname() != "" {
			checkHost(at.at("hostname"), w.GetHostname())
		}
	case *meshv1.Filter_Redirect:
		checkRedirect(s.at("redirect"), rule, v.Redirect)
	case *meshv1.Filter_Mirror:
		at := s.at("mirror")
		checkOwnTags(at.at("destination"), v.Mirror.GetDestination())
		if p := v.Mirror.GetPercentage(); v.Mirror.Percentage != nil && !(p > 0 && p <= 100) {
			at.at("percentage").errorf("", "a share is above 0 and at most 100")
		}
	case *meshv1.Filter_DirectResponse:
		if c := v.DirectResponse.GetStatus(); c < 200 || c > 599 {
			s.at("directResponse").at("status").errorf("", "%d is no status of an answer; use 200 to 599", c)
		}
		if n := len(v.DirectResponse.GetBody()); n > maxDirectBody {
			s.at("directResponse").at("body").errorf("let a service answer", "the body has %d bytes, more than %d", n, maxDirectBody)
		}
	}
}

// maxDirectBody bounds the body of a direct response, which every proxy holds, in bytes.
const maxDirectBody = 64 << 10

func checkRedirect(s scope, rule *meshv1.MeshGatewayRoute_Rule, r *meshv1.Redirect) {
	switch r.GetScheme() {
	case "", "http", "https":
	default:
		s.at("scheme").errorf("", "%q is neither http nor https", r.GetScheme())
	}
	if r.GetHostname() != "" {
		checkHost(s.at("hostname"), r.GetHostname())
	}
	if r.GetPort() != 0 {
		checkPort(s.at("port"), r.GetPort())
	}
	switch r.GetStatusCode() {
	case 0, 301, 302, 303, 307, 308:
	default:
		s.at("statusCode").errorf("", "a redirect has status 301, 302, 303, 307 or 308")
	}
	switch p := r.GetPath().(type) {
	case *meshv1.Redirect_ReplaceFull:
		checkPath(s.at("replaceFull"), p.ReplaceFull)
	case *meshv1.Redirect_ReplacePrefixMatch:
		checkPath(s.at("replacePrefixMatch"), p.ReplacePrefixMatch)
		checkPrefixMatches(s.at("replacePrefixMatch"), rule)
	case nil:
		if r.GetScheme() == "" && r.GetHostname() == "" && r.GetPort() == 0 {
			s.errorf("", "needs scheme, hostname, port or a path, or it leads to itself")
		}
	}
}

// checkPrefixMatches holds that each match of a rule has a prefix that could be replaced.
func checkPrefixMatches(s scope, rule *meshv1.MeshGatewayRoute_Rule) {
	for _, m := range rule.GetMatches() {
		if p := m.GetPath(); p != nil && p.GetMatch() != meshv1.MatchType_MATCH_TYPE_PREFIX {
			s.errorf("use replaceFull, or match paths by PREFIX", "the rule matches a path that is no prefix")
			return
		}
	}
}

// checkHost takes what may stand in a Host header.
func checkHost(s scope, host string) {
	name := host
	if u, err := url.Parse("http://" + host); err == nil && u.Host == host {
		name = u.Hostname()
	}
	if !isDNSSubdomain(strings.ToLower(name)) {
		s.errorf("", "%q is no hostname", host)
	}
}

// checkAnswer holds that a rule has one way to answer: backends, a redirect or a direct response.
func checkAnswer(s scope, rule *meshv1.MeshGatewayRoute_Rule) {
	answers := 0
	for i, f := range rule.GetFilters() {
		if f.GetRedirect() == nil && f.GetDirectResponse() == nil {
			continue
		}
		if answers++; answers > 1 {
			s.at("filters").index(i).errorf("keep one of them", "the rule answers by a redirect or directResponse already")
		}
	}
	switch {
	case answers == 0 && len(rule.GetBackends()) == 0:
		s.errorf("", "needs backends")
	case answers > 0 && len(rule.GetBackends()) > 0:
		s.at("backends").errorf("remove them, or the redirect or directResponse", "nothing is forwarded by a rule that answers itself")
	}
	for i, f := range rule.GetFilters() {
		if answers > 0 && (f.GetRewrite() != nil || f.GetMirror() != nil) {
			s.at("filters").index(i).errorf("remove it", "nothing is forwarded by a rule that answers itself")
		}
	}
}
