package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// TestCacheBehindTokens keeps answers behind a filter for tokens: nobody is given one without a good token of his own, and of those
// that don't say that they are for everyone none is kept.
func TestCacheBehindTokens(t *testing.T) {
	f, o := startOrigin(t)
	client := newClient(t)
	issuer := newIssuer(t)
	f.apply(gatewayRoute("pages", "", cachedRule("/tokens", "", "", ", {jwt: {providers: {p: {issuer: i, localJwks: {inlineString: '"+string(issuer.jwks())+"'}}}}}")))
	at := func(path, control string) string {
		return "http://" + f.at(10, 8080) + "/tokens" + path + "?" + url.Values{"h": {"Cache-Control:" + control}}.Encode()
	}
	bearer := func(subject string, expires time.Duration) []string {
		return []string{"Authorization", "Bearer " + issuer.sign(claims{"iss": "i", "sub": subject, "exp": time.Now().Add(expires).Unix()})}
	}
	f.answers(client, http.StatusUnauthorized, "GET", at("/", "public, max-age=600"))
	asks := func(what, address string, status int, cache string, reaches int, header ...string) {
		t.Helper()
		before, _, _ := o.seen()
		r, _, err := send(client, "GET", address, nil, header...)
		after, _, _ := o.seen()
		if err != nil || r.StatusCode != status || r.Header.Get("X-Cache") != cache || after-before != reaches {
			t.Errorf("%s: %v with %q, %d requests reached the origin, want %d with %q and %d: %v", what, r, r.Header.Get("X-Cache"), after-before, status, cache, reaches, err)
		}
	}
	public := at("/public", "public, max-age=600")
	asks("the first", public, 200, "MISS", 1, bearer("ada", time.Hour)...)
	// It may still be on its way into the cache when the client has it.
	f.await("an answer that is kept", func() error {
		r, _, err := send(client, "GET", public, nil, bearer("ada", time.Hour)...)
		if err == nil && r.Header.Get("X-Cache") != "HIT" {
			err = fmt.Errorf("%v", r)
		}
		return err
	})
	asks("the same user", public, 200, "HIT", 0, bearer("ada", time.Hour)...)
	asks("another user", public, 200, "HIT", 0, bearer("bob", time.Hour)...)
	// A cache says MISS of all that it did not give.
	asks("nobody", public, 401, "MISS", 0)
	asks("a token that has ended", public, 401, "MISS", 0, bearer("ada", -time.Hour)...)
	own := at("/own", "max-age=600")
	asks("an answer for one user", own, 200, "MISS", 1, bearer("ada", time.Hour)...)
	asks("an answer for one user again", own, 200, "MISS", 1, bearer("ada", time.Hour)...)
	asks("an answer for another user", own, 200, "MISS", 1, bearer("bob", time.Hour)...)
}

// TestCacheOfAWorkload keeps answers at the proxy of the workload that gives them, for all its clients.
func TestCacheOfAWorkload(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	o := &origin{}
	f.serve(f.at(34, 8080), o)
	f.startProxy("east", 2, "pages", sidecarDocument("default", "pages", f.host(34), inboundOf("pages", "http", f.host(34), 8080, "")), f.serviceToken("pages"))
	f.startProxy("east", 2, "client", sidecarDocument("default", "client", f.host(40), inboundOf("client", "http", f.host(40), 8080, "")+
		fmt.Sprintf("  outbound:\n    - {port: 7001, address: %s, tags: {kuma.io/service: pages}}\n", f.host(40))), f.serviceToken("client"))
	f.settled("east", 5)
	f.apply(gatewayRoute("pages", "", "      - backends: [{destination: {kuma.io/service: pages}}]\n"),
		"type: FilterPolicy\nmesh: default\nname: kept\nselectors: [{match: {kuma.io/service: pages}}]\nconf: {filters: [{cache: {}}]}\n")
	edge, sidecar := "http://"+f.at(10, 8080), "http://"+f.at(40, 7001)
	at := func(from, path, control string) string {
		return from + path + "?" + url.Values{"h": {"Cache-Control:" + control}}.Encode()
	}
	get := func(address, host string) (string, string) {
		t.Helper()
		r, body, err := send(client, "GET", address, nil, "Host", host)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v %v", address, r, err)
		}
		return r.Header.Get("X-Cache"), string(body)
	}
	f.await("the cache", func() error {
		for _, from := range []string{edge, sidecar} {
			r, _, err := send(client, "GET", at(from, "/first", "no-store"), nil)
			if err != nil || r.StatusCode != http.StatusOK || r.Header.Get("X-Cache") != "MISS" {
				return fmt.Errorf("%v: %w", r, err)
			}
		}
		return nil
	})
	if status, _ := get(at(edge, "/page", "max-age=600"), "pages.example.com"); status != "MISS" {
		t.Errorf("the first request: %s", status)
	}
	first := ""
	f.await("an answer that is kept", func() (err error) {
		var status string
		if status, first = get(at(edge, "/page", "max-age=600"), "pages.example.com"); status != "HIT" {
			err = errors.New(status)
		}
		return err
	})
	before, _, _ := o.seen()
	for _, from := range []string{edge, sidecar, edge} {
		if status, body := get(at(from, "/page", "max-age=600"), "pages.example.com"); status != "HIT" || body != first {
			t.Errorf("from %s: %s, %q after %q", from, status, body, first)
		}
	}
	if after, _, _ := o.seen(); after != before {
		t.Errorf("%d requests reached the workload for what is kept", after-before)
	}
	if status, body := get(at(sidecar, "/page", "max-age=600"), "other.example.com"); status != "MISS" || body == first {
		t.Errorf("another host: %s %q", status, body)
	}
}
