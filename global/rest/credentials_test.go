package rest

import (
	"strings"
	"testing"
)

func policyJSON(filter string) string {
	return `{"type":"FilterPolicy","mesh":"default","name":"guard","selectors":[{"match":{"kuma.io/service":"edge"}}],"conf":{"filters":[` + filter + `]}}`
}

// TestCredentialsAreChecked holds that a Secret that a filter can't use is refused with the place, whichever of both comes later,
// and that no credential is quoted.
func TestCredentialsAreChecked(t *testing.T) {
	const keys, users = `{"apiKey":{"credentials":[{"secret":"good"},{"secret":"guard"}]}}`, `{"http":{"rules":[{"filters":[{"basicAuth":{"secret":"guard"}}]}]}}`
	for _, c := range []struct{ name, filter, bad, path, message string }{
		{"keys", keys, "acme: [hush, hush]\n", "conf.filters[0].apiKey.credentials[1].secret", "Secret default/guard can't be used: line 1: client acme has this key already"},
		{"users", users, "ann:$apr1$hush", "conf.filters[0].http.rules[0].filters[0].basicAuth.secret", "the password of user ann is hashed by MD5 (apr1), which Envoy doesn't know: make it with `htpasswd -s`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := client{t, New(Config{Store: newStore(t), Authenticator: byName{}})}
			f.want(f.do("admin", "POST", "/v1/changes", js, changeJSON(`{"type":"Mesh","name":"default"}`)), 200)
			good := secretJSON("good", []byte("zeta: k1\n"))
			refused := func(resources ...string) {
				t.Helper()
				w := f.do("admin", "POST", "/v1/changes", js, changeJSON(resources...))
				f.want(w, 422, `"path":"`+c.path+`"`, c.message, "FilterPolicy default/guard")
				if strings.Contains(w.Body.String(), "hush") {
					t.Errorf("it quotes a credential: %s", w.Body)
				}
			}
			refused(good, policyJSON(c.filter), secretJSON("guard", []byte(c.bad)))
			w := f.do("admin", "POST", "/v1/changes", js, changeJSON(good, policyJSON(c.filter)))
			f.want(w, 200)
			if n := notes(t, w.Body.String()); !strings.Contains(n, "FilterPolicy default/guard: "+c.path+": Secret default/guard does not exist") {
				t.Errorf("notes: %s", n)
			}
			refused(secretJSON("guard", []byte(c.bad)))
		})
	}
}
