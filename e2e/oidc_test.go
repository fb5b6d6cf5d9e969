package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestOIDC logs in at a real provider through one gateway, is known at the gateway of another zone, meets tampered cookies, an
// access token that ends, and logs out.
func TestOIDC(t *testing.T) {
	f := startEdge(t)
	f.startZone("west", 3)
	host := f.host(33)
	f.workload(host+":8080", "v1", nil)
	f.startProxy("west", 3, "echo-west", sidecarDocument("default", "echo-west", host, inboundOf("echo", "http", host, 8080, ", version: v1")), f.path("tokens", "echo"))
	f.startProxy("west", 3, "edge-west", strings.Replace(gatewayDocument("default", "edge", f.host(11)), "name: edge\n", "name: edge-west\n", 1), f.path("tokens", "edge"))

	ca := newAuthority(t)
	issuer := "https://" + f.at(60, 8443)
	provider := newOIDCProvider(t, issuer, "open sesame", []string{"https://shop.example.com/oauth2/callback"}, []string{"https://shop.example.com/"})
	pair := ca.pair(t, f.host(60))
	serve(t, f.at(60, 8443), provider, &pair)

	chain, key := ca.pem(t, "shop.example.com")
	gateway := strings.Replace(edgeGateway, "    - {port: 8080, protocol: HTTP}\n",
		"    - {port: 8443, protocol: HTTPS, hostname: shop.example.com, tls: {mode: TERMINATE, certificates: [{secret: shop-tls}]}}\n", 1)
	login := "authorizationEndpoint: " + issuer + "/authorize, tokenEndpoint: {uri: " + issuer + "/oauth/token, caCert: {secret: roots}}, endSessionEndpoint: " + issuer +
		"/end_session, clientId: shop, clientSecret: {secret: shop-client}, scopes: [openid, offline_access], forwardBearerToken: true, forwardIdTokenHeader: x-id-token, " +
		"passThrough: [{path: {match: PREFIX, value: /public}}], denyRedirect: [{header: {name: x-requested-with, match: PRESENT}}]"
	tokens := "providers: {login: {issuer: '" + issuer + "', forward: true, claimToHeaders: [{header: x-user, claim: sub}], remoteJwks: {httpUri: {uri: '" + issuer + "/keys', caCert: {secret: roots}}}}}, "
	route := func(tokens string) string {
		return gatewayRoute("shop", "", "      - matches: [{path: {match: PREFIX, value: /public}}]\n        filters: [{oidc: {"+login+"}}]\n"+toV1+
			"      - matches: [{path: {match: PREFIX, value: /admin}}]\n        filters: [{oidc: {"+login+"}}, {jwt: {"+tokens+"requireClaims: [{claim: role, values: [admin]}]}}]\n"+toV1+
			"      - matches: [{path: {match: PREFIX, value: /}}]\n        filters: [{type: OIDC, oidc: {"+login+"}}, {jwt: {"+tokens+"requireClaims: [{claim: role, values: [reader]}]}}]\n"+toV1)
	}
	// Without its Secret there is no login, and the route stays closed.
	f.refusesToApply([]string{"Secret default/shop-client is not there"}, secretDocument("shop-tls", chain, key), secretDocument("roots", ca.roots), gateway, route(tokens))
	f.apply(secretDocument("shop-client", []byte("open sesame\n")))
	f.settled("east", 3)
	f.settled("west", 2)

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	pool := ca.pool()
	// browser keeps cookies, which it shares with the others; it knows the shop's host at one of the gateways.
	browser := func(gateway int, jar http.CookieJar, follow bool) *http.Client {
		c := &http.Client{Jar: jar, Timeout: answerTime, Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == "shop.example.com:443" {
					address = f.at(gateway, 8443)
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			},
		}}
		if !follow {
			c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	get := func(c *http.Client, path string, header ...string) (*http.Response, answer) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, "https://shop.example.com"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		response, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		var a answer
		if response.Header.Get("X-Workload") != "" {
			if err := json.Unmarshal(body, &a); err != nil {
				t.Fatal(err)
			}
		}
		return response, a
	}
	stranger := browser(10, nil, false)
	f.await("the gateways", func() error {
		for _, gateway := range []int{10, 11} {
			r, err := browser(gateway, nil, false).Get("https://shop.example.com/public")
			if err != nil {
				return err
			}
			r.Body.Close()
			if r.StatusCode != http.StatusOK {
				return fmt.Errorf("gateway %d: %s", gateway, r.Status)
			}
		}
		return nil
	})

	r, _ := get(stranger, "/x")
	if to := r.Header.Get("Location"); r.StatusCode != http.StatusFound || !strings.HasPrefix(to, issuer+"/authorize?") || !strings.Contains(to, "code_challenge=") ||
		!strings.Contains(to, "redirect_uri="+url.QueryEscape("https://shop.example.com/oauth2/callback")) {
		t.Fatalf("a stranger gets %s to %q", r.Status, to)
	}
	if r, _ := get(stranger, "/x", "X-Requested-With", "script"); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("a script gets %s", r.Status)
	}

	user := browser(10, jar, true)
	r, a := get(user, "/x?y=1")
	if r.StatusCode != http.StatusOK || a.Path != "/x" || a.Query != "y=1" || a.Header.Get("X-User") != "ada" || a.Header.Get("X-Id-Token") == "" {
		t.Fatalf("after the login: %s %+v", r.Status, a)
	}
	token := a.Header.Get("Authorization")
	if strings.Count(token, ".") != 2 {
		t.Errorf("backends get %q", token)
	}
	shop, err := url.Parse("https://shop.example.com/")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range jar.Cookies(shop) {
		if strings.Contains(c.Value, "eyJ") || strings.Contains(c.Value, strings.TrimPrefix(token, "Bearer ")) {
			t.Errorf("the cookie %s holds a token that anybody can read", c.Name)
		}
	}
	if r, _ := get(user, "/admin"); r.StatusCode != http.StatusForbidden {
		t.Errorf("a claim is missing, and the answer is %s", r.Status)
	}
	// Whoever is logged in at one gateway is so at that of another zone.
	if r, a := get(browser(11, jar, false), "/y"); r.StatusCode != http.StatusOK || a.Header.Get("X-User") != "ada" {
		t.Errorf("at the gateway of the other zone: %s %+v", r.Status, a)
	}
	if logins, _, _ := provider.counts(); logins != 1 {
		t.Errorf("%d logins", logins)
	}
	// Each cookie that was changed costs the login.
	for _, c := range jar.Cookies(shop) {
		if !strings.HasPrefix(c.Name, "AccessToken") && !strings.HasPrefix(c.Name, "OauthHMAC") && !strings.HasPrefix(c.Name, "OauthExpires") {
			continue
		}
		var header []string
		for _, other := range jar.Cookies(shop) {
			// A refresh token is proof enough by itself, to the provider.
			if strings.HasPrefix(other.Name, "RefreshToken") {
				continue
			}
			value := other.Value
			if other.Name == c.Name {
				value = "A" + value[1:]
				if value == other.Value {
					value = "B" + value[1:]
				}
			}
			header = append(header, other.Name+"="+value)
		}
		if r, _ := get(stranger, "/x", "Cookie", strings.Join(header, "; ")); r.StatusCode == http.StatusOK {
			t.Errorf("with the cookie %s changed: %s", c.Name, r.Status)
		}
	}

	// Logging out at the gateway does so at the provider, and the cookies are gone.
	r, _ = get(browser(10, jar, false), "/oauth2/logout")
	end := r.Header.Get("Location")
	if r.StatusCode != http.StatusFound || !strings.HasPrefix(end, issuer+"/end_session?") {
		t.Fatalf("logging out: %s to %q", r.Status, end)
	}
	response, err := browser(10, jar, false).Get(end)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if _, _, logouts := provider.counts(); logouts != 1 || response.Header.Get("Location") != "https://shop.example.com/" {
		t.Errorf("the provider: %s to %q, %d logouts", response.Status, response.Header.Get("Location"), logouts)
	}
	if r, _ := get(browser(10, jar, false), "/x"); r.StatusCode != http.StatusFound {
		t.Errorf("after the logout: %s", r.Status)
	}

	// An access token that ends is renewed without a login.
	provider.live(2 * time.Second)
	_, a = get(user, "/x")
	first := a.Header.Get("Authorization")
	before, _, _ := provider.counts()
	f.await("a renewed token", func() error {
		r, a := get(user, "/x")
		if r.StatusCode != http.StatusOK || a.Header.Get("Authorization") == first {
			return fmt.Errorf("%s", r.Status)
		}
		return nil
	})
	if logins, renewals, _ := provider.counts(); logins != before || renewals == 0 {
		t.Errorf("%d logins and %d renewals after %d logins", logins, renewals, before)
	}

	// Another secret ends all logins.
	f.apply(secretDocument("shop-client", []byte("another")))
	f.await("the new secret", func() error {
		if r, _ := get(browser(10, jar, false), "/x"); r.StatusCode != http.StatusFound {
			return fmt.Errorf("%s", r.Status)
		}
		return nil
	})
}
