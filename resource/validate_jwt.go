package resource

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Bounds of what proxies are told of tokens.
const (
	maxProviderName = 63
	maxCacheTime    = 7 * 24 * time.Hour
)

func checkJwt(s scope, j *meshv1.Jwt) {
	if len(j.GetProviders()) == 0 {
		s.errorf("add providers: {NAME: {issuer, remoteJwks}}", "needs a provider")
	}
	for _, name := range slices.Sorted(maps.Keys(j.GetProviders())) {
		at := s.at("providers").key(name)
		if len(name) > maxProviderName || !tagValue.MatchString(name) {
			at.errorf("use letters, digits, '-', '_' and '.', at most 63", "%q is no name for a provider", name)
		}
		checkJwtProvider(at, j.GetProviders()[name])
	}
	for i, c := range j.GetRequireClaims() {
		at := s.at("requireClaims").index(i)
		checkClaim(at.at("claim"), c.GetClaim())
		for k, v := range c.GetValues() {
			if v == "" {
				at.at("values").index(k).errorf("", "is empty")
			}
		}
	}
}

func checkJwtProvider(s scope, p *meshv1.JwtProvider) {
	for i, a := range p.GetAudiences() {
		if a == "" {
			s.at("audiences").index(i).errorf("", "is empty")
		}
	}
	switch {
	case p.GetRemoteJwks() != nil && p.GetLocalJwks() != nil:
		s.errorf("keep one of them", "remoteJwks excludes localJwks")
	case p.GetRemoteJwks() != nil:
		checkRemoteJwks(s.at("remoteJwks"), p.GetRemoteJwks())
	case p.GetLocalJwks() != nil:
		checkLocalJwks(s.at("localJwks"), p.GetLocalJwks())
	default:
		s.errorf("add remoteJwks: {httpUri: {uri: https://HOST/PATH}}, or localJwks", "needs keys by which tokens are verified")
	}
	for i, h := range p.GetFromHeaders() {
		checkHeaderName(s.at("fromHeaders").index(i).at("name"), h.GetName())
	}
	for i, name := range p.GetFromParams() {
		if name == "" || strings.ContainsAny(name, "&=#?") {
			s.at("fromParams").index(i).errorf("", "%q is no name for a query parameter", name)
		}
	}
	for i, name := range p.GetFromCookies() {
		checkCookieName(s.at("fromCookies").index(i), name)
	}
	seen := map[string]int{}
	for i, c := range p.GetClaimToHeaders() {
		at := s.at("claimToHeaders").index(i)
		checkOwnHeader(at.at("header"), c.GetHeader())
		if other, dup := seen[strings.ToLower(c.GetHeader())]; dup {
			at.at("header").errorf("use another header", "%s is that of claim %d already", c.GetHeader(), other)
		}
		seen[strings.ToLower(c.GetHeader())] = i
		checkClaim(at.at("claim"), c.GetClaim())
	}
	if h := p.GetForwardPayloadHeader(); h != "" {
		checkOwnHeader(s.at("forwardPayloadHeader"), h)
	}
	checkDuration(s.at("clockSkew"), p.GetClockSkew(), time.Second, 24*time.Hour)
	checkFullSeconds(s.at("clockSkew"), p.GetClockSkew().AsDuration())
	checkDuration(s.at("maxLifetime"), p.GetMaxLifetime(), time.Second, 0)
}

func checkFullSeconds(s scope, d time.Duration) {
	if d%time.Second != 0 {
		s.errorf("", "must be full seconds")
	}
}

// checkOwnHeader takes a header that a proxy may write.
func checkOwnHeader(s scope, name string) {
	checkHeaderName(s, name)
	if strings.EqualFold(name, "host") {
		s.errorf("use another header", "the header %s leads the request and cannot be changed", name)
	}
}

func checkCookieName(s scope, name string) {
	if !token.MatchString(name) {
		s.errorf("", "%q is no name for a cookie", name)
	}
}

func checkClaim(s scope, name string) {
	if name == "" {
		s.errorf("", "needs the name of a claim")
		return
	}
	if slices.Contains(ClaimPath(name), "") {
		s.errorf("", "%q has nothing on one side of a dot", name)
	}
}

// ClaimPath leads to a claim, object by object. Names of claims that are URLs hold dots that lead nowhere.
func ClaimPath(name string) []string {
	if strings.ContainsAny(name, "/:") {
		return []string{name}
	}
	return strings.Split(name, ".")
}

