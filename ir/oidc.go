package ir

import "time"

// OIDC has users log in at an OpenID Connect provider.
type OIDC struct {
	// AuthorizationEndpoint and EndSessionEndpoint are where users are sent; the second may be empty.
	AuthorizationEndpoint string
	EndSessionEndpoint    string
	Token                 HTTPCall
	ClientID              string
	// ClientSecret and CookieSecret are names of secrets.
	ClientSecret string
	CookieSecret string
	Scopes       []string
	Resources    []string
	// RedirectOrigin is scheme and host to which users come back; empty for those of the request.
	RedirectOrigin string
	RedirectPath   string
	// AllowedDomains are those to which a login may lead back; empty for any.
	AllowedDomains []string
	LogoutPath     string
	// AfterLogout is empty for / of the host.
	AfterLogout string
	// PassThrough and DenyRedirect match by any of theirs; the header :path holds the path with its query.
	PassThrough  []ValueMatch
	DenyRedirect []ValueMatch
	// ForwardBearer gives backends the access token, IDTokenHeader the ID token unless it is empty.
	ForwardBearer bool
	IDTokenHeader string
	Cookies       OIDCCookies
	Refresh       bool
	// DefaultExpiry and DefaultRefreshExpiry are 0 for Envoy's.
	DefaultExpiry        time.Duration
	DefaultRefreshExpiry time.Duration
	// BasicAuth sends the client's secret by HTTP Basic, otherwise it is in the body.
	BasicAuth bool
}

// SameSite says with which requests from other sites a cookie is sent.
type SameSite string

// Kinds of SameSite.
const (
	SameSiteLax    SameSite = "lax"
	SameSiteStrict SameSite = "strict"
	SameSiteNone   SameSite = "none"
)

// OIDCCookies are the names of the cookies and what they have in common.
type OIDCCookies struct {
	Bearer, ID, Refresh, HMAC, Expires, Nonce, Verifier string
	// Domain is empty for the host of the request.
	Domain   string
	SameSite SameSite
}

// Names of secrets begin with where they come from.
const (
	// SecretText is followed by the name of a Secret whose text it is.
	SecretText = "text:"
	// SecretSeal is followed by the name of a Secret from whose text it is derived.
	SecretSeal = "seal:"
)
