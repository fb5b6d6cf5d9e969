package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/resource"
)

// canaries are secrets by what they are, in the form in which they would be useful.
type canaries map[string]string

// foundIn gives the names of those that a text holds, as they are or encoded as a whole, at any place of a longer base64 text.
func (c canaries) foundIn(text string) (found []string) {
	text = strings.NewReplacer(`\n`, "", "\n", "", `\u003d`, "=").Replace(text)
	for name, secret := range c {
		forms := []string{secret, hex.EncodeToString([]byte(secret))}
		for shift := range 3 {
			// The ends depend on what stands beside it.
			b := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat(" ", shift) + secret))
			forms = append(forms, b[4:len(b)-4], strings.NewReplacer("+", "-", "/", "_").Replace(b[4:len(b)-4]))
		}
		for _, form := range forms {
			if strings.Contains(text, form) {
				found = append(found, name)
				break
			}
		}
	}
	return found
}

// innerLine is a line in the middle of PEM.
func innerLine(pem []byte) string { return strings.Split(string(pem), "\n")[1] }

// TestSecretsAreShownNowhere plants secrets of every use, in service at a real Envoy, and looks for them in all that can be read
// back: every resource and change by REST and by the command line, diffs, refusals, metrics, states of zones, logs, command lines, Envoy's
// dumps, and the files of all processes.
func TestSecretsAreShownNowhere(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	ca := newAuthority(t)
	chain, key := ca.pem(t, "shop.example.com")
	caller, callerKey := ca.pem(t, "caller.example.com")
	_, password, _ := strings.Cut(strings.TrimSpace(htpasswd("ann", "canary of a password")), "{SHA}")
	planted := canaries{
		"an API key": "canary-of-an-api-key-1", "its successor": "canary-of-an-api-key-2", "the hash of a password": password, "a password": "canary of a password",
		"a shared key of tokens": "Y2FuYXJ5LW9mLWEtc2hhcmVkLWtleS1vZi10b2tlbnM", "a client's secret": "canary-of-a-client-secret",
		"a secret of cookies": "canary-of-a-cookie-secret-that-is-long", "the key of a listener": innerLine(key), "the key of a caller": innerLine(callerKey),
		"what nothing uses": "canary-of-what-nothing-uses",
	}
	keys := func(key string) string { return secretDocument("partners", []byte("acme: "+key+"\n")) }
	login := "authorizationEndpoint: https://login.example.com/a, tokenEndpoint: https://login.example.com/t, clientId: shop, clientSecret: {secret: shop-client}, cookieSecret: {secret: shop-cookies}"
	f.apply(keys("canary-of-an-api-key-1"), secretDocument("staff", []byte(htpasswd("ann", "canary of a password"))),
		secretDocument("jwks", []byte(`{"keys":[{"kty":"oct","alg":"HS256","k":"`+planted["a shared key of tokens"]+`"}]}`)),
		secretDocument("shop-client", []byte("canary-of-a-client-secret")), secretDocument("shop-cookies", []byte("canary-of-a-cookie-secret-that-is-long")),
		secretDocument("tls", chain, key), secretDocument("caller", caller), secretDocument("caller-key", callerKey), secretDocument("roots", ca.roots),
		secretDocument("unused", []byte("canary-of-what-nothing-uses")),
		edgeGateway+"    - {port: 8443, protocol: HTTPS, hostname: shop.example.com, tls: {mode: TERMINATE, certificates: [{secret: tls}]}}\n",
		fmt.Sprintf("type: ExternalService\nmesh: default\nname: out\ntags: {kuma.io/service: out, kuma.io/protocol: http}\nnetworking: {address: '%s:443', tls: {enabled: true, serverName: out.example.com, "+
			"caCert: {secret: roots}, clientCert: {secret: caller}, clientKey: {secret: caller-key}}}\n", f.host(60)),
		gatewayRoute("guarded", "", guarded("/keys", "{apiKey: {secret: partners, keySources: [{header: x-api-key}], clientHeader: x-canary-client}}")+
			guarded("/staff", "{basicAuth: {secret: staff}}")+
			guarded("/tokens", "{jwt: {providers: {own: {issuer: own, localJwks: {secret: jwks}}}}}")+
			guarded("/login", "{oidc: {"+login+"}}")+
			"      - matches: [{path: {match: PREFIX, value: /out}}]\n        backends: [{destination: {kuma.io/service: out}}]\n"))
	f.answers(client, http.StatusOK, "GET", url("/keys"), "X-Api-Key", "canary-of-an-api-key-1")
	next := f.write("next.yaml", keys("canary-of-an-api-key-2"))
	preview := f.cli("diff", "-f", next) + f.cli("apply", "--dry-run", "-f", next)
	f.cli("apply", "-f", next)
	f.answers(client, http.StatusOK, "GET", url("/keys"), "X-Api-Key", "canary-of-an-api-key-2")
	f.answers(client, http.StatusUnauthorized, "GET", url("/tokens"))
	f.settled("east", 3)

	places := map[string]string{"a preview": preview, "Envoy's config dump": envoyDump(f, "edge"), "Envoy's statistics": f.admin("edge", "/stats") + f.admin("edge", "/clusters") + f.admin("edge", "/certs"),
		"inspect": f.cli("inspect", "dataplane", "edge", "--zone", "east", "--config"), "history": f.cli("history", "-o", "yaml")}
	read := func(path string) string {
		t.Helper()
		code, body, err := f.rest(http.MethodGet, path, nil)
		if err != nil || code != http.StatusOK {
			t.Fatalf("GET %s: %d %s %v", path, code, body, err)
		}
		places["GET "+path] = string(body)
		return string(body)
	}
	for _, kind := range resource.Kinds() {
		read("/v1/" + kind.Plural)
		places["get "+kind.Plural] = f.cli("get", kind.Plural, "-o", "yaml")
	}
	for _, path := range []string{"/metrics", "/v1/changes", "/v1/status/zones", "/v1/status/zones/east", "/v1/zones/east/dataplanes", "/v1/zones/east/dataplanes/default/edge?config=true", "/v1/meshes/default/secrets/partners"} {
		read(path)
	}
	var list struct{ Items []struct{ Change int64 } }
	if err := json.Unmarshal([]byte(places["GET /v1/changes"]), &list); err != nil || len(list.Items) < 3 {
		t.Fatalf("the history: %v %v", list, err)
	}
	for _, change := range list.Items {
		read(fmt.Sprintf("/v1/changes/%d", change.Change))
		places[fmt.Sprintf("show %d", change.Change)] = f.cli("show", fmt.Sprint(change.Change))
	}
	places["metrics of the zone"] = f.zoneMetrics("east", 2)

	// Refusals of what holds a secret, each wrong in another way.
	for i, document := range []string{
		"type: Secret\nmesh: default\nname: s\ndata: canary-of-what-nothing-uses\n",
		"type: Secret\nmesh: default\nname: s\ndata: *canary-of-what-nothing-uses\n",
		"type: Secret\nmesh: default\nname: s\ndata: [canary-of-what-nothing-uses]\n",
		"type: Secret\nmesh: default\nname: s\ndata: {x: canary-of-what-nothing-uses}\n",
		"type: Secret\nmesh: default\nname: s\nspec: canary-of-what-nothing-uses\n",
		"type: Secret\nmesh: default\nname: s\ndata: \"canary-of-what-nothing-uses\\.\"\n",
		"type: Secret\nmesh: nowhere\nname: s\ndata: Y2FuYXJ5LW9mLXdoYXQtbm90aGluZy11c2Vz\n",
		secretDocument("partners", []byte("acme: [canary-of-an-api-key-1, canary-of-an-api-key-1]\n")),
		secretDocument("partners", []byte("canary-of-an-api-key-1\n")), secretDocument("partners", []byte("acme: {canary-of-an-api-key-1: x}\n")),
		secretDocument("staff", []byte("ann:"+planted["the hash of a password"]+"\n")), secretDocument("tls", key), secretDocument("tls", chain, []byte(innerLine(key))),
		"type: Mesh\nname: default\nmtls: {enabledBackend: own, backends: [{name: own, type: provided, conf: {cert: {secret: unused}, key: {secret: caller-key}}}]}\n",
		gatewayRoute("inline", "", guarded("/inline", "{jwt: {providers: {own: {issuer: own, localJwks: {inlineString: '{\"keys\":[{\"kty\":\"oct\",\"k\":\""+planted["a shared key of tokens"]+"\"}]}'}}}}}")),
	} {
		_, err := f.try("apply", "-f", f.write("refused.yaml", document))
		if err == nil {
			t.Errorf("document %d was taken:\n%s", i, document)
			continue
		}
		places[fmt.Sprintf("refusal %d", i)] = err.Error()
		_, err = f.try("validate", "-f", f.path("refused.yaml"))
		places[fmt.Sprintf("validation %d", i)] = fmt.Sprint(err)
	}

	f.cli("backup", "--out", f.path("global", "saved"))
	for _, name := range f.names() {
		places["log of "+name] = f.said(name)
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", f.running[name].cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		places["command line of "+name] = string(line)
	}
	for place, text := range places {
		hidden := maps.Clone(planted)
		if place == "Envoy's config dump" {
			// Envoy's schema takes keys of tokens as public. Only the proxy's own user reads this dump; docs/security.md says so.
			delete(hidden, "a shared key of tokens")
		}
		if found := hidden.foundIn(text); len(found) > 0 {
			t.Errorf("%s shows %q", place, found)
		}
	}
	// What is not hidden is there, so that the above proves something.
	for place, word := range map[string]string{"Envoy's config dump": "x-canary-client", "inspect": "x-canary-client", "GET /v1/secrets": "shop-cookies", "get secrets": "[redacted]", "metrics of the zone": "zoneforge_", "GET /metrics": "zoneforge_"} {
		if !strings.Contains(places[place], word) {
			t.Errorf("%s does not show %q", place, word)
		}
	}

	// On disk they are sealed, but for the one file of a zone that docs/security.md names.
	for _, dir := range []string{"global", "east", "run"} {
		err := filepath.WalkDir(f.path(dir), func(path string, entry fs.DirEntry, err error) error {
			// Their owners run, so one that was there may be gone.
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !entry.Type().IsRegular() || path == f.path("east", "state.db") {
				return err
			}
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if found := planted.foundIn(string(text)); err == nil && len(found) > 0 {
				t.Errorf("%s holds %q", path, found)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// zoneMetrics are the metrics of the zone whose control plane has address n.
func (f *federation) zoneMetrics(zone string, n int) string {
	f.t.Helper()
	roots, err := os.ReadFile(f.path(zone, "tls", "server-ca.crt"))
	if err != nil {
		f.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	client := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	r, err := client.Get("https://" + f.at(n, 5683) + "/metrics")
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		f.t.Fatalf("metrics of %s: %d %v", zone, r.StatusCode, err)
	}
	return string(text)
}

// TestCanariesAreFound holds the search to what it must find.
func TestCanariesAreFound(t *testing.T) {
	planted := canaries{"it": "canary-of-a-secret"}
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + "canary-of-a-secret and more"))
		if len(planted.foundIn(`{"data": "`+text+`"}`)) != 1 {
			t.Errorf("it is not found in %s", text)
		}
	}
	for _, text := range []string{"a canary-of-a-secret", `canary-\nof-a-secret`, hex.EncodeToString([]byte("a canary-of-a-secret"))} {
		if len(planted.foundIn(text)) != 1 {
			t.Errorf("it is not found in %s", text)
		}
	}
	if len(planted.foundIn("canary-of-another")) != 0 {
		t.Error("it is found in another's")
	}
}
