package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// TestGateOfPermissiveMesh guards a workload that takes TLS and plaintext: what its filters refuse, they refuse on both ways, and
// where they can't be built both are closed.
func TestGateOfPermissiveMesh(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	f.apply(strings.Replace(strictMesh, "STRICT", "PERMISSIVE", 1), gatewayRoute("all", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1))
	ways := map[string]string{"by TLS": "http://" + f.at(10, 8080), "in plaintext": "http://" + f.at(31, 15006)}
	gate := func(secret string) string {
		return "type: FilterPolicy\nmesh: default\nname: gate\nselectors: [{match: {kuma.io/service: echo}}]\nconf:\n  filters:\n    - http: {rules: [{matches: [{path: {match: PREFIX, value: /guarded}}], filters: [{apiKey: {credentials: [{secret: " + secret + "}], keySources: [{header: x-key}]}}]}]}\n"
	}
	meets := func(status int, path string, header ...string) {
		t.Helper()
		for way, address := range ways {
			if f.answers(client, status, "GET", address+path, header...); t.Failed() {
				t.Logf("%s %s", way, path)
			}
		}
	}
	meets(http.StatusOK, "/guarded")
	f.refusesToApply([]string{"FilterPolicy default/gate", "Secret default/keys is not there; apply it"}, gate("keys"))
	meets(http.StatusServiceUnavailable, "/guarded", "X-Key", "open")
	f.apply(secretDocument("keys", []byte("ada: open\n")))
	meets(http.StatusUnauthorized, "/guarded")
	meets(http.StatusUnauthorized, "/guarded", "X-Key", "guess")
	meets(http.StatusOK, "/guarded", "X-Key", "open")
	meets(http.StatusOK, "/open")
	f.cli("delete", "filterpolicies", "gate", "--wait")
	meets(http.StatusOK, "/guarded")
}
