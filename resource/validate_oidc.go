package resource

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Paths of a login that says nothing else.
const (
	DefaultRedirectPath = "/oauth2/callback"
	DefaultLogoutPath   = "/oauth2/logout"
)

func checkOidc(s scope, o *meshv1.Oidc) {
	checkEndpoint(s, "authorizationEndpoint", o.GetAuthorizationEndpoint(), true)
	checkEndpoint(s, "endSessionEndpoint", o.GetEndSessionEndpoint(), false)
	if o.GetTokenEndpoint() == nil {
		s.errorf("add tokenEndpoint: {uri: https://HOST/PATH}, as the provider's discovery document says", "needs tokenEndpoint")
	} else {
		checkHTTPURI(s.at("tokenEndpoint"), o.GetTokenEndpoint())
	}
	if o.GetClientId() == "" {
		s.errorf("", "needs clientId")
	}
	if o.GetClientSecret() == nil {
		s.errorf("write clientSecret: {secret: NAME}", "needs clientSecret")
	} else {
		checkSecretName(s.at("clientSecret", "secret"), o.GetClientSecret().GetSecret())
	}
	if o.GetCookieSecret() != nil {
		checkSecretName(s.at("cookieSecret", "secret"), o.GetCookieSecret().GetSecret())
	}
	for i, scope := range o.GetScopes() {
		if scope == "" || strings.ContainsAny(scope, " \"\\") {
			s.at("scopes").index(i).errorf("write one a line", "%q is no scope", scope)
		}
	}
	for i, r := range o.GetResources() {
		if u, err := url.Parse(r); err != nil || !u.IsAbs() || u.Fragment != "" {
			s.at("resources").index(i).errorf("write an absolute URI without a fragment", "%q is no resource", r)
		}
	}
	redirect, logout := cmp.Or(o.GetRedirectPath(), DefaultRedirectPath), cmp.Or(o.GetLogoutPath(), DefaultLogoutPath)
	checkPath(s.at("redirectPath"), redirect)
	checkPath(s.at("logoutPath"), logout)
	if redirect == logout {
		s.at("logoutPath").errorf("", "is the redirectPath, too")
	}
	if text := o.GetRedirectOrigin(); text != "" {
		checkURL(s.at("redirectOrigin"), text)
		if u, err := url.Parse(text); err == nil && (u.Path != "" || u.RawQuery != "") {
			s.at("redirectOrigin").errorf("put the path into redirectPath", "an origin is a scheme with a host")
		}
		if strings.Contains(text, "%") {
			s.at("redirectOrigin").errorf("", "holds no percent sign")
		}
	}
	for i, domain := range o.GetAllowedRedirectDomains() {
		checkHostOrIP(s.at("allowedRedirectDomains").index(i), strings.TrimPrefix(domain, "*."))
	}
	if text := o.GetPostLogoutRedirectUri(); text != "" {
		if checkURL(s.at("postLogoutRedirectUri"), text); strings.Contains(text, "%") {
			s.at("postLogoutRedirectUri").errorf("", "holds no percent sign")
		}
		if o.GetEndSessionEndpoint() == "" {
			s.at("postLogoutRedirectUri").errorf("add endSessionEndpoint", "is for a logout at the provider")
		}
	}
	if o.GetEndSessionEndpoint() != "" && len(o.GetScopes()) > 0 && !slices.Contains(o.GetScopes(), "openid") {
		s.at("endSessionEndpoint").errorf("add openid to scopes", "needs an ID token")
	}
	checkOidcRequests(s.at("passThrough"), o.GetPassThrough())
	checkOidcRequests(s.at("denyRedirect"), o.GetDenyRedirect())
	if h := o.GetForwardIdTokenHeader(); h != "" {
		checkOwnHeader(s.at("forwardIdTokenHeader"), h)
		if o.GetForwardBearerToken() && strings.EqualFold(h, "authorization") {
			s.at("forwardIdTokenHeader").errorf("use another header", "Authorization holds the access token of forwardBearerToken")
		}
		for i, m := range o.GetPassThrough() {
			if strings.EqualFold(m.GetHeader().GetName(), h) {
				s.at("passThrough").index(i).errorf("match another header", "a client could pass by sending %s", h)
			}
		}
	}
	checkCookieNames(s.at("cookieNames"), o.GetCookieNames())
	if d := o.GetCookieDomain(); d != "" && !isDNSSubdomain(strings.ToLower(strings.TrimPrefix(d, "."))) {
		s.at("cookieDomain").errorf("", "%q is no domain", d)
	}
	checkDuration(s.at("defaultExpiresIn"), o.GetDefaultExpiresIn(), time.Second, 0)
	checkDuration(s.at("defaultRefreshTokenExpiresIn"), o.GetDefaultRefreshTokenExpiresIn(), time.Second, 0)
}

