package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFilterLayers attaches filters to a listener, to policies and to a rule, and looks at which decides.
func TestFilterLayers(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	header := func(name, value string) string {
		return fmt.Sprintf("{requestHeader: {set: [{name: %s, value: %s}]}}", name, value)
	}
	f.apply(strings.TrimSuffix(edgeGateway, "    - {port: 8080, protocol: HTTP}\n")+
		"    - port: 8080\n      protocol: HTTP\n      cors: {allowOrigins: [{exact: 'https://listener.example.com'}]}\n"+
		"      filters:\n        - {type: REQUEST_HEADER, requestHeader: {set: [{name: x-who, value: listener}, {name: x-listener, value: 'yes'}]}}\n"+
		"        - type: HTTP\n          http:\n            rules:\n              - match: {prefix: /a/inner}\n                filters: ["+header("x-inner", "'yes'")+"]\n"+
		"              - matches: [{path: {match: REGEX, value: '/a/x[0-9]'}, method: POST}, {path: {match: EXACT, value: /b/exact}}]\n                filters: ["+header("x-part", "'yes'")+"]\n",
		gatewayRoute("a", "", "      - matches: [{path: {match: PREFIX, value: /a}}]\n        filters: ["+header("x-who", "rule")+"]\n"+toV1),
		gatewayRoute("b", "", "      - matches: [{path: {match: PREFIX, value: /b}}]\n        cors: {allowOrigins: [{exact: 'https://rule.example.com'}]}\n"+toV2),
		"type: FilterPolicy\nmesh: default\nname: far\nselectors: [{match: {kuma.io/service: edge}}]\nconf: {filters: ["+header("x-who", "far")+", "+header("x-far", "'yes'")+"]}\n",
		"type: FilterPolicy\nmesh: default\nname: near\nselectors: [{match: {kuma.io/service: edge}}]\nroutes: [b]\nconf: {filters: ["+header("x-who", "near")+"]}\n",
		"type: FilterPolicy\nmesh: default\nname: workload\nselectors: [{match: {kuma.io/service: echo, version: v2}}]\nconf: {filters: ["+header("x-workload", "'yes'")+"]}\n")
	f.answers(client, http.StatusOK, "GET", url("/b"))
	for _, c := range []struct {
		method, path, who, set string
	}{
		{"GET", "/a", "rule", "x-listener x-far"},
		{"GET", "/a/inner/more?q", "rule", "x-listener x-far x-inner"},
		{"GET", "/a/innermost", "rule", "x-listener x-far"},
		{"POST", "/a/x1?q=1", "rule", "x-listener x-far x-part"},
		{"GET", "/a/x1", "rule", "x-listener x-far"},
		{"GET", "/b", "near", "x-listener x-far x-workload"},
		{"GET", "/b/exact", "near", "x-listener x-far x-workload x-part"},
		{"GET", "/b/exact/more", "near", "x-listener x-far x-workload"},
	} {
		_, a, err := ask(client, c.method, url(c.path))
		if err != nil {
			t.Fatal(err)
		}
		var set []string
		for _, name := range []string{"x-listener", "x-far", "x-workload", "x-inner", "x-part"} {
			if a.Header.Get(name) == "yes" {
				set = append(set, name)
			}
		}
		if got := strings.Join(set, " "); a.Header.Get("X-Who") != c.who || got != c.set {
			t.Errorf("%s %s: x-who %q and %s, want %q and %s", c.method, c.path, a.Header.Get("X-Who"), got, c.who, c.set)
		}
	}
	for path, allowed := range map[string]string{"/a": "https://listener.example.com", "/b": "https://rule.example.com"} {
		for _, origin := range []string{"https://listener.example.com", "https://rule.example.com"} {
			r, _, err := ask(client, "OPTIONS", url(path), "Origin", origin, "Access-Control-Request-Method", "PUT")
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Header.Get("Access-Control-Allow-Origin"); (got == origin) != (origin == allowed) {
				t.Errorf("%s from %s: allowed %q", path, origin, got)
			}
		}
	}
	if out := f.cli("inspect", "dataplane", "edge", "--zone", "east"); !strings.Contains(out, "FilterPolicy default/near") && !strings.Contains(out, "near") {
		t.Errorf("inspect does not name the policies:\n%s", out)
	}
}

// TestExternalService reaches a server outside the mesh from a gateway: in plaintext, and by TLS with roots of its own and with
// the client's certificate; only where a TrafficPermission allows it.
func TestExternalService(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	ca := newAuthority(t)
	serve := func(host string, config *tls.Config) {
		l, err := net.Listen("tcp", f.host(60)+host)
		if err != nil {
			t.Fatal(err)
		}
		s := &httptest.Server{Listener: l, TLS: config, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who := ""
			if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
				who = r.TLS.PeerCertificates[0].Subject.CommonName
			}
			w.Header().Set("X-Workload", "outside")
			fmt.Fprintf(w, `{"workload": "outside", "header": {"X-Peer": [%q], "X-Host": [%q]}}`, who, r.Host)
		})}}
		if config != nil {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
	}
	serve(":80", nil)
	serve(":443", &tls.Config{Certificates: []tls.Certificate{ca.pair(t, "outside.example.com")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()})
	cert, key := ca.pem(t, "caller.example.com")
	external := func(name, port, tls string) string {
		return fmt.Sprintf("type: ExternalService\nmesh: default\nname: %s\ntags: {kuma.io/service: %s, kuma.io/protocol: http}\nnetworking: {address: '%s:%s'%s}\n", name, name, f.host(60), port, tls)
	}
	f.apply(secretDocument("roots", ca.roots), secretDocument("caller", cert), secretDocument("caller-key", key),
		external("plain", "80", ""),
		external("secure", "443", ", tls: {enabled: true, serverName: outside.example.com, caCert: {secret: roots}, clientCert: {secret: caller}, clientKey: {secret: caller-key}}"),
		external("wrong", "443", ", tls: {enabled: true, serverName: other.example.com, caCert: {secret: roots}, clientCert: {secret: caller}, clientKey: {secret: caller-key}}"),
		gatewayRoute("out", "", "      - matches: [{path: {match: PREFIX, value: /plain}}]\n        backends: [{destination: {kuma.io/service: plain}}]\n"+
			"      - matches: [{path: {match: PREFIX, value: /secure}}]\n        backends: [{destination: {kuma.io/service: secure}}]\n"+
			"      - matches: [{path: {match: PREFIX, value: /wrong}}]\n        backends: [{destination: {kuma.io/service: wrong}}]\n"))
	f.answers(client, http.StatusOK, "GET", url("/plain"))
	if r, a, err := ask(client, "GET", url("/secure")); err != nil || r.StatusCode != http.StatusOK || a.Workload != "outside" || a.Header.Get("X-Peer") != "caller.example.com" {
		t.Errorf("by TLS: %+v %+v %v", r, a, err)
	}
	if r, _, err := ask(client, "GET", url("/wrong")); err != nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a server of another name was taken: %v %v", r, err)
	}

	f.apply(permit("default", "closed", "edge", "plain", "DENY"))
	f.answers(client, http.StatusServiceUnavailable, "GET", url("/plain"))
	if out := f.cli("inspect", "dataplane", "edge", "--zone", "east"); !strings.Contains(out, "no TrafficPermission allows edge to reach ExternalService default/plain") {
		t.Errorf("inspect does not say why:\n%s", out)
	}
	f.cli("delete", "tp", "closed")
	f.answers(client, http.StatusOK, "GET", url("/plain"))
}
