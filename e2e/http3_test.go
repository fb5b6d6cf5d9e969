package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// overQUIC is a client that speaks HTTP/3 alone, at a port of the edge for a server name.
func (f *federation) overQUIC(sni string, port int, certificates ...tls.Certificate) *http.Client {
	return f.overQUICWithin(answerTime, sni, port, certificates...)
}

// overQUICWithin gives up where nothing is heard for so long: nothing else tells that a port has no QUIC.
func (f *federation) overQUICWithin(silence time.Duration, sni string, port int, certificates ...tls.Certificate) *http.Client {
	transport := &http3.Transport{
		TLSClientConfig: showing(sni, certificates),
		QUICConfig:      &quic.Config{HandshakeIdleTimeout: silence},
		Dial: func(ctx context.Context, _ string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, f.at(10, port), c, q)
		},
	}
	f.t.Cleanup(func() { _ = transport.Close() })
	return &http.Client{Timeout: answerTime, Transport: transport}
}

// TestHTTP3 speaks HTTP/3 to an HTTPS listener: the same routes and certificates as over TCP, told to clients by Alt-Svc.
func TestHTTP3(t *testing.T) {
	f := startEdge(t)
	gateway := func(options string) string {
		return strings.ReplaceAll(`type: MeshGateway
mesh: default
name: edge
selectors: [{match: {kuma.io/service: edge}}]
conf:
  listeners:
    - {port: 8443, protocol: HTTPS, hostname: api.example.com, OPTIONS tls: {mode: TERMINATE, certificates: [{secret: api}]}}
    - {port: 8443, protocol: HTTPS, hostname: "*.example.com", tls: {mode: TERMINATE, certificates: [{secret: wide}]}}
`, "OPTIONS", options)
	}
	const api = "https://api.example.com"
	chain, key := certificate(t, 1, "api.example.com")
	wideChain, wideKey := certificate(t, 2, "*.example.com")
	route := func(backend string) string {
		return gatewayRoute("api", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+backend)
	}
	f.apply(secretDocument("api", chain, key), secretDocument("wide", wideChain, wideKey), gateway(""), route(toV1))
	overTCP := f.throughTLS("api.example.com", 8443)
	f.answers(overTCP, http.StatusOK, "GET", api+"/")
	if r, _, err := ask(overTCP, "GET", api+"/"); err != nil || r.Header.Get("Alt-Svc") != "" {
		t.Errorf("HTTP/3 is told where it isn't served: %v: %v", r, err)
	}

	// A connection over TCP goes on while HTTP/3 is switched on.
	kept := f.throughTLS("api.example.com", 8443)
	kept.Transport.(*http.Transport).DisableKeepAlives = false
	var again bool
	trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { again = c.Reused }})
	keep := func() error {
		r, err := http.NewRequestWithContext(trace, "GET", api+"/", nil)
		if err != nil {
			return err
		}
		response, err := kept.Do(r)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return err
	}
	if err := keep(); err != nil {
		t.Fatal(err)
	}
	f.apply(gateway("http3: true, http3AdvertisedPort: 443,"))
	client := f.overQUIC("api.example.com", 8443)
	if a := f.answers(client, http.StatusOK, "GET", api+"/x?y=z"); a.Workload != "v1" || a.Path != "/x" || a.Query != "y=z" || a.Host != "api.example.com" {
		t.Errorf("HTTP/3 is answered %+v", a)
	}
	if err := keep(); err != nil || !again {
		t.Errorf("the connection from before is not used again: %v", err)
	}
	for name, c := range map[string]*http.Client{"HTTP/3.0": client, "HTTP/1.1": overTCP} {
		if r, _, err := ask(c, "GET", api+"/"); err != nil || r.Proto != name || r.Header.Get("Alt-Svc") != `h3=":443"; ma=86400` {
			t.Errorf("%s: %v: %v", name, r, err)
		}
	}
	// Bodies go both ways, and the client can't claim to be another.
	body := bytes.Repeat([]byte("0123456789"), 100_000)
	r, err := client.Post(api+"/post", "text/plain", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("a request of 1 MB: %d: %v", r.StatusCode, err)
	}
	r.Body.Close()
	if _, a, err := ask(client, "GET", api+"/", "X-Forwarded-For", "203.0.113.9"); err != nil || a.Header.Get("X-Envoy-External-Address") == "203.0.113.9" {
		t.Errorf("the client is taken for another: %v: %v", a.Header, err)
	}

	// Routes and certificates change as they do over TCP: on the same connection, and for new ones.
	f.apply(route(toV2))
	f.await("the new route", func() error {
		if _, a, err := ask(client, "GET", api+"/"); err != nil || a.Workload != "v2" {
			return fmt.Errorf("%q: %w", a.Workload, err)
		}
		return nil
	})
	newChain, newKey := certificate(t, 7, "api.example.com")
	f.apply(secretDocument("api", newChain, newKey))
	f.await("the new certificate", func() error {
		r, _, err := ask(f.overQUIC("api.example.com", 8443), "GET", api+"/")
		if err == nil && r.TLS.PeerCertificates[0].SerialNumber.Int64() != 7 {
			err = fmt.Errorf("certificate %d", r.TLS.PeerCertificates[0].SerialNumber)
		}
		return err
	})
	// The listener beside it, which doesn't ask for it, has no HTTP/3.
	if r, _, err := ask(f.overQUICWithin(3*time.Second, "www.example.com", 8443), "GET", "https://www.example.com/"); err == nil {
		t.Errorf("a listener without http3 answers %d", r.StatusCode)
	}
	f.apply(gateway(""))
	f.await("the end of HTTP/3", func() error {
		if r, _, err := ask(f.overQUICWithin(3*time.Second, "api.example.com", 8443), "GET", api+"/"); err == nil {
			return fmt.Errorf("status %d", r.StatusCode)
		}
		return nil
	})
	f.answers(overTCP, http.StatusOK, "GET", api+"/")
}
