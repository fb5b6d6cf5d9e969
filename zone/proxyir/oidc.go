package proxyir

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// oidc is a login.
func (b *builder) oidc(o *meshv1.Oidc) (*ir.OIDC, error) {
	call, err := b.call(o.GetTokenEndpoint())
	if err != nil {
		return nil, fmt.Errorf("oidc: tokenEndpoint: %w", err)
	}
	out := &ir.OIDC{
		AuthorizationEndpoint: o.GetAuthorizationEndpoint(), EndSessionEndpoint: o.GetEndSessionEndpoint(), Token: call, ClientID: o.GetClientId(),
		ClientSecret: ir.SecretText + o.GetClientSecret().GetSecret(), CookieSecret: ir.SecretSeal + o.GetClientSecret().GetSecret(),
		Scopes: o.GetScopes(), Resources: o.GetResources(), RedirectOrigin: strings.TrimSuffix(o.GetRedirectOrigin(), "/"),
		RedirectPath: cmp.Or(o.GetRedirectPath(), resource.DefaultRedirectPath), AllowedDomains: o.GetAllowedRedirectDomains(),
		LogoutPath: cmp.Or(o.GetLogoutPath(), resource.DefaultLogoutPath), AfterLogout: o.GetPostLogoutRedirectUri(),
		PassThrough: oidcRequests(o.GetPassThrough()), DenyRedirect: oidcRequests(o.GetDenyRedirect()),
		ForwardBearer: o.GetForwardBearerToken(), IDTokenHeader: o.GetForwardIdTokenHeader(), Cookies: oidcCookies(o),
		Refresh: o.UseRefreshToken == nil || o.GetUseRefreshToken(), DefaultExpiry: o.GetDefaultExpiresIn().AsDuration(),
		DefaultRefreshExpiry: o.GetDefaultRefreshTokenExpiresIn().AsDuration(),
		BasicAuth:            o.GetClientAuth() == meshv1.OidcClientAuth_OIDC_CLIENT_AUTH_BASIC,
	}
	if len(out.Scopes) == 0 {
		out.Scopes = []string{"openid"}
	}
	names := []string{o.GetClientSecret().GetSecret()}
	if own := o.GetCookieSecret().GetSecret(); own != "" {
		out.CookieSecret = ir.SecretText + own
		names = append(names, own)
	}
	for _, name := range names {
		data, err := b.secretData(name)
		if err == nil && len(bytes.TrimSpace(data)) == 0 {
			err = fmt.Errorf("Secret %s/%s is empty; give it a text", b.MeshName, name)
		}
		if err != nil {
			return nil, fmt.Errorf("oidc: %w", err)
		}
	}
	b.secret(out.ClientSecret)
	b.secret(out.CookieSecret)
	b.logins[out] = b.from
	return out, nil
}

// oidcCookies are the names of cookies. Those that aren't given are told apart by the application and its provider, so that
// several logins at one host don't take each other's, and are the same at all gateways.
func oidcCookies(o *meshv1.Oidc) ir.OIDCCookies {
	sum := sha256.Sum256([]byte(o.GetAuthorizationEndpoint() + "\x00" + o.GetClientId()))
	ending := "-" + hex.EncodeToString(sum[:4])
	c := o.GetCookieNames()
	out := ir.OIDCCookies{
		Bearer: cmp.Or(c.GetBearerToken(), "AccessToken"+ending), ID: cmp.Or(c.GetIdToken(), "IdToken"+ending),
		Refresh: cmp.Or(c.GetRefreshToken(), "RefreshToken"+ending), HMAC: cmp.Or(c.GetHmac(), "OauthHMAC"+ending),
		Expires: cmp.Or(c.GetExpires(), "OauthExpires"+ending), Nonce: cmp.Or(c.GetNonce(), "OauthNonce"+ending),
		Verifier: cmp.Or(c.GetCodeVerifier(), "CodeVerifier"+ending), Domain: o.GetCookieDomain(), SameSite: ir.SameSiteLax,
	}
	switch o.GetSameSite() {
	case meshv1.OidcSameSite_OIDC_SAME_SITE_STRICT:
		out.SameSite = ir.SameSiteStrict
	case meshv1.OidcSameSite_OIDC_SAME_SITE_NONE:
		out.SameSite = ir.SameSiteNone
	}
	return out
}

