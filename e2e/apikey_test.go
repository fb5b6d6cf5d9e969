package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// guarded is a rule of a route with one filter, written as its list item.
func guarded(path, filter string) string {
	return fmt.Sprintf("      - matches: [{path: {match: PREFIX, value: %s}}]\n        filters: [%s]\n%s", path, filter, toV1)
}

// envoyDump is what the admin interface of a proxy's Envoy shows of its configuration.
func envoyDump(f *federation, name string) string {
	f.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", f.path("run", name, "admin.sock"))
	}}}
	response, err := client.Get("http://envoy/config_dump?include_eds")
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		f.t.Fatalf("config dump: status %d, %v", response.StatusCode, err)
	}
	return string(text)
}

// showsNowhere looks for words wherever an operator or an attacker could read them.
func showsNowhere(f *federation, proxy, there string, words ...string) {
	f.t.Helper()
	places := map[string]string{
		"get": f.cli("get", "secrets", "-o", "yaml") + f.cli("get", "mesh-gateway-routes", "-o", "json"), "inspect": f.cli("inspect", "dataplane", proxy, "--zone", "east", "--config"),
		"Envoy's config dump": envoyDump(f, proxy), "history": f.cli("history"),
	}
	for _, name := range f.names() {
		places["log of "+name] = f.said(name)
	}
	for place, text := range places {
		for _, word := range words {
			if strings.Contains(text, word) {
				f.t.Errorf("%s shows %q", place, word)
			}
		}
	}
	for _, place := range []string{"inspect", "Envoy's config dump"} {
		if !strings.Contains(places[place], there) {
			f.t.Errorf("%s does not show %q, so it proves nothing", place, there)
		}
	}
}

// TestAPIKeys lets clients pass by their keys, renews keys under their clients, and shows keys to nobody.
func TestAPIKeys(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(secretDocument("partners", []byte("acme: acme-hush-1\nzeta: zeta-hush-1\n")), secretDocument("staff", []byte(`{"ops": "ops-hush-1"}`)),
		gatewayRoute("keys", "",
			guarded("/keys", "{type: API_KEY, apiKey: {credentials: [{secret: partners}, {secret: staff}], keySources: [{header: x-api-key}, {query: key}, {cookie: session}], allowedClients: [acme, ops], clientHeader: x-client}}")+
				guarded("/kept", "{apiKey: {secret: partners, keySources: [{header: authorization}], hideCredentials: false}}")+
				"      - matches: [{path: {match: PREFIX, value: /open}}]\n"+toV2))
	f.answers(client, http.StatusUnauthorized, "GET", url("/keys"))
	for _, c := range []struct {
		path   string
		header []string
		status int
		client string
	}{
		{"/open", nil, 200, ""},
		{"/keys", []string{"X-Api-Key", "acme-hush-1"}, 200, "acme"},
		{"/keys", []string{"X-Api-Key", "Bearer acme-hush-1"}, 200, "acme"},
		{"/keys", []string{"X-Api-Key", "acme-hush-1", "X-Client", "zeta"}, 200, "acme"},
		{"/keys?key=acme-hush-1&a=b", nil, 200, "acme"},
		{"/keys", []string{"Cookie", "a=b; session=acme-hush-1"}, 200, "acme"},
		{"/keys", []string{"X-Api-Key", "ops-hush-1"}, 200, "ops"},
		{"/keys", []string{"X-Api-Key", "zeta-hush-1"}, 403, ""},
		{"/keys", []string{"X-Api-Key", "acme-hush-"}, 401, ""},
		{"/keys", []string{"X-Api-Key", ""}, 401, ""},
		{"/keys", []string{"X-Api-Key", "ACME-HUSH-1"}, 401, ""},
		// The first place that holds a key decides.
		{"/keys?key=acme-hush-1", []string{"X-Api-Key", "unknown"}, 401, ""},
		{"/keys", []string{"Authorization", "Bearer acme-hush-1"}, 401, ""},
		{"/kept", []string{"Authorization", "Bearer zeta-hush-1"}, 200, ""},
	} {
		r, a, err := ask(client, "GET", url(c.path), c.header...)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != c.status || strings.Join(a.Header["X-Client"], ",") != c.client {
			t.Errorf("%s %v: %d for client %q, want %d for %q", c.path, c.header, r.StatusCode, a.Header["X-Client"], c.status, c.client)
		}
		if hides := strings.HasPrefix(c.path, "/keys"); c.status == 200 && hides == strings.Contains(fmt.Sprint(a.Query, a.Header), "hush") && c.path != "/open" {
			t.Errorf("%s %v: the backend sees %s %v", c.path, c.header, a.Query, a.Header)
		}
		if c.status == 200 && strings.Contains(c.path, "a=b") && a.Query != "a=b" {
			t.Errorf("%s: the backend sees the query %q", c.path, a.Query)
		}
		if c.status == 200 && len(c.header) > 0 && c.header[0] == "Cookie" && a.Header.Get("Cookie") != "a=b" {
			t.Errorf("%s: the backend sees the cookies %q", c.path, a.Header.Get("Cookie"))
		}
	}

	// A key is renewed by giving both for a while.
	f.apply(secretDocument("partners", []byte("acme: [acme-hush-1, acme-hush-2]\nzeta: zeta-hush-1\n")))
	f.answers(client, http.StatusOK, "GET", url("/keys"), "X-Api-Key", "acme-hush-2")
	if r, _, err := ask(client, "GET", url("/keys"), "X-Api-Key", "acme-hush-1"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("the old key, which is still there: %v %v", r, err)
	}
	f.apply(secretDocument("partners", []byte("acme: acme-hush-2\nzeta: zeta-hush-1\n")))
	f.answers(client, http.StatusUnauthorized, "GET", url("/keys"), "X-Api-Key", "acme-hush-1")
	if r, _, err := ask(client, "GET", url("/keys"), "X-Api-Key", "acme-hush-2"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("the new key: %v %v", r, err)
	}
	f.settled("east", 3)
	showsNowhere(f, "edge", "x-api-key", "hush")

	// What can't be used is refused at once, and what is in force stays.
	out := f.refusesToApply([]string{"Secret default/partners can't be used", "line 2: clients acme and zeta have the same key", "conf.http.rules[0].filters[0].apiKey.credentials[0].secret"},
		secretDocument("partners", []byte("acme: acme-hush-3\nzeta: acme-hush-3\n")))
	if strings.Contains(out, "hush") {
		t.Errorf("the refusal quotes a key: %s", out)
	}
	if r, _, err := ask(client, "GET", url("/keys"), "X-Api-Key", "acme-hush-2"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("after a refused change: %v %v", r, err)
	}
}

