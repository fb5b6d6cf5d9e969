package xds

import (
	"errors"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	oauth2v3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/oauth2/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// routeOIDC is the whole configuration of a login, since the filter has room for one where it stands and routes want several.
func routeOIDC(r *ir.Route) (validated, error) {
	o := r.Filters.OIDC
	if o == nil {
		return nil, nil
	}
	token, err := httpURI(&o.Token)
	if err != nil {
		return nil, fmt.Errorf("oidc: token endpoint: %w", err)
	}
	if o.ClientSecret == "" || o.CookieSecret == "" {
		return nil, errors.New("oidc: has no secret of the client or none for cookies: name both")
	}
	pass, inPass := requestHeaders(o.PassThrough)
	deny, inDeny := requestHeaders(o.DenyRedirect)
	if err := errors.Join(inPass, inDeny, notNegative(namedDuration{"oidc: default expiry", o.DefaultExpiry},
		namedDuration{"oidc: default refresh expiry", o.DefaultRefreshExpiry})); err != nil {
		return nil, err
	}
	origin := o.RedirectOrigin
	if origin == "" {
		origin = "%REQ(x-forwarded-proto)%://%REQ(:authority)%"
	}
	cookie := &oauth2v3.CookieConfig{SameSite: oauth2v3.CookieConfig_LAX}
	// The cookies of a login under way come back with the provider's redirect, which is a request from another site.
	underway := &oauth2v3.CookieConfig{SameSite: oauth2v3.CookieConfig_LAX}
	switch o.Cookies.SameSite {
	case ir.SameSiteStrict:
		cookie = &oauth2v3.CookieConfig{SameSite: oauth2v3.CookieConfig_STRICT}
	case ir.SameSiteNone:
		cookie = &oauth2v3.CookieConfig{SameSite: oauth2v3.CookieConfig_NONE}
		underway = cookie
	}
	config := &oauth2v3.OAuth2Config{
		AuthorizationEndpoint: o.AuthorizationEndpoint, TokenEndpoint: token, EndSessionEndpoint: o.EndSessionEndpoint,
		Credentials: &oauth2v3.OAuth2Credentials{
			ClientId:       o.ClientID,
			TokenSecret:    &tlsv3.SdsSecretConfig{Name: o.ClientSecret, SdsConfig: ads()},
			TokenFormation: &oauth2v3.OAuth2Credentials_HmacSecret{HmacSecret: &tlsv3.SdsSecretConfig{Name: o.CookieSecret, SdsConfig: ads()}},
			CookieNames: &oauth2v3.OAuth2Credentials_CookieNames{
				BearerToken: o.Cookies.Bearer, OauthHmac: o.Cookies.HMAC, OauthExpires: o.Cookies.Expires, IdToken: o.Cookies.ID,
				RefreshToken: o.Cookies.Refresh, OauthNonce: o.Cookies.Nonce, CodeVerifier: o.Cookies.Verifier,
			},
			CookieDomain: o.Cookies.Domain,
		},
		RedirectUri: origin + o.RedirectPath, RedirectPathMatcher: exactPath(o.RedirectPath), SignoutPath: exactPath(o.LogoutPath),
		ForwardBearerToken: o.ForwardBearer, PassThroughMatcher: pass, DenyRedirectMatcher: deny, AuthScopes: o.Scopes, Resources: o.Resources,
		UseRefreshToken: wrapperspb.Bool(o.Refresh), DefaultExpiresIn: unlessZero(o.DefaultExpiry),
		DefaultRefreshTokenExpiresIn: unlessZero(o.DefaultRefreshExpiry), AllowedRedirectDomains: o.AllowedDomains,
		CookieConfigs: &oauth2v3.CookieConfigs{
			BearerTokenCookieConfig: cookie, OauthHmacCookieConfig: cookie, OauthExpiresCookieConfig: cookie, IdTokenCookieConfig: cookie,
			RefreshTokenCookieConfig: cookie, OauthNonceCookieConfig: underway, CodeVerifierCookieConfig: underway,
		},
		TokenCookieChunking: &oauth2v3.TokenCookieChunking{},
	}
	if o.BasicAuth {
		config.AuthType = oauth2v3.OAuth2Config_BASIC_AUTH
	}
	if o.IDTokenHeader != "" {
		config.ForwardIdToken = &oauth2v3.OAuth2TokenForwarding{Header: o.IDTokenHeader}
	}
	if o.AfterLogout != "" {
		config.PostLogoutRedirectUri = &oauth2v3.PostLogoutRedirectUri{Config: &oauth2v3.PostLogoutRedirectUri_Uri{Uri: o.AfterLogout}}
	}
	return &oauth2v3.OAuth2PerRoute{Config: config}, nil
}

func exactPath(path string) *matcherv3.PathMatcher {
	return &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: exactly(path)}}
}

func requestHeaders(list []ir.ValueMatch) ([]*routev3.HeaderMatcher, error) {
	var out []*routev3.HeaderMatcher
	var errs []error
	for _, m := range list {
		header, err := headerMatch(m.Name, m.TextMatch)
		errs = append(errs, err)
		out = append(out, header)
	}
	return out, errors.Join(errs...)
}
