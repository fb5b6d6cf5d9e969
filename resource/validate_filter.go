package resource

import (
	"net/url"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// checkFilter checks one filter on its own, of a rule of a route, or with a nil rule that of a listener or policy.
func checkFilter(s scope, rule *meshv1.MeshGatewayRoute_Rule, f *meshv1.Filter) {
	switch v := f.GetFilter().(type) {
	case *meshv1.Filter_Rewrite, *meshv1.Filter_Redirect, *meshv1.Filter_Mirror, *meshv1.Filter_DirectResponse:
		if rule == nil {
			s.errorf("write it in a rule of a MeshGatewayRoute", "says where a request goes, and belongs to a route")
			return
		}
	case *meshv1.Filter_Http:
		at := s.at("http")
		if rule != nil {
			at.errorf("match in the rule itself", "is for listeners and policies")
			return
		}
		if len(v.Http.GetRules()) == 0 {
			at.errorf("", "needs rules")
		}
		for i, r := range v.Http.GetRules() {
			item := at.at("rules").index(i)
			for j, m := range r.GetMatches() {
				checkMatch(item.at("matches").index(j), m)
			}
			if len(r.GetFilters()) == 0 {
				item.errorf("", "needs filters")
			}
			for j, inner := range r.GetFilters() {
				if inner.GetHttp() != nil {
					item.at("filters").index(j).at("http").errorf("write its rules beside this one", "rules don't hold rules")
				}
			}
			checkFilters(item.at("filters"), nil, r.GetFilters())
		}
	}
	switch v := f.GetFilter().(type) {
	case nil:
		s.errorf("", "needs one of %s", strings.Join(filterFields(), ", "))
	case *meshv1.Filter_RateLimit:
		checkLimit(s.at("rateLimit"), v.RateLimit)
	case *meshv1.Filter_BodySize:
		checkBodySize(s.at("bodySize"), v.BodySize)
	case *meshv1.Filter_Admission:
		checkAdmission(s.at("admission"), v.Admission)
	case *meshv1.Filter_Fault:
		checkFault(s.at("fault"), v.Fault)
	case *meshv1.Filter_Bandwidth:
		checkBandwidthFilter(s.at("bandwidth"), v.Bandwidth)
	case *meshv1.Filter_Cors:
		checkCors(s.at("cors"), v.Cors)
	case *meshv1.Filter_Compression:
		checkCompression(s.at("compression"), v.Compression)
	case *meshv1.Filter_Cache:
		checkCache(s.at("cache"), v.Cache)
	case *meshv1.Filter_Transcode:
		checkTranscode(s.at("transcode"), v.Transcode)
	case *meshv1.Filter_ApiKey:
		checkAPIKey(s.at("apiKey"), v.ApiKey)
	case *meshv1.Filter_BasicAuth:
		checkBasicAuth(s.at("basicAuth"), v.BasicAuth)
	case *meshv1.Filter_ExtAuth:
		checkExtAuth(s.at("extAuth"), v.ExtAuth)
	case *meshv1.Filter_ClientAddress:
		checkClientAddress(s.at("clientAddress"), v.ClientAddress)
	case *meshv1.Filter_Transform:
		checkTransform(s.at("transform"), v.Transform)
	case *meshv1.Filter_Lua:
		checkLua(s.at("lua"), v.Lua)
	case *meshv1.Filter_Wasm:
		checkWasm(s.at("wasm"), v.Wasm)
	case *meshv1.Filter_ExtProc:
		checkExtProc(s.at("extProc"), v.ExtProc)
	case *meshv1.Filter_Service:
		checkTransformService(s.at("service"), v.Service)
	case *meshv1.Filter_Jwt:
		checkJwt(s.at("jwt"), v.Jwt)
	case *meshv1.Filter_Oidc:
		checkOidc(s.at("oidc"), v.Oidc)
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

// checkFilters checks a list of filters, in which each type that doesn't add up is there once.
func checkFilters(s scope, rule *meshv1.MeshGatewayRoute_Rule, filters []*meshv1.Filter) {
	first := map[protoreflect.FullName]int{}
	for i, f := range filters {
		checkFilter(s.index(i), rule, f)
		field := FilterField(f)
		if field == nil || addsUp[string(field.Name())] {
			continue
		}
		if other, dup := first[field.FullName()]; dup {
			s.index(i).errorf("keep one of them", "%s is there already, as filter %d", field.JSONName(), other)
			continue
		}
		first[field.FullName()] = i
	}
	checkTranscodedPath(s, filters)
}

// addsUp are the filters of which a rule, listener or policy may have several. Answers are counted by checkAnswer.
var addsUp = map[string]bool{"request_header": true, "response_header": true, "mirror": true, "rewrite": true, "redirect": true, "direct_response": true, "http": true}

// FilterField is which member of a filter is set; nil when none is.
func FilterField(f *meshv1.Filter) protoreflect.FieldDescriptor {
	m := f.ProtoReflect()
	return m.WhichOneof(m.Descriptor().Oneofs().ByName("filter"))
}

// filterFields are the names of all filters, in the order of their schema.
func filterFields() []string {
	fields := (&meshv1.Filter{}).ProtoReflect().Descriptor().Fields()
	var out []string
	for i := range fields.Len() {
		out = append(out, fields.Get(i).JSONName())
	}
	return out
}

// validateFilterPolicy checks a policy that attaches filters.
func validateFilterPolicy(s scope, r *Resource) {
	p := Spec[*meshv1.FilterPolicy](r)
	checkSelectors(s, "selectors", p.GetSelectors())
	for i, name := range p.GetRoutes() {
		if !isDNSSubdomain(name) {
			s.at("routes").index(i).errorf("", "%q is no name of a MeshGatewayRoute", name)
		}
	}
	if len(p.GetDestinations()) > 0 {
		checkSelectors(s, "destinations", p.GetDestinations())
	}
	if len(p.GetConf().GetFilters()) == 0 {
		s.at("conf").errorf("", "needs filters")
	}
	checkFilters(s.at("conf", "filters"), nil, p.GetConf().GetFilters())
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
		if answers > 0 && f.GetRateLimit().GetShared() != nil {
			s.at("filters").index(i).at("rateLimit").errorf("remove shared", "a shared limit counts what is forwarded, and this rule answers itself")
		}
		if answers > 0 && (f.GetRewrite() != nil || f.GetMirror() != nil) {
			s.at("filters").index(i).errorf("remove it", "nothing is forwarded by a rule that answers itself")
		}
	}
}