// TestMissingSecret holds that what a Secret that isn't there should guard is closed, that all else goes on, and that the status
// says so.
func TestMissingSecret(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(gatewayRoute("open", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV2))
	f.answers(client, http.StatusOK, "GET", url("/guarded"))

	// The rule must not fall to the wider one, which asks for nothing.
	f.refusesToApply([]string{"Secret default/partners is not there; apply it", "refused in east"},
		gatewayRoute("keys", "", guarded("/guarded", "{apiKey: {secret: partners}}")+"      - matches: [{path: {match: PREFIX, value: /beside}}]\n"+toV1))
	f.answers(client, http.StatusServiceUnavailable, "GET", url("/guarded"))
	for path, workload := range map[string]string{"/open": "v2", "/beside": "v1"} {
		if r, a, err := ask(client, "GET", url(path)); err != nil || r.StatusCode != http.StatusOK || a.Workload != workload {
			t.Errorf("%s: %v from %q, %v", path, r, a.Workload, err)
		}
	}
	f.says(f.cli("inspect", "zone", "east"), "Secret default/partners is not there")
	f.apply(secretDocument("partners", []byte("acme: k1\n")))
	f.answers(client, http.StatusUnauthorized, "GET", url("/guarded"))
	f.answers(client, http.StatusOK, "GET", url("/guarded"), "X-Api-Key", "k1")
	f.settled("east", 3)

	// What a policy covers is closed as a whole.
	f.refusesToApply([]string{"Secret default/staff is not there"},
		"type: FilterPolicy\nmesh: default\nname: staff\nselectors: [{match: {kuma.io/service: edge}}]\nroutes: [open]\nconf: {filters: [{basicAuth: {secret: staff}}]}\n")
	f.answers(client, http.StatusServiceUnavailable, "GET", url("/open"))
	if r, _, err := ask(client, "GET", url("/guarded"), "X-Api-Key", "k1"); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("a route beside the policy: %v %v", r, err)
	}
	f.apply(secretDocument("staff", []byte("ann:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")))
	f.answers(client, http.StatusUnauthorized, "GET", url("/open"))
	f.settled("east", 3)
	f.cli("delete", "secret", "staff")
	f.answers(client, http.StatusServiceUnavailable, "GET", url("/open"))
	f.cli("delete", "filter-policies", "staff")
	f.answers(client, http.StatusOK, "GET", url("/open"))
}
