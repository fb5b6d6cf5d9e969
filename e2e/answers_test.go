package e2e

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestGatewayAnswers has a real gateway rewrite, redirect, copy and answer by itself.
func TestGatewayAnswers(t *testing.T) {
	f := startEdge(t)
	var copies atomic.Int64
	copied := make(chan string, 64)
	f.workload(f.host(33)+":8080", "shadow", map[string]http.HandlerFunc{"/mirrored": func(_ http.ResponseWriter, r *http.Request) {
		copies.Add(1)
		copied <- r.Host
	}})
	shadow := f.token("shadow", "dataplane", "--mesh", "default", "--service", "shadow")
	f.startProxy("east", 2, "shadow", sidecarDocument("default", "shadow", f.host(33), inboundOf("shadow", "http", f.host(33), 8080, "")), shadow)
	f.settled("east", 4)
	rule := func(match, path, filter, backend string) string {
		return fmt.Sprintf("      - matches: [{path: {match: %s, value: %s}}]\n        filters: [{%s}]\n%s", match, path, filter, backend)
	}
	f.apply(gatewayRoute("answers", "",
		rule("PREFIX", "/old/api", "rewrite: {replacePrefixMatch: /v1}", toV1)+
			rule("PREFIX", "/gone", "rewrite: {replacePrefixMatch: /}", toV1)+
			rule("REGEX", "'/item/[0-9]+'", "rewrite: {replaceFull: /items, hostname: items.example.com}", toV1)+
			rule("PREFIX", "/moved", "redirect: {scheme: https, hostname: new.example.com, statusCode: 308, path: {replacePrefixMatch: /here}}", "")+
			rule("EXACT", "/secure", "redirect: {scheme: https, port: 8443}", "")+
			rule("EXACT", "/elsewhere", "redirect: {replaceFull: /there}", "")+
			rule("PREFIX", "/mirrored", "mirror: {backend: {destination: {kuma.io/service: shadow}}, percentage: 100}", toV1)+
			rule("EXACT", "/teapot", "directResponse: {status: 418, body: short and stout}", "")))
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.answers(client, http.StatusTeapot, "GET", url("/teapot"))

	for path, want := range map[string]string{
		"/old/api": "/v1", "/old/api/": "/v1/", "/old/api/a/b?q=1": "/v1/a/b?q=1", "/gone": "/", "/gone/a": "/a", "/item/7?x=y": "/items?x=y",
	} {
		_, a, err := ask(client, "GET", url(path))
		if err != nil {
			t.Fatal(err)
		}
		got := a.Path
		if a.Query != "" {
			got += "?" + a.Query
		}
		if got != want {
			t.Errorf("%s reached the workload as %s, want %s", path, got, want)
		}
		if path == "/item/7?x=y" && a.Host != "items.example.com" {
			t.Errorf("host %q, want items.example.com", a.Host)
		}
	}
	for path, want := range map[string]string{
		"/moved":           "308 https://new.example.com/here",
		"/moved/a/b?q=1":   "308 https://new.example.com/here/a/b?q=1",
		"/secure?q=1":      "302 https://" + f.host(10) + ":8443/secure?q=1",
		"/elsewhere?q=all": "302 " + url("/there?q=all"),
	} {
		r, _, err := ask(client, "GET", url(path))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.StatusCode, " ", r.Header.Get("Location")); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	for range 10 {
		if _, a, err := ask(client, "GET", url("/mirrored")); err != nil || a.Workload != "v1" {
			t.Fatalf("a copied request was answered by %q: %v", a.Workload, err)
		}
	}
	for n := range 10 {
		select {
		case <-copied:
		case <-time.After(awaitTime):
			t.Fatalf("%d copies of 10 requests", n)
		}
	}
	if n := copies.Load(); n != 10 {
		t.Errorf("%d copies of 10 requests", n)
	}
	resp, err := client.Get(url("/teapot"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body := string(must(io.ReadAll(resp.Body))(t)); resp.StatusCode != http.StatusTeapot || body != "short and stout" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}
