package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// oidcProvider is an OpenID Connect provider where everybody is Ada: its login asks nothing. It has one client.
type oidcProvider struct {
	handler http.Handler
	secret  string
	key     *rsa.PrivateKey
	// redirects and after are what the client registered.
	redirects, after []string

	mu       sync.Mutex
	requests map[string]*oidcRequest // guarded by mu, as all below
	refresh  map[string]*oidcRequest
	lifetime time.Duration
	made     int
	logins   int
	renewals int
	logouts  int
}

// newOIDCProvider serves at an https address.
func newOIDCProvider(t *testing.T, issuer, secret string, redirects, after []string) *oidcProvider {
	t.Helper()
	p := &oidcProvider{secret: secret, redirects: redirects, after: after, requests: map[string]*oidcRequest{}, refresh: map[string]*oidcRequest{}, lifetime: time.Hour}
	var err error
	if p.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	provider, err := op.NewProvider(&op.Config{CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true, SupportedScopes: []string{"openid", "offline_access"}},
		oidcStorage{p}, op.StaticIssuer(issuer))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("id")
		p.mu.Lock()
		if request := p.requests[id]; request != nil {
			request.done = true
		}
		p.logins++
		p.mu.Unlock()
		ctx := op.ContextWithIssuer(r.Context(), issuer)
		http.Redirect(w, r, op.AuthCallbackURL(provider)(ctx, id), http.StatusFound)
	})
	mux.Handle("/", provider)
	p.handler = mux
	return p
}

func (p *oidcProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// counts are how often users logged in and out, and tokens were renewed without them.
func (p *oidcProvider) counts() (logins, renewals, logouts int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logins, p.renewals, p.logouts
}

// live sets for how long access tokens hold from now on.
func (p *oidcProvider) live(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lifetime = d
}

func (p *oidcProvider) nextLocked(prefix string) string {
	p.made++
	return prefix + strconv.Itoa(p.made)
}

// oidcRequest is one login.
type oidcRequest struct {
	id, code string
	asked    *oidc.AuthRequest
	done     bool
	at       time.Time
}

func (r *oidcRequest) GetID() string             { return r.id }
func (r *oidcRequest) GetACR() string            { return "" }
func (r *oidcRequest) GetAMR() []string          { return nil }
func (r *oidcRequest) GetAudience() []string     { return []string{r.asked.ClientID} }
func (r *oidcRequest) GetAuthTime() time.Time    { return r.at }
func (r *oidcRequest) GetClientID() string       { return r.asked.ClientID }
func (r *oidcRequest) GetNonce() string          { return r.asked.Nonce }
func (r *oidcRequest) GetRedirectURI() string    { return r.asked.RedirectURI }
func (r *oidcRequest) GetScopes() []string       { return r.asked.Scopes }
func (r *oidcRequest) GetState() string          { return r.asked.State }
func (r *oidcRequest) GetSubject() string        { return "ada" }
func (r *oidcRequest) Done() bool                { return r.done }
func (r *oidcRequest) SetCurrentScopes([]string) {}
func (r *oidcRequest) GetResponseType() oidc.ResponseType {
	return r.asked.ResponseType
}
func (r *oidcRequest) GetResponseMode() oidc.ResponseMode {
	return r.asked.ResponseMode
}
func (r *oidcRequest) GetCodeChallenge() *oidc.CodeChallenge {
	if r.asked.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.asked.CodeChallenge, Method: r.asked.CodeChallengeMethod}
}

// oidcStorage is what the library asks of a provider.
type oidcStorage struct{ p *oidcProvider }

var errNotThere = errors.New("not there")

func (s oidcStorage) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	r := &oidcRequest{id: s.p.nextLocked("request"), asked: asked, at: time.Now()}
	s.p.requests[r.id] = r
	return r, nil
}

func (s oidcStorage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if r := s.p.requests[id]; r != nil {
		return r, nil
	}
	return nil, errNotThere
}

func (s oidcStorage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	for _, r := range s.p.requests {
		if r.code == code {
			return r, nil
		}
	}
	return nil, errNotThere
}

