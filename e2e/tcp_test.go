package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

const bytesGateway = `type: MeshGateway
mesh: default
name: edge
selectors: [{match: {kuma.io/service: edge}}]
conf:
  listeners:
    - {port: 5432, protocol: TCP, tags: {port: db}}
    - {port: 8443, protocol: TLS, hostname: "*.pass.example.com", tls: {mode: PASSTHROUGH}}
    - {port: 8443, protocol: TLS, hostname: term.example.com, tags: {tls: terminated}, tls: {mode: TERMINATE, certificates: [{secret: term}]}}
    - {port: 8443, protocol: HTTPS, hostname: api.example.com, tls: {mode: TERMINATE, certificates: [{secret: api}]}}
`

// bytesRoute is a route of connections at the edge.
func bytesRoute(name, hostnames, backends string) string {
	return fmt.Sprintf("type: MeshGatewayRoute\nmesh: default\nname: %s\nselectors: [{match: {kuma.io/service: edge}}]\nconf:\n  tcp:\n    hostnames: [%s]\n    rules: [{backends: [%s]}]\n", name, hostnames, backends)
}

// TestTCPAndTLSListeners forwards bytes to services of another zone: by port, by server name with TLS of the backend's own, and
// with TLS of the gateway, beside HTTPS on the same port.
func TestTCPAndTLSListeners(t *testing.T) {
	termChain, termKey := certificate(t, 11, "term.example.com")
	apiChain, apiKey := certificate(t, 12, "api.example.com")
	ownChain, ownKey := certificate(t, 13, "a.pass.example.com")
	wideChain, wideKey := certificate(t, 14, "*.pass.example.com")
	toDB := func(backends string) string {
		return strings.Replace(bytesRoute("db", "", backends), "kuma.io/service: edge", "port: db", 1)
	}
	f := startAcross(t, bytesGateway, secretDocument("term", termChain, termKey), secretDocument("api", apiChain, apiKey),
		toDB("{weight: 0, destination: {kuma.io/service: db, version: v1}}, {weight: 1, destination: {kuma.io/service: db, version: v2}}"),
		bytesRoute("own", "a.pass.example.com", "{destination: {kuma.io/service: own}}"),
		bytesRoute("wide", `"*.pass.example.com"`, "{destination: {kuma.io/service: wide}}"),
		gatewayRoute("api", "api.example.com", "      - backends: [{destination: {kuma.io/service: echo}}]\n"))
	for i, version := range []string{"v1", "v2"} {
		f.startTalker(f.at(31+i, 8080), version)
		f.startInWest("db-"+version, "db", "tcp", 31+i, ", version: "+version)
	}
	f.startTLSTalker(f.at(33, 8080), "own", ownChain, ownKey)
	f.startInWest("own", "own", "tcp", 33, "")
	f.startTLSTalker(f.at(34, 8080), "wide", wideChain, wideKey)
	f.startInWest("wide", "wide", "tcp", 34, "")
	f.workload(f.at(35, 8080), "echo", nil)
	f.startInWest("echo", "echo", "http", 35, "")
	f.settled("west", 6)
	f.settled("east", 1)

	says := func(address, want string) {
		t.Helper()
		f.await(want, func() error {
			got, err := saysHello(address)
			if err == nil && got != want {
				err = fmt.Errorf("%q", got)
			}
			return err
		})
	}
	byName := func(name, want string, serial int64) {
		t.Helper()
		f.await(name, func() error {
			got, shown, err := overTLS(f.at(10, 8443), &tls.Config{ServerName: name, InsecureSkipVerify: true})
			if err == nil && (got != want || shown != serial) {
				err = fmt.Errorf("%q by certificate %d, want %q by %d", got, shown, want, serial)
			}
			return err
		})
	}
	closed := func(name string) {
		t.Helper()
		if got, _, err := overTLS(f.at(10, 8443), &tls.Config{ServerName: name, InsecureSkipVerify: true}); err == nil {
			t.Errorf("%s is answered %q", name, got)
		}
	}
	says(f.at(10, 5432), "v2: hello")
	byName("a.pass.example.com", "own: hello", 13)
	byName("b.pass.example.com", "wide: hello", 14)
	client := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{ServerName: "api.example.com", InsecureSkipVerify: true}}}
	if a := f.answers(client, http.StatusOK, "GET", "https://"+f.at(10, 8443)+"/x", "Host", "api.example.com"); a.Workload != "echo" {
		t.Errorf("HTTPS beside TLS is answered by %q", a.Workload)
	}
	for _, name := range []string{"term.example.com", "example.org"} {
		closed(name)
	}

	// A route selects a listener by its tags; only names that it covers are served.
	f.apply(strings.Replace(bytesRoute("term", "", "{destination: {kuma.io/service: db, version: v1}}"), "kuma.io/service: edge", "tls: terminated", 1))
	byName("term.example.com", "v1: hello", 11)
	byName("a.pass.example.com", "own: hello", 13)

	// Backends change without an end of connections.
	old, err := net.Dial("tcp", f.at(10, 5432))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	f.apply(toDB("{destination: {kuma.io/service: db, version: v1}}"))
	says(f.at(10, 5432), "v1: hello")
	if got, err := converse(old); err != nil || got != "v2: hello" && got != "v1: hello" {
		t.Errorf("the connection from before is answered %q: %v", got, err)
	}

	// The workload's own proxy decides who may connect.
	f.apply(permit("default", "no-db", "edge", "db", "DENY"))
	f.await("the denial", func() error {
		if got, err := saysHello(f.at(10, 5432)); err == nil {
			return fmt.Errorf("answered %q", got)
		}
		return nil
	})
	byName("b.pass.example.com", "wide: hello", 14)
	f.cli("delete", "trafficpermissions", "no-db")
	says(f.at(10, 5432), "v1: hello")

	// Without a route nothing is served, and the rest is.
	f.cli("delete", "meshgatewayroutes", "wide")
	f.await("the end of the route", func() error {
		if got, _, err := overTLS(f.at(10, 8443), &tls.Config{ServerName: "b.pass.example.com", InsecureSkipVerify: true}); err == nil {
			return fmt.Errorf("answered %q", got)
		}
		return nil
	})
	byName("a.pass.example.com", "own: hello", 13)

	f.refusesToApply([]string{"conf.listeners[1].protocol: port 5432 is that of listener 0 already, whose protocol differs", "only HTTPS and TLS share one"},
		strings.Replace(bytesGateway, "port: 8443", "port: 5432", 1))
}
