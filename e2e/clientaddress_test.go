package e2e

import (
	"fmt"
	"net"
	"net/http"
	"testing"
)

// clientAt sends its requests from an address.
func clientAt(t *testing.T, address string) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
}

// TestClientAddress lets clients pass by where they come from, whatever they claim.
func TestClientAddress(t *testing.T) {
	f := startEdge(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(gatewayRoute("addresses", "",
		guarded("/allow", fmt.Sprintf("{type: CLIENT_ADDRESS, clientAddress: {allow: [%s/29, '2001:db8::/32']}}", f.host(80)))+
			guarded("/deny", fmt.Sprintf("{clientAddress: {deny: [%s]}}", f.host(80)))+
			guarded("/both", fmt.Sprintf("{clientAddress: {allow: [%s.0/24], deny: [%s, %s]}}", f.network, f.host(80), f.host(90)))))
	f.answers(clientAt(t, f.host(90)), http.StatusForbidden, "GET", url("/allow"))
	for _, c := range []struct {
		from   int
		path   string
		status int
	}{
		{80, "/allow", 200}, {87, "/allow", 200}, {88, "/allow", 403}, {79, "/allow", 403},
		{80, "/deny", 403}, {81, "/deny", 200},
		{80, "/both", 403}, {90, "/both", 403}, {81, "/both", 200},
	} {
		r, _, err := ask(clientAt(t, f.host(c.from)), "GET", url(c.path), "X-Forwarded-For", f.host(81), "X-Envoy-External-Address", f.host(81))
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != c.status {
			t.Errorf("%s from .%d: %d, want %d", c.path, c.from, r.StatusCode, c.status)
		}
	}

	// One policy covers a whole gateway, and a rule of its own decides over it.
	f.apply(fmt.Sprintf("type: FilterPolicy\nmesh: default\nname: inside\nselectors: [{match: {kuma.io/service: edge}}]\nconf: {filters: [{clientAddress: {allow: [%s]}}]}\n", f.host(99)),
		gatewayRoute("more", "", "      - matches: [{path: {match: PREFIX, value: /more}}]\n"+toV1))
	f.answers(clientAt(t, f.host(99)), http.StatusOK, "GET", url("/more"))
	for path, status := range map[string]int{"/more": 403, "/deny": 200} {
		if r, _, err := ask(clientAt(t, f.host(98)), "GET", url(path)); err != nil || r.StatusCode != status {
			t.Errorf("%s from outside: %v %v, want %d", path, r, err, status)
		}
	}
}
