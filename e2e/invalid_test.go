package e2e

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

// TestInvalidPolicies applies what can't be: refused as a whole with place and mend where that can be known, else told as the status of
// that one policy. What is in force stays, and what came with it takes part where only the zone could know.
func TestInvalidPolicies(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	rule := func(path, more string) string {
		return "      - matches: [{path: {match: PREFIX, value: " + path + "}}]\n" + more
	}
	kept := gatewayRoute("kept", "", rule("/kept", toV1))
	one, oneKey := certificate(t, 1, "api.example.com")
	two, twoKey := certificate(t, 2, "api.example.com")
	f.apply(kept, secretDocument("one", one, oneKey), secretDocument("two", two, twoKey))
	f.answers(client, http.StatusOK, "GET", url("/kept"))

	https := func(options string) string {
		return "{port: 8443, protocol: HTTPS, tls: {mode: TERMINATE, certificates: [" + options + "]}}"
	}
	// Each document comes with one that is good, which must not be taken.
	beside := gatewayRoute("beside", "", rule("/beside", toV1))
	for name, c := range map[string]struct {
		document string
		words    []string
	}{
		"a regex that does not compile": {gatewayRoute("bad", "", "      - matches: [{path: {match: REGEX, value: '/a('}}]\n"+toV1),
			[]string{"conf.http.rules[0].matches[0].path.value: bad regular expression", "write it in RE2's syntax"}},
		"a regex of a header": {gatewayRoute("bad", "", "      - matches: [{headers: [{name: x-a, match: REGEX, value: '[z-a]'}]}]\n"+toV1),
			[]string{"conf.http.rules[0].matches[0].headers[0].value: bad regular expression", "write it in RE2's syntax"}},
		"weights that sum to zero": {gatewayRoute("bad", "", rule("/bad", "        backends: [{weight: 0, destination: {kuma.io/service: echo}}]\n")),
			[]string{"conf.http.rules[0].backends: the weights are all 0"}},
		"listeners of two protocols on one port": {edgeWith("{port: 8080, protocol: HTTP}", "{port: 8080, protocol: TCP}"),
			[]string{"conf.listeners[1].protocol: port 8080 is that of listener 0 already, whose protocol differs", "give it another port"}},
		"listeners of one hostname on one port": {edgeWith("{port: 8080, protocol: HTTP, hostname: a.example.com}", "{port: 8080, protocol: HTTP, hostname: A.example.com}"),
			[]string{"conf.listeners[1]", "8080"}},
		"two certificates for one name": {edgeWith("{port: 8080, protocol: HTTP}", https("{secret: one}, {secret: two}")),
			[]string{"conf.listeners[1].tls.certificates[1].secret", "are both for api.example.com", "make one RSA and the other ECDSA"}},
		"a module with another checksum": {gatewayRoute("bad", "", rule("/bad", "        filters: [{wasm: {module: {inline: "+base64.StdEncoding.EncodeToString(tinyModule())+"}, sha256: "+strings.Repeat("ab", 32)+"}}]\n"+toV1)),
			[]string{"conf.http.rules[0].filters[0].wasm.sha256: the module has the SHA-256", "write what sha256sum prints"}},
		"one name twice": {kept + "\n---\n" + kept, []string{"MeshGatewayRoute default/kept is there already, at line 1", "remove one of them"}},
		"keys that are none": {gatewayRoute("bad", "", rule("/bad", "        filters: [{jwt: {providers: {p: {localJwks: {inlineString: '{}'}}}}}]\n"+toV1)),
			[]string{"conf.http.rules[0].filters[0].jwt.providers[p].localJwks", "the key set has no keys", "as the issuer's jwks_uri gives it"}},
		"two logins at one path": {gatewayRoute("bad", "", rule("/a", "        filters: [{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: c, clientSecret: {secret: one}}}]\n"+toV1)+
			rule("/b", "        filters: [{oidc: {authorizationEndpoint: https://a/b, tokenEndpoint: https://a/t, clientId: d, clientSecret: {secret: one}}}]\n"+toV1)),
			[]string{"conf.http.rules[1].filters[0].oidc.redirectPath: /oauth2/callback is that of another login, of rule 0", "of its own"}},
	} {
		t.Run(name, func(t *testing.T) {
			said := f.refusesToApply(c.words, c.document, beside)
			// The place is that in the file, too.
			if !strings.Contains(said, "refused.yaml:") && name != "two certificates for one name" {
				t.Errorf("it names no line: %s", said)
			}
			if out := f.cli("get", "meshgatewayroutes"); strings.Contains(out, "bad") || strings.Contains(out, "beside") {
				t.Errorf("it was taken: %s", out)
			}
		})
	}
	f.answers(client, http.StatusOK, "GET", url("/kept"))
	f.answers(client, http.StatusNotFound, "GET", url("/beside"))
	f.settled("east", 3)

	// What only the zone knows costs the policy itself, whose requests are closed, until it is mended.
	secret := "        filters: [{apiKey: {credentials: [{secret: nowhere}]}}]\n"
	f.refusesToApply([]string{"MeshGatewayRoute default/bad", "Secret default/nowhere is not there; apply it", "refused in east"}, gatewayRoute("bad", "", rule("/bad", secret+toV1)+rule("/fine", toV1)), beside)
	for path, status := range map[string]int{"/kept": 200, "/beside": 200, "/fine": 200, "/bad": 503} {
		f.answers(client, status, "GET", url(path))
	}
	f.says(f.cli("inspect", "zone", "east"), "MeshGatewayRoute", "default/bad", "Secret default/nowhere is not there")
	f.refusesToApply([]string{"MeshGateway default/edge", "Secret default/nowhere is not there or holds no certificate with its key; apply it", "refused in east"}, edgeWith("{port: 8080, protocol: HTTP}", https("{secret: nowhere}")))
	f.answers(client, http.StatusOK, "GET", url("/kept"))
	f.apply(edgeGateway, gatewayRoute("bad", "", rule("/bad", toV1)))
	f.answers(client, http.StatusOK, "GET", url("/bad"))
	f.settled("east", 3)
}