func (s oidcStorage) SaveAuthCode(_ context.Context, id, code string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if r := s.p.requests[id]; r != nil {
		r.code = code
		return nil
	}
	return errNotThere
}

func (s oidcStorage) DeleteAuthRequest(_ context.Context, id string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	delete(s.p.requests, id)
	return nil
}

func (s oidcStorage) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return s.p.nextLocked("token"), time.Now().Add(s.p.lifetime), nil
}

func (s oidcStorage) CreateAccessAndRefreshTokens(_ context.Context, request op.TokenRequest, current string) (string, string, time.Time, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	r, ok := request.(*oidcRequest)
	if !ok {
		return "", "", time.Time{}, errNotThere
	}
	if current != "" {
		s.p.renewals++
		delete(s.p.refresh, current)
	}
	next := s.p.nextLocked("refresh")
	s.p.refresh[next] = r
	return s.p.nextLocked("token"), next, time.Now().Add(s.p.lifetime), nil
}

func (s oidcStorage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if r := s.p.refresh[token]; r != nil {
		return r, nil
	}
	return nil, op.ErrInvalidRefreshToken
}

func (s oidcStorage) TerminateSession(context.Context, string, string) error {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	s.p.logouts++
	return nil
}

func (s oidcStorage) RevokeToken(context.Context, string, string, string) *oidc.Error { return nil }

func (s oidcStorage) GetRefreshTokenInfo(context.Context, string, string) (string, string, error) {
	return "", "", op.ErrInvalidRefreshToken
}

func (s oidcStorage) SigningKey(context.Context) (op.SigningKey, error) { return oidcKey{s.p.key}, nil }

func (s oidcStorage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (s oidcStorage) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{oidcPublicKey{oidcKey{s.p.key}}}, nil
}

func (s oidcStorage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != "shop" {
		return nil, errNotThere
	}
	return oidcClient{s.p}, nil
}

func (s oidcStorage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != "shop" || secret != s.p.secret {
		return errors.New("wrong secret")
	}
	return nil
}

func (s oidcStorage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

func (s oidcStorage) SetUserinfoFromToken(context.Context, *oidc.UserInfo, string, string, string) error {
	return nil
}

func (s oidcStorage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return nil
}

func (s oidcStorage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return map[string]any{"role": "reader"}, nil
}

func (s oidcStorage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNotThere
}

func (s oidcStorage) ValidateJWTProfileScopes(_ context.Context, _ string, scopes []string) ([]string, error) {
	return scopes, nil
}

func (s oidcStorage) Health(context.Context) error { return nil }

type oidcKey struct{ key *rsa.PrivateKey }

func (k oidcKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k oidcKey) Key() any                                    { return k.key }
func (k oidcKey) ID() string                                  { return "rsa" }

type oidcPublicKey struct{ oidcKey }

func (k oidcPublicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k oidcPublicKey) Use() string                        { return "sig" }
func (k oidcPublicKey) Key() any                           { return &k.key.PublicKey }

// oidcClient is the application as the provider knows it.
type oidcClient struct{ p *oidcProvider }

func (c oidcClient) GetID() string                       { return "shop" }
func (c oidcClient) RedirectURIs() []string              { return c.p.redirects }
func (c oidcClient) PostLogoutRedirectURIs() []string    { return c.p.after }
func (c oidcClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c oidcClient) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodPost }
func (c oidcClient) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c oidcClient) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}
func (c oidcClient) LoginURL(id string) string           { return "/login?id=" + id }
func (c oidcClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }
func (c oidcClient) IDTokenLifetime() time.Duration      { return time.Hour }
func (c oidcClient) DevMode() bool                       { return false }
func (c oidcClient) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c oidcClient) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
func (c oidcClient) IsScopeAllowed(string) bool           { return true }
func (c oidcClient) IDTokenUserinfoClaimsAssertion() bool { return false }
func (c oidcClient) ClockSkew() time.Duration             { return 0 }