// checkLogins refuses different logins of a route at one path, where a proxy could only answer for one of them.
func checkLogins(s scope, rules []*meshv1.MeshGatewayRoute_Rule) {
	type login struct {
		rule int
		oidc *meshv1.Oidc
	}
	at := map[string]login{}
	for i, rule := range rules {
		for k, f := range rule.GetFilters() {
			o := f.GetOidc()
			if o == nil {
				continue
			}
			for _, p := range []struct{ field, path string }{{"redirectPath", cmp.Or(o.GetRedirectPath(), DefaultRedirectPath)}, {"logoutPath", cmp.Or(o.GetLogoutPath(), DefaultLogoutPath)}} {
				first, taken := at[p.path]
				if !taken {
					at[p.path] = login{i, o}
				} else if first.rule != i && !proto.Equal(essence(first.oidc), essence(o)) {
					s.index(i).at("filters").index(k).at("oidc", p.field).errorf("give each login of a host a redirectPath and a logoutPath of its own, or make them the same",
						"%s is that of another login, of rule %d", p.path, first.rule)
				}
			}
		}
	}
}

// essence is what two logins must have in common to share their paths, with defaults spelled as one.
func essence(o *meshv1.Oidc) *meshv1.Oidc {
	out := proto.CloneOf(o)
	out.PassThrough, out.DenyRedirect, out.Scopes, out.Resources = nil, nil, nil, nil
	out.RedirectPath, out.LogoutPath = cmp.Or(o.GetRedirectPath(), DefaultRedirectPath), cmp.Or(o.GetLogoutPath(), DefaultLogoutPath)
	if o.GetSameSite() == meshv1.OidcSameSite_OIDC_SAME_SITE_LAX {
		out.SameSite = meshv1.OidcSameSite_OIDC_SAME_SITE_UNSPECIFIED
	}
	if o.GetClientAuth() != meshv1.OidcClientAuth_OIDC_CLIENT_AUTH_BASIC {
		out.ClientAuth = meshv1.OidcClientAuth_OIDC_CLIENT_AUTH_UNSPECIFIED
	}
	if o.GetUseRefreshToken() {
		out.UseRefreshToken = nil
	}
	return out
}

// checkEndpoint takes an address to which users are sent.
func checkEndpoint(s scope, field, address string, needed bool) {
	if address == "" {
		if needed {
			s.errorf("write it as the provider's discovery document says", "needs %s", field)
		}
		return
	}
	checkURL(s.at(field), address)
	if u, err := url.Parse(address); err == nil && u.Fragment != "" {
		s.at(field).errorf("remove it", "an address of a login has no fragment")
	}
}

func checkOidcRequests(s scope, list []*meshv1.OidcRequest) {
	for i, m := range list {
		at := s.index(i)
		switch {
		case (m.GetPath() == nil) == (m.GetHeader() == nil):
			at.errorf("write an item each", "needs either path or header")
		case m.GetPath() != nil:
			checkMatch(at, &meshv1.RequestMatch{Path: m.GetPath()})
		default:
			header := m.GetHeader()
			checkHeaderName(at.at("header", "name"), header.GetName())
			if header.GetMatch() == meshv1.MatchType_MATCH_TYPE_REGEX {
				checkRegex(at.at("header", "value"), header.GetValue())
			}
		}
	}
}

func checkCookieNames(s scope, c *meshv1.OidcCookieNames) {
	seen := map[string]string{}
	for _, n := range []struct{ field, name string }{
		{"bearerToken", c.GetBearerToken()}, {"idToken", c.GetIdToken()}, {"refreshToken", c.GetRefreshToken()}, {"hmac", c.GetHmac()},
		{"expires", c.GetExpires()}, {"nonce", c.GetNonce()}, {"codeVerifier", c.GetCodeVerifier()},
	} {
		if n.name == "" {
			continue
		}
		checkCookieName(s.at(n.field), n.name)
		if other, dup := seen[n.name]; dup {
			s.at(n.field).errorf("give each a name of its own", "%s is the cookie of %s already", n.name, other)
		}
		seen[n.name] = n.field
	}
}
