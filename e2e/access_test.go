package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestAccessTogether puts all that decides who may pass on one route: each must let a request pass, in the order that is promised,
// and later ones see what earlier ones found out. A workload guards itself by the same filters in its sidecar.
func TestAccessTogether(t *testing.T) {
	f := startEdge(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	j, _ := startJudges(f)
	inside, outside := clientAt(t, f.host(80)), clientAt(t, f.host(90))
	f.apply(secretDocument("staff", []byte(htpasswd("ann", "pw"))), secretDocument("partners", []byte("acme: k1\nzeta: k2\n")),
		gatewayRoute("all", "",
			guarded("/all", fmt.Sprintf("{extAuth: {http: {target: {url: 'http://%s'}, requestHeaders: [x-token, x-secret], backendHeaders: [x-subject]}, timeout: 10s}}, {apiKey: {secret: partners, allowedClients: [acme], clientHeader: x-secret}}, "+
				"{basicAuth: {secret: staff, usernameHeader: x-user}}, {clientAddress: {allow: [%s]}}", f.at(40, 9000), f.host(80)))+
				"      - matches: [{path: {match: PREFIX, value: /v2}}]\n"+toV2))
	user, key, token := basic("ann", "pw"), []string{"X-Api-Key", "k1"}, []string{"X-Token", "good"}
	f.answers(inside, http.StatusOK, "GET", url("/all"), slices.Concat(user, key, token)...)
	for _, c := range []struct {
		name   string
		client *http.Client
		header []string
		status int
		asked  int64
	}{
		{"all", inside, slices.Concat(user, key, token), 200, 1},
		{"another address", outside, slices.Concat(user, key, token), 403, 0},
		{"no password", inside, slices.Concat(key, token), 401, 0},
		{"no key", inside, slices.Concat(user, token), 401, 0},
		{"the key of another", inside, slices.Concat(user, []string{"X-Api-Key", "k2"}, token), 403, 0},
		{"no token", inside, slices.Concat(user, key), 402, 1},
	} {
		before := j.asked.Load()
		r, a, err := ask(c.client, "GET", url("/all"), c.header...)
		if err != nil {
			t.Fatal(err)
		}
		if asked := j.asked.Load() - before; r.StatusCode != c.status || asked != c.asked {
			t.Errorf("%s: %d, and the service was asked %d times; want %d and %d", c.name, r.StatusCode, asked, c.status, c.asked)
		}
		if c.status == 200 && (a.Header.Get("X-User") != "ann" || a.Header.Get("X-Subject") != "ann" || a.Header.Get("Authorization")+a.Header.Get("X-Api-Key") != "" ||
			!strings.Contains(j.told.Load().(string), "secret=acme")) {
			t.Errorf("the backend sees %v, the service saw %q", a.Header, j.told.Load())
		}
	}

	// A proxy in front that is trusted tells the address of its client; the rest of what the client claims counts for nothing.
	f.apply(strings.Replace(edgeGateway, "protocol: HTTP}", "protocol: HTTP, trustedHops: 1}", 1))
	everything := slices.Concat(user, key, token)
	f.answers(outside, http.StatusOK, "GET", url("/all"), append(slices.Clone(everything), "X-Forwarded-For", f.host(80))...)
	for claimed, status := range map[string]int{f.host(80) + ", " + f.host(91): 403, f.host(91) + ", " + f.host(80): 200} {
		if r, _, err := ask(outside, "GET", url("/all"), append(slices.Clone(everything), "X-Forwarded-For", claimed)...); err != nil || r.StatusCode != status {
			t.Errorf("behind a trusted proxy that tells %s: %v %v, want %d", claimed, r, err, status)
		}
	}

	f.apply("type: FilterPolicy\nmesh: default\nname: workload\nselectors: [{match: {kuma.io/service: echo, version: v2}}]\nconf: {filters: [{apiKey: {secret: partners, clientHeader: x-client}}]}\n")
	f.answers(inside, http.StatusUnauthorized, "GET", url("/v2"))
	if r, a, err := ask(inside, "GET", url("/v2"), "X-Api-Key", "k2"); err != nil || r.StatusCode != 200 || a.Workload != "v2" || a.Header.Get("X-Client") != "zeta" {
		t.Errorf("a workload that guards itself: %v %v %v", r, a, err)
	}
	if r, _, err := ask(inside, "GET", url("/all"), everything...); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("another workload, by the address of the connection as nobody tells another: %v %v", r, err)
	}
	showsNowhere(f, "echo-v2", "x-client", "k2\"", "{SHA}")
}
