package e2e

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// issuer signs tokens and serves its keys.
type issuer struct {
	t  *testing.T
	mu sync.Mutex
	// keys are those that are served, the last one signs. Guarded by mu, as fetches are.
	keys    []jose.JSONWebKey
	fetches map[string]int
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, fetches: map[string]int{}}
	i.rotate("one")
	return i
}

// rotate replaces the key.
func (i *issuer) rotate(id string) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = []jose.JSONWebKey{{Key: key, KeyID: id, Algorithm: "ES256", Use: "sig"}}
}

func (i *issuer) jwks() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, k := range i.keys {
		set.Keys = append(set.Keys, k.Public())
	}
	out, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return out
}

func (i *issuer) fetched(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches[path]
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.fetches[r.URL.Path]++
	i.mu.Unlock()
	_, _ = w.Write(i.jwks())
}

// serve listens until the test or the server ends; a nil certificate is plaintext.
func serve(t *testing.T, address string, handler http.Handler, certificate *tls.Certificate) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
	if certificate != nil {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

type claims map[string]any

// with is a copy with other claims; nil removes one.
func (c claims) with(more claims) claims {
	out := claims{}
	for _, from := range []claims{c, more} {
		for k, v := range from {
			if out[k] = v; v == nil {
				delete(out, k)
			}
		}
	}
	return out
}

func (i *issuer) sign(c claims) string {
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	return signToken(i.t, key, c)
}

func signToken(t *testing.T, key jose.JSONWebKey, c claims) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unsigned(c claims) string {
	payload, _ := json.Marshal(c)
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload) + "."
}