// oidcRequests compares paths by the header that holds them, with their query.
func oidcRequests(list []*meshv1.OidcRequest) []ir.ValueMatch {
	var out []ir.ValueMatch
	for _, m := range list {
		if m.GetHeader() != nil {
			out = append(out, values([]*meshv1.ValueMatch{m.GetHeader()})...)
			continue
		}
		path := m.GetPath()
		expression := regexp.QuoteMeta(path.GetValue())
		switch path.GetMatch() {
		case meshv1.MatchType_MATCH_TYPE_PREFIX:
			expression = regexp.QuoteMeta(strings.TrimRight(path.GetValue(), "/")) + `(?:/[^?]*)?`
		case meshv1.MatchType_MATCH_TYPE_REGEX:
			expression = "(?:" + path.GetValue() + ")"
		}
		out = append(out, ir.ValueMatch{Name: pathHeader, TextMatch: ir.TextMatch{Kind: ir.TextRegex, Value: expression + `(?:\?.*)?`}})
	}
	return out
}

// withLogins adds the paths to which logins of a host's routes come back, and those that log out, since a route that asks for a
// login need not have them. The filter answers there; what it lets pass finds nothing.
func withLogins(routes []ir.Route) []ir.Route {
	var logins []ir.Route
	seen := map[*ir.OIDC]bool{}
	paths := map[string]bool{}
	for _, r := range routes {
		o := r.Filters.OIDC
		if o == nil || seen[o] {
			continue
		}
		seen[o] = true
		for _, path := range []string{o.RedirectPath, o.LogoutPath} {
			if paths[path] {
				continue
			}
			paths[path] = true
			logins = append(logins, ir.Route{
				Name: "login " + path, Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathExact, Value: path}},
				Direct: &ir.DirectResponse{Status: 404}, Filters: ir.Filters{OIDC: o},
			})
		}
	}
	return append(logins, routes...)
}

// partLogins closes the routes of a host with a login at whose paths another one answers already: which of them a user meant to come
// back from could not be told. The first by where it stands keeps the paths.
func (b *builder) partLogins(host string, routes []ir.Route) []ir.Route {
	var logins []*ir.OIDC
	for _, r := range routes {
		if o := r.Filters.OIDC; o != nil && !slices.Contains(logins, o) {
			logins = append(logins, o)
		}
	}
	if len(logins) < 2 {
		return routes
	}
	slices.SortStableFunc(logins, func(x, y *ir.OIDC) int { return cmp.Compare(b.logins[x], b.logins[y]) })
	at := map[string]*ir.OIDC{}
	late := map[*ir.OIDC]bool{}
	for _, o := range logins {
		for _, path := range []string{o.RedirectPath, o.LogoutPath} {
			first := at[path]
			if first == nil || sameLogin(first, o) || late[o] {
				continue
			}
			late[o] = true
			kind, rest, _ := strings.Cut(b.logins[o], "/")
			name, _, _ := strings.Cut(rest, "/")
			b.reject(resource.Key{Kind: kind, Mesh: b.MeshName, Name: name}, len(b.order),
				fmt.Errorf("oidc: on host %s the path %s is that of the login of %s, which differs: give each login of a host a redirectPath and a logoutPath of its own", host, path, b.logins[first]))
		}
		if !late[o] {
			at[o.RedirectPath], at[o.LogoutPath] = o, o
		}
	}
	out := slices.Clone(routes)
	for i, r := range out {
		if late[r.Filters.OIDC] {
			out[i] = closed(r.Name, r.Match)
		}
	}
	return out
}

// sameLogin tells whether it doesn't matter which of two logins a user comes back to.
func sameLogin(x, y *ir.OIDC) bool {
	essence := func(o ir.OIDC) ir.OIDC {
		o.PassThrough, o.DenyRedirect, o.Scopes, o.Resources = nil, nil, nil, nil
		return o
	}
	return reflect.DeepEqual(essence(*x), essence(*y))
}
