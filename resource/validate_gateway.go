package resource

import (
	"fmt"
	"slices"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func checkHostname(s scope, hostname string) {
	rest := strings.TrimPrefix(hostname, "*.")
	if hostname != "*" && !isDNSSubdomain(strings.ToLower(rest)) {
		s.errorf(`write api.example.com, "*.example.com" or "*"`, "%q is no hostname", hostname)
	}
}

func validateMeshGatewayRoute(s scope, r *Resource) {
	g := Spec[*meshv1.MeshGatewayRoute](r)
	checkSelectors(s, "selectors", g.GetSelectors())
	checkTCP(s.at("conf", "tcp"), g.GetConf().GetTcp())
	http := s.at("conf", "http")
	for i, h := range g.GetConf().GetHttp().GetHostnames() {
		checkHostname(http.at("hostnames").index(i), h)
	}
	if len(g.GetConf().GetHttp().GetRules()) == 0 && (g.GetConf().GetHttp() != nil || g.GetConf().GetTcp() == nil) {
		http.errorf("", "needs rules")
	}
	for i, rule := range g.GetConf().GetHttp().GetRules() {
		at := http.at("rules").index(i)
		for j, m := range rule.GetMatches() {
			checkMatch(at.at("matches").index(j), m)
		}
		checkFilters(at.at("filters"), rule, rule.GetFilters())
		checkAnswer(at, rule)
		checkBackends(at.at("backends"), rule.GetBackends())
		checkOneCors(at, rule.GetCors(), rule.GetFilters())
	}
	checkLogins(http.at("rules"), g.GetConf().GetHttp().GetRules())
}

func checkBackends(s scope, backends []*meshv1.MeshGatewayRoute_Backend) {
	var sum uint64
	weighted := 0
	for i, b := range backends {
		checkOwnTags(s.index(i).at("destination"), b.GetDestination())
		w := uint32(1)
		if b.Weight != nil {
			w = b.GetWeight()
			weighted++
		}
		sum += uint64(w)
	}
	if weighted > 0 && weighted < len(backends) {
		s.errorf("", "give all backends a weight, or none")
	} else {
		checkWeights(s, sum, len(backends))
	}
}

// checkTCP checks what holds for TCP and TLS listeners.
func checkTCP(s scope, tcp *meshv1.MeshGatewayRoute_Tcp) {
	if tcp == nil {
		return
	}
	for i, h := range tcp.GetHostnames() {
		checkHostname(s.at("hostnames").index(i), h)
	}
	if len(tcp.GetRules()) == 0 {
		s.errorf("", "needs rules")
	}
	for i, rule := range tcp.GetRules() {
		at := s.at("rules").index(i)
		if i > 0 {
			at.errorf("put its backends into the first rule, with weights, or into a route of other hostnames", "nothing of a connection tells rules apart, so there is one")
		}
		if len(rule.GetBackends()) == 0 {
			at.errorf("", "needs backends")
		}
		checkBackends(at.at("backends"), rule.GetBackends())
	}
}

// checkWeights bounds the sum as Envoy does.
func checkWeights(s scope, sum uint64, n int) {
	switch {
	case n > 0 && sum == 0:
		s.errorf("", "the weights are all 0")
	case sum > 1<<32-1:
		s.errorf("", "the weights' sum is above %d", uint32(1<<32-1))
	}
}

func checkMatch(s scope, m *meshv1.RequestMatch) {
	if p := m.GetPath(); p != nil {
		at := s.at("path")
		switch p.GetMatch() {
		case meshv1.MatchType_MATCH_TYPE_UNSPECIFIED:
			at.errorf("", "needs match: EXACT, PREFIX or REGEX")
		case meshv1.MatchType_MATCH_TYPE_EXACT, meshv1.MatchType_MATCH_TYPE_PREFIX:
			checkPath(at.at("value"), p.GetValue())
		case meshv1.MatchType_MATCH_TYPE_REGEX:
			checkRegex(at.at("value"), p.GetValue())
		default:
			at.at("match").errorf("", "a path is matched by EXACT, PREFIX or REGEX")
		}
	}
	if m.GetMethod() != "" && !token.MatchString(m.GetMethod()) {
		s.at("method").errorf("", "%q is no method", m.GetMethod())
	}
	values := func(at scope, list []*meshv1.ValueMatch, header bool) {
		for i, v := range list {
			item := at.index(i)
			switch {
			case header:
				checkHeaderName(item.at("name"), v.GetName())
			case v.GetName() == "":
				item.errorf("", "needs name")
			}
			switch v.GetMatch() {
			case meshv1.MatchType_MATCH_TYPE_REGEX:
				checkRegex(item.at("value"), v.GetValue())
			case meshv1.MatchType_MATCH_TYPE_PRESENT, meshv1.MatchType_MATCH_TYPE_ABSENT:
				if v.GetValue() != "" {
					item.at("value").errorf("remove it", "PRESENT and ABSENT compare no value")
				}
			case meshv1.MatchType_MATCH_TYPE_PREFIX:
				if v.GetValue() == "" {
					item.errorf("use match: PRESENT", "an empty prefix matches every value")
				}
			}
		}
	}
	values(s.at("headers"), m.GetHeaders(), true)
	values(s.at("queryParameters"), m.GetQueryParameters(), false)
}

func checkPath(s scope, path string) {
	if !strings.HasPrefix(path, "/") {
		s.errorf(fmt.Sprintf("write %q", "/"+path), "a path begins with /")
	} else if strings.ContainsAny(path, "?#") {
		s.errorf("", "a path holds no ? and no #")
	}
}

// checkOneCors checks the member cors, which excludes a filter of the same meaning.
func checkOneCors(s scope, c *meshv1.Cors, filters []*meshv1.Filter) {
	checkCors(s.at("cors"), c)
	if c != nil && slices.ContainsFunc(filters, func(f *meshv1.Filter) bool { return f.GetCors() != nil }) {
		s.at("cors").errorf("keep one of them", "a filter says it, too")
	}
}

func checkCors(s scope, c *meshv1.Cors) {
	if c == nil {
		return
	}
	if len(c.GetAllowOrigins()) == 0 {
		s.errorf("", "needs allowOrigins")
	}
	for i, o := range c.GetAllowOrigins() {
		checkStringMatcher(s.at("allowOrigins").index(i), o)
	}
	for _, list := range []struct {
		field  string
		values []string
	}{{"allowMethods", c.GetAllowMethods()}, {"allowHeaders", c.GetAllowHeaders()}, {"exposeHeaders", c.GetExposeHeaders()}} {
		for i, v := range list.values {
			if !token.MatchString(v) {
				s.at(list.field).index(i).errorf("", "%q is neither a method nor a header", v)
			}
		}
	}
	if c.GetAllowCredentials() && slices.ContainsFunc(c.GetAllowOrigins(), func(m *meshv1.StringMatcher) bool { return m.GetExact() == "*" }) {
		s.at("allowCredentials").errorf("name the origins", "browsers refuse credentials where any origin is allowed")
	}
}
