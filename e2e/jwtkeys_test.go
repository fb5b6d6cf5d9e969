package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestJWTKeysAway takes the server of an issuer's keys away: before a proxy ever had them, once it has, and for good, as a cluster
// that nobody is. Whoever needs no such key notices none of it.
func TestJWTKeysAway(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(gateway int, path string) string { return "http://" + f.at(gateway, 8080) + path }
	shop, local := newIssuer(t), newIssuer(t)
	rule := func(path, provider string) string {
		return fmt.Sprintf("      - matches: [{path: {match: PREFIX, value: %s}}]\n        filters: [{type: JWT, jwt: {providers: {%s}}}]\n%s", path, provider, toV1)
	}
	fetched := func(cluster string) string {
		return "shop: {issuer: shop, remoteJwks: {httpUri: {uri: 'http://issuer.example.com/keys', cluster: " + cluster + ", timeout: 1s}, cacheDuration: 1s, asyncFetch: {failedRefetchDuration: 200ms}, retry: {attempts: 0}}}"
	}
	external := fmt.Sprintf("type: ExternalService\nmesh: default\nname: issuer\ntags: {kuma.io/service: issuer, kuma.io/protocol: http}\nnetworking: {address: '%s:8081'}\n", f.host(60))
	f.apply(external, gatewayRoute("tokens", "", rule("/shop", fetched("issuer"))+rule("/local", "local: {issuer: local, localJwks: {inlineString: '"+string(local.jwks())+"'}}")+
		"      - matches: [{path: {match: PREFIX, value: /open}}]\n"+toV1))

	now := time.Now().Unix()
	of := func(i *issuer, name string) []string {
		return []string{"Authorization", "Bearer " + i.sign(claims{"iss": name, "exp": now + 3600})}
	}
	ask := func(gateway int, path string, status int, words string, header ...string) error {
		got, body, err := said(client, url(gateway, path), header...)
		if err == nil && (got != status || !strings.Contains(body, words)) {
			err = fmt.Errorf("%s: %d %q, want %d with %q", path, got, body, status, words)
		}
		return err
	}
	// others are requests that need no keys of the server.
	others := func(when string, gateway int) {
		t.Helper()
		for _, err := range []error{ask(gateway, "/open", 200, ""), ask(gateway, "/local", 200, "", of(local, "local")...), ask(gateway, "/local", 401, "Jwt is missing")} {
			if err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
	}
	answers := func(what string, gateway int, status int, words string, header ...string) {
		t.Helper()
		f.await(what, func() error { return ask(gateway, "/shop", status, words, header...) })
	}
	// failures waits for attempts to fetch keys that fail, more than there were.
	failures := func(proxy string, more int) {
		t.Helper()
		before := -1
		f.await("attempts to fetch keys", func() error {
			n, err := f.stat(proxy, "jwks_fetch_failed")
			if before < 0 {
				before = n
			}
			if err == nil && n < before+more {
				err = fmt.Errorf("%d failed, %d before", n, before)
			}
			return err
		})
	}

	const unfetched = "Jwks remote fetch is failed"
	f.answers(client, http.StatusOK, "GET", url(10, "/open"))
	answers("no keys at the start", 10, 401, unfetched, of(shop, "shop")...)
	others("without keys at the start", 10)
	f.settled("east", 3)

	server := serve(t, f.host(60)+":8081", shop, nil)
	answers("keys once the server is there", 10, 200, "", of(shop, "shop")...)
	others("with keys", 10)
	// What a worker fetched for a request ends after a second; what is fetched ahead, as these are, stays.
	before := shop.fetched("/keys")
	f.await("keys that are fetched ahead", func() error {
		if n := shop.fetched("/keys"); n < before+2 {
			return fmt.Errorf("%d fetches, %d before", n, before)
		}
		return nil
	})

	// The keys that are there stay, for longer than they would be kept if their server answered.
	server.Close()
	failures("edge", 8)
	if err := ask(10, "/shop", 200, "", of(shop, "shop")...); err != nil {
		t.Errorf("with keys from before their server went away: %v", err)
	}
	if err := ask(10, "/shop", 401, "Jwt verification fails", of(newIssuer(t), "shop")...); err != nil {
		t.Errorf("a stranger's token meanwhile: %v", err)
	}

	// A proxy that starts meanwhile serves what needs no keys, and lets nobody in that it can't verify.
	f.startProxy("east", 2, "edge-late", strings.Replace(gatewayDocument("default", "edge-late", f.host(11)), "kuma.io/service: edge-late}", "kuma.io/service: edge}", 1), f.path("tokens", "edge"))
	f.settled("east", 4)
	f.answers(client, http.StatusOK, "GET", url(11, "/open"))
	answers("a proxy that starts without keys", 11, 401, unfetched, of(shop, "shop")...)
	others("at a proxy that starts without keys", 11)

	// It comes back with another key: both take its tokens, and none of the old one.
	old := of(shop, "shop")
	shop.rotate("two")
	serve(t, f.host(60)+":8081", shop, nil)
	for _, gateway := range []int{10, 11} {
		answers("the new key", gateway, 200, "", of(shop, "shop")...)
		answers("the end of the key that is gone", gateway, 401, "Jwks doesn't have key", old...)
	}

	// A cluster that nobody is: said where policies are looked at, and closed to all until there is one.
	const nobody = `cluster "ghost" is no ExternalService, and no service of mesh default that says kuma.io/protocol: start or apply it`
	f.refusesToApply([]string{"MeshGatewayRoute default/ghost", nobody}, gatewayRoute("ghost", "", rule("/ghost", strings.Replace(fetched("ghost"), "issuer: shop", "issuer: ghost", 1))+
		"      - matches: [{path: {match: PREFIX, value: /beside}}]\n"+toV1))
	f.answers(client, http.StatusOK, "GET", url(10, "/beside"))
	if err := ask(10, "/ghost", 401, "Jwt is missing"); err != nil {
		t.Error(err)
	}
	if err := ask(10, "/ghost", 401, unfetched, of(shop, "ghost")...); err != nil {
		t.Error(err)
	}
	if err := ask(10, "/shop", 200, "", of(shop, "shop")...); err != nil {
		t.Errorf("beside a cluster that nobody is: %v", err)
	}
	others("beside a cluster that nobody is", 10)
	f.apply(strings.NewReplacer("name: issuer", "name: ghost", "kuma.io/service: issuer", "kuma.io/service: ghost").Replace(external))
	f.await("keys of the cluster that came", func() error { return ask(10, "/ghost", 200, "", of(shop, "ghost")...) })
	f.settled("east", 4)
}
