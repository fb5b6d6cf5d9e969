package e2e

import (
	"encoding/base64"
	"net/http"
	"testing"
	"time"
)

// TestRateLimitByClaim tells clients apart by a claim of the token that a filter before has accepted.
func TestRateLimitByClaim(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	keys := newIssuer(t)
	f.apply(gatewayRoute("claims", "", limitRule("/", "{type: JWT, jwt: {providers: {shop: {issuer: shop, localJwks: {inline: '"+base64.StdEncoding.EncodeToString(keys.jwks())+"'}}}}}, "+
		"{rateLimit: {requests: 2, interval: 24h, keys: [{claim: sub}]}}")))
	url := "http://" + f.at(10, 8080) + "/"
	token := func(c claims) []string {
		return []string{"Authorization", "Bearer " + keys.sign(c.with(claims{"iss": "shop", "exp": time.Now().Add(time.Hour).Unix()}))}
	}
	f.answers(client, http.StatusUnauthorized, "GET", url)
	for _, user := range []string{"ada", "bob"} {
		wantStatuses(t, user, statuses(t, client, 3, url, token(claims{"sub": user})...), 200, 200, 429)
	}
	// Another token of the same user is no other client, and those without the claim are one.
	wantStatuses(t, "another token", statuses(t, client, 1, url, token(claims{"sub": "ada", "more": "said"})...), 429)
	wantStatuses(t, "no such claim", append(statuses(t, client, 2, url, token(claims{"more": "a"})...), statuses(t, client, 1, url, token(claims{"more": "b"})...)...), 200, 200, 429)
	wantStatuses(t, "no token", statuses(t, client, 1, url), 401)
}
