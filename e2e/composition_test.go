package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestComposition asks one endpoint for what two services say, in parallel and one after the other, through the gateway's own Envoy.
func TestComposition(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	get := func(path string, header ...string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.at(10, 8080)+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(body)
	}
	composed := func(more string) string {
		return `type: Composition
mesh: default
name: page
selectors: [{match: {kuma.io/service: edge}}]
conf:
  path: /pages/{id}
  timeout: 5s
  calls:
    - {name: first, destination: {kuma.io/service: echo, version: v1}, path: "/one/${path.id}"}
    - {name: second, destination: {kuma.io/service: echo, version: v2}, path: "/two?of=${calls.first.body.Workload}&q=${query.q}", headers: [{name: x-from, value: "${header.x-client}"}]}
` + more + `  response:
    body: '{"first": "${calls.first.body.Path}", "second": "${calls.second.body}", "third": "${calls.third.body}"}'
`
	}
	third := "    - {name: third, destination: {kuma.io/service: nobody}, path: /, timeout: 1s, onFailure: DEFAULT, default: '\"nothing\"'}\n"
	f.apply(composed(third), gatewayRoute("all", "", "      - matches: [{path: {match: PREFIX, value: /pages}}]\n"+toV1))
	f.await("the composition", func() error {
		if r, body := get("/pages/7"); r.Header.Get("X-Composition-Partial") != "third" {
			return refused{r.StatusCode, body}
		}
		return nil
	})
	r, body := get("/pages/a%20b?q=1%262", "X-Client", "me", "X-Zoneforge-Plan-0", "forged", "X-Zoneforge-Plan-9", "forged")
	var page struct {
		First, Third string
		Second       answer
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatalf("%d %s: %v", r.StatusCode, body, err)
	}
	if page.First != "/one/a b" || page.Third != "nothing" || page.Second.Workload != "v2" || page.Second.Query != "of=v1&q=1%262" ||
		page.Second.Header.Get("X-From") != "me" || page.Second.Header.Get("X-Zoneforge-Call") != "" || page.Second.Header.Get("X-Zoneforge-Plan-0") != "" {
		t.Errorf("page %+v", page)
	}
	// The calls go by mutual TLS as the gateway, so a permission holds for each.
	if xfcc := page.Second.Header.Get("X-Forwarded-Client-Cert"); !strings.Contains(xfcc, "/edge") {
		t.Errorf("the second call came as %q", xfcc)
	}
	// Other paths and methods stay with the routes.
	for _, path := range []string{"/pages", "/pages/7/x"} {
		if _, a, err := ask(client, "GET", "http://"+f.at(10, 8080)+path); err != nil || a.Workload != "v1" {
			t.Errorf("%s: %+v %v", path, a, err)
		}
	}
	if _, a, err := ask(client, "POST", "http://"+f.at(10, 8080)+"/pages/7"); err != nil || a.Workload != "v1" {
		t.Errorf("POST: %+v %v", a, err)
	}
	// The third one is needed now, and isn't there.
	f.apply(composed(strings.Replace(third, "onFailure: DEFAULT, default: '\"nothing\"'", "onFailure: FAIL", 1)))
	f.await("a failure", func() error {
		r, body := get("/pages/7")
		if r.StatusCode != http.StatusBadGateway || !strings.Contains(body, "call third failed") {
			return refused{r.StatusCode, body}
		}
		return nil
	})
	f.refusesToApply([]string{"conf.calls[1].path: there is no call \"fist\"", "conf.calls: calls wait for each other: first -> first"},
		strings.Replace(strings.Replace(composed(third), "calls.first.body.Workload", "calls.fist.body", 1), "/one/${path.id}", "/one/${calls.first.body}", 1))
}