// said is the status and the text of an answer.
func said(client *http.Client, url string, header ...string) (int, string, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// TestJWT sends tokens of several issuers through a gateway: good ones, those that lie, those that lack something, and those
// of keys that changed.
func TestJWT(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	ca := newAuthority(t)
	shop, direct := newIssuer(t), newIssuer(t)
	pair, byAddress := ca.pair(t, "issuer.example.com"), ca.pair(t, f.host(61))
	serve(t, f.host(60)+":8443", shop, &pair)
	serve(t, f.host(61)+":8443", direct, &byAddress)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	robot := jose.JSONWebKey{Key: edKey, KeyID: "robot", Algorithm: "EdDSA"}
	robotKeys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{robot.Public()}})
	if err != nil {
		t.Fatal(err)
	}

	shopProvider := func(more string) string {
		return "shop: {issuer: https://issuer.example.com, audiences: [shop, other], remoteJwks: {httpUri: {uri: https://issuer.example.com/keys, cluster: issuer, timeout: 20s}, cacheDuration: 2s}" + more + "}"
	}
	rule := func(path, jwt string) string {
		return fmt.Sprintf("      - matches: [{path: {match: PREFIX, value: %s}}]\n        filters: [{type: JWT, jwt: {%s}}]\n%s", path, jwt, toV1)
	}
	robotProvider := "robot: {issuer: robot, localJwks: {secret: robot-keys}, fromHeaders: [{name: x-token, valuePrefix: 'T '}], fromParams: [t], fromCookies: [c]}"
	external := fmt.Sprintf("type: ExternalService\nmesh: default\nname: issuer\ntags: {kuma.io/service: issuer, kuma.io/protocol: http}\nnetworking: {address: '%s:8443', tls: {enabled: true, serverName: issuer.example.com, caCert: {secret: roots}}}\n", f.host(60))
	route := gatewayRoute("jwt", "",
		rule("/shop", "providers: {"+shopProvider(", claimToHeaders: [{header: x-user, claim: sub}, {headerName: x-tenant, claimName: org.tenant}, {header: x-url, claim: 'https://example.com/a.b'}], forwardPayloadHeader: x-claims")+"}")+
			rule("/forward", "providers: {"+shopProvider(", forward: true")+"}")+
			rule("/robot", "providers: {"+robotProvider+"}")+
			rule("/either", "providers: [{name: direct, issuer: direct, remoteJwks: {httpUri: {uri: 'https://"+f.at(61, 8443)+"/keys', caCert: {secret: roots}}}}, {name: robot, issuer: robot, localJwks: {secret: robot-keys}}]")+
			rule("/optional", "optional: true, providers: {"+shopProvider("")+"}, requireClaims: [{claim: role, values: [reader]}]")+
			rule("/admin", "providers: {"+shopProvider("")+"}, requireClaims: [{claim: scope, values: [admin, root]}, {claim: org.tenant}]")+
			rule("/twice", "providers: {a: {issuer: 'https://issuer.example.com', audiences: [none], remoteJwks: {httpUri: {uri: 'https://issuer.example.com/keys', cluster: issuer}}}, "+shopProvider("")+"}, requireClaims: [{claim: role}]")+
			rule("/number", "providers: {"+shopProvider("")+"}, requireClaims: [{claim: level, values: ['3']}, {claim: active, values: ['true']}]")+
			"      - matches: [{path: {match: PREFIX, value: /open}}]\n"+toV1)
	f.apply(secretDocument("roots", ca.roots), secretDocument("robot-keys", robotKeys), external, route)
	f.answers(client, http.StatusOK, "GET", url("/open"))

	now := time.Now().Unix()
	base := claims{"iss": "https://issuer.example.com", "aud": "shop", "sub": "ada", "exp": now + 3600, "org": claims{"tenant": "blue"}, "https://example.com/a.b": "dots"}
	good := shop.sign(base)
	f.answers(client, http.StatusOK, "GET", url("/shop"), "Authorization", "Bearer "+good)
	stranger := newIssuer(t)
	robotToken := signToken(t, robot, claims{"iss": "robot", "exp": now + 3600})
	for _, c := range []struct {
		name, path, token string
		status            int
		words             string
	}{
		{"no token", "/shop", "", 401, "Jwt is missing"},
		{"good", "/shop", good, 200, ""},
		{"one of several audiences", "/shop", shop.sign(base.with(claims{"aud": []string{"x", "other"}})), 200, ""},
		{"expired", "/shop", shop.sign(base.with(claims{"exp": now - 120})), 401, "Jwt is expired"},
		{"expired within the skew", "/shop", shop.sign(base.with(claims{"exp": now - 5})), 200, ""},
		{"not yet", "/shop", shop.sign(base.with(claims{"nbf": now + 600})), 401, "Jwt not yet valid"},
		{"audience", "/shop", shop.sign(base.with(claims{"aud": "third"})), 401, "Audiences in Jwt are not allowed"},
		{"issuer", "/shop", shop.sign(base.with(claims{"iss": "https://evil.example.com"})), 401, "Jwt issuer is not configured"},
		{"another's key", "/shop", stranger.sign(base), 401, "Jwt verification fails"},
		{"no signature", "/shop", unsigned(base), 401, "Jwt"},
		{"no token at all", "/shop", "abc", 401, "Jwt is not in the form"},
		{"a token of another provider", "/shop", robotToken, 401, "Jwt issuer is not configured"},
		{"either of two", "/either", robotToken, 200, ""},
		{"or the other", "/either", direct.sign(claims{"iss": "direct"}), 200, ""},
		{"none of both", "/either", good, 401, "Jwt"},
		{"optional without", "/optional", "", 200, ""},
		{"optional and bad", "/optional", stranger.sign(base), 401, "Jwt verification fails"},
		{"optional without the claim", "/optional", good, 403, "RBAC: access denied"},
		{"optional with the claim", "/optional", shop.sign(base.with(claims{"role": "reader"})), 200, ""},
		{"claim is missing", "/admin", good, 403, "RBAC: access denied"},
		{"claim among words", "/admin", shop.sign(base.with(claims{"scope": "read admin write"})), 200, ""},
		{"claim as a part of a word", "/admin", shop.sign(base.with(claims{"scope": "administrator nadmin"})), 403, ""},
		{"claim in a list", "/admin", shop.sign(base.with(claims{"scope": []string{"read", "root"}})), 200, ""},
		{"the second claim is missing", "/admin", shop.sign(base.with(claims{"scope": "admin", "org": nil})), 403, ""},
		{"numbers and booleans", "/number", shop.sign(base.with(claims{"level": 3, "active": true})), 200, ""},
		{"another number", "/number", shop.sign(base.with(claims{"level": 4, "active": true})), 403, ""},
		{"the second provider takes it, without the claim", "/twice", good, 403, "RBAC: access denied"},
		{"the second provider takes it, with the claim", "/twice", shop.sign(base.with(claims{"role": "x"})), 200, ""},
		{"no provider takes its audience", "/twice", shop.sign(base.with(claims{"aud": "third"})), 401, "Audiences in Jwt are not allowed"},
		{"claims are asked for after the token", "/admin", "", 401, "Jwt is missing"},
		{"no filter", "/open", "", 200, ""},
	} {
		var header []string
		if c.token != "" {
			header = []string{"Authorization", "Bearer " + c.token}
		}
		status, body, err := said(client, url(c.path), header...)
		if err != nil || status != c.status || !strings.Contains(body, c.words) {
			t.Errorf("%s: %s: %d %q %v, want %d with %q", c.name, c.path, status, body, err, c.status, c.words)
		}
	}

	// What backends see of it: claims, and the token only where it is forwarded. What a client claims of itself is dropped.
	_, a, err := ask(client, "GET", url("/shop"), "Authorization", "Bearer "+good, "X-User", "root", "X-Tenant", "red", "X-Claims", "mine")
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(a.Header.Get("X-Claims"))
	if got := strings.Join(a.Header.Values("X-User"), ",") + " " + strings.Join(a.Header.Values("X-Tenant"), ",") + " " + a.Header.Get("X-Url"); got != "ada blue dots" || err != nil ||
		!strings.Contains(string(payload), `"sub":"ada"`) || a.Header.Get("Authorization") != "" {
		t.Errorf("backends see %v", a.Header)
	}
	if _, a, err = ask(client, "GET", url("/forward?access_token="+good)); err != nil || !strings.Contains(a.Query, good) {
		t.Errorf("the token is not forwarded: %+v %v", a, err)
	}
	// Places of tokens.
	for _, c := range []struct {
		where  string
		path   string
		header []string
		status int
	}{
		{"header", "/robot", []string{"X-Token", "T " + robotToken}, 200},
		{"query", "/robot?a=b&t=" + robotToken, nil, 200},
		{"cookie", "/robot", []string{"Cookie", "c=" + robotToken}, 200},
		{"elsewhere", "/robot", []string{"Authorization", "Bearer " + robotToken}, 401},
	} {
		if status, body, err := said(client, url(c.path), c.header...); err != nil || status != c.status {
			t.Errorf("a token in the %s: %d %s %v", c.where, status, body, err)
		}
	}

	// Routes that have nothing to do with it renew no keys.
	before := direct.fetched("/keys")
	for i := range 3 {
		f.apply(gatewayRoute("more", "", fmt.Sprintf("      - matches: [{path: {match: PREFIX, value: /more%d}}]\n", i)+toV1))
		f.answers(client, http.StatusOK, "GET", url(fmt.Sprintf("/more%d", i)))
	}
	if status, _, err := said(client, url("/either"), "Authorization", "Bearer "+direct.sign(claims{"iss": "direct"})); err != nil || status != http.StatusOK {
		t.Errorf("after other routes changed: %d %v", status, err)
	}
	if got := direct.fetched("/keys"); got != before {
		t.Errorf("%d fetches of keys after routes changed that ask for no token, %d before", got, before)
	}

	// A key is replaced: tokens of the new one are taken once the cache ends, those of the old one no longer.
	shop.rotate("two")
	renewed := shop.sign(base)
	f.answers(client, http.StatusOK, "GET", url("/shop"), "Authorization", "Bearer "+renewed)
	// One worker has the new key, and so does the other soon.
	f.answers(client, http.StatusUnauthorized, "GET", url("/shop"), "Authorization", "Bearer "+good)

	f.apply(gatewayRoute("busy", "", rule("/busy", "providers: {"+shopProvider("")+"}")))
	f.answers(client, http.StatusOK, "GET", url("/busy"), "Authorization", "Bearer "+renewed)
	// The filter works on a listener and in a policy just as well.
	f.apply(fmt.Sprintf("type: FilterPolicy\nmesh: default\nname: tokens\nselectors: [{match: {kuma.io/service: edge}}]\nroutes: [more]\nconf: {filters: [{jwt: {providers: {%s}}}]}\n", shopProvider("")))
	f.answers(client, http.StatusUnauthorized, "GET", url("/more2"))
	f.answers(client, http.StatusOK, "GET", url("/more2"), "Authorization", "Bearer "+renewed)

	// Other audiences under traffic: whoever both allow never notices.
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if status, body, err := said(client, url("/busy"), "Authorization", "Bearer "+renewed); err != nil || status != http.StatusOK {
				failed <- fmt.Errorf("%d %s %v", status, body, err)
				return
			}
		}
	}()
	for i := range 8 {
		f.apply(gatewayRoute("busy", "", rule("/busy", fmt.Sprintf("providers: {p: {issuer: 'https://issuer.example.com', audiences: [shop, a%d], remoteJwks: {httpUri: {uri: 'https://issuer.example.com/keys', cluster: issuer}}}}", i))))
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("while audiences changed: %v", err)
	}
}