func checkRemoteJwks(s scope, r *meshv1.JwtRemoteJwks) {
	if r.GetHttpUri() == nil {
		s.errorf("add httpUri: {uri: https://HOST/PATH}", "needs httpUri, where the keys are")
		return
	}
	checkHTTPURI(s.at("httpUri"), r.GetHttpUri())
	checkDuration(s.at("cacheDuration"), r.GetCacheDuration(), time.Second, maxCacheTime)
	checkDuration(s.at("asyncFetch", "failedRefetchDuration"), r.GetAsyncFetch().GetFailedRefetchDuration(), 100*time.Millisecond, time.Hour)
	retry := s.at("retry")
	if r.GetRetry().GetAttempts() > 10 {
		retry.at("attempts").errorf("", "must be at most 10")
	}
	checkDuration(retry.at("baseInterval"), r.GetRetry().GetBaseInterval(), time.Millisecond, time.Minute)
	checkDuration(retry.at("maxInterval"), r.GetRetry().GetMaxInterval(), max(time.Millisecond, r.GetRetry().GetBaseInterval().AsDuration()), time.Hour)
}

// checkHTTPURI takes an address that a proxy calls, at a service of the mesh or by itself.
func checkHTTPURI(s scope, u *meshv1.HttpUri) {
	if u.GetUri() == "" {
		s.errorf("add uri: https://HOST/PATH", "needs uri")
	} else {
		checkURL(s.at("uri"), u.GetUri())
	}
	if parsed, err := url.Parse(u.GetUri()); err == nil && parsed.Fragment != "" {
		s.at("uri").errorf("remove it", "an address that is called has no fragment")
	}
	if u.GetCluster() != "" && !tagValue.MatchString(u.GetCluster()) {
		s.at("cluster").errorf("write the value of its tag "+TagService, "%q is no name of a service", u.GetCluster())
	}
	checkDuration(s.at("timeout"), u.GetTimeout(), time.Millisecond, time.Minute)
	if u.GetCaCert() == nil {
		return
	}
	switch {
	case u.GetCluster() != "":
		s.at("caCert").errorf("give it to the ExternalService", "is for a uri without cluster")
	case !strings.HasPrefix(u.GetUri(), "https:"):
		s.at("caCert").errorf("", "is for an https uri")
	default:
		checkRoots(s.at("caCert"), u.GetCaCert())
	}
}

func checkLocalJwks(s scope, d *meshv1.DataSource) {
	checkDataSource(s, d, "the keys")
	var text []byte
	switch v := d.GetType().(type) {
	case *meshv1.DataSource_Inline:
		text = v.Inline
	case *meshv1.DataSource_InlineString:
		text = []byte(v.InlineString)
	}
	if len(text) == 0 {
		return
	}
	if err := CheckKeys(text); err != nil {
		s.errorf(`write {"keys": [...]} as the issuer's jwks_uri gives it`, "%s", err)
		return
	}
	if i := sharedKey(text); i >= 0 {
		s.errorf("put the key set into a Secret and write localJwks: {secret: NAME}", "key %d is a shared one (kty oct), and everybody who may read policies could sign with it", i)
	}
}

// sharedKey is the place of the first key of a set that signs as well as it verifies; -1 without one.
func sharedKey(text []byte) int {
	var set struct{ Keys []webKey }
	if err := json.Unmarshal(text, &set); err != nil {
		return -1
	}
	return slices.IndexFunc(set.Keys, func(k webKey) bool { return k.Kty == "oct" || k.K != "" })
}

// CheckKeys tells whether bytes are a key set (RFC 7517) of which a proxy can use a key. An error holds no part of a key.
func CheckKeys(text []byte) error {
	var set struct {
		Keys []webKey
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return fmt.Errorf("no JSON of a key set: %w", err)
	}
	if len(set.Keys) == 0 {
		return errors.New("the key set has no keys")
	}
	var first error
	usable := false
	for i, k := range set.Keys {
		if k.D != "" {
			return fmt.Errorf("key %d is a private key: give the public one alone", i)
		}
		if err := k.check(); err == nil {
			usable = true
		} else if first == nil {
			first = fmt.Errorf("key %d %w", i, err)
		}
	}
	if !usable {
		return first
	}
	return nil
}

// webKey is what of a key (RFC 7517) tells whether a proxy can use it.
type webKey struct{ Kty, Crv, N, E, X, Y, K, D string }

func (k webKey) check() error {
	curves := map[string]string{"EC": "P-256 P-384 P-521", "OKP": "Ed25519"}[k.Kty]
	numbers, known := map[string][]string{"RSA": {k.N, k.E}, "EC": {k.X, k.Y}, "OKP": {k.X}, "oct": {k.K}}[k.Kty]
	switch {
	case !known:
		return fmt.Errorf("has the unknown kty %q: use RSA, EC, OKP or oct", k.Kty)
	case curves != "" && !slices.Contains(strings.Fields(curves), k.Crv):
		return fmt.Errorf("has the unknown crv %q: use one of %s", k.Crv, curves)
	}
	for _, n := range numbers {
		if bytes, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(n, "=")); err != nil || len(bytes) == 0 {
			return fmt.Errorf("lacks a number of its kty %s, or holds one that is no base64url", k.Kty)
		}
	}
	return nil
}
