package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// edgeWith is a gateway with listeners, each a line.
func edgeWith(listeners ...string) string {
	return "type: MeshGateway\nmesh: default\nname: edge\nselectors: [{match: {kuma.io/service: edge}}]\nconf:\n  listeners:\n    - " + strings.Join(listeners, "\n    - ") + "\n"
}

// TestRedirectToHTTPS answers requests by a redirect, and leaves routes to the HTTPS listener.
func TestRedirectToHTTPS(t *testing.T) {
	f := startEdge(t)
	chain, key := certificate(t, 1, "*.example.com")
	https := "{port: 8443, protocol: HTTPS, tls: {mode: TERMINATE, certificates: [{secret: wide}]}}"
	f.apply(secretDocument("wide", chain, key), edgeWith("{port: 8080, protocol: HTTP}", https),
		gatewayRoute("all", "api.example.com", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1))
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/a/b?c=d"
	f.answers(client, http.StatusOK, "GET", url, "Host", "api.example.com")

	f.apply(edgeWith("{port: 8080, protocol: HTTP, redirectToHttps: true}", https))
	for _, c := range []struct{ method, host, want string }{
		{"GET", "api.example.com", "https://api.example.com/a/b?c=d"},
		{"POST", "api.example.com:8080", "https://api.example.com/a/b?c=d"},
		{"GET", "other.example.org", "https://other.example.org/a/b?c=d"},
	} {
		f.answers(client, http.StatusMovedPermanently, c.method, url, "Host", c.host)
		if r, _, err := ask(client, c.method, url, "Host", c.host); err != nil || strings.Replace(r.Header.Get("Location"), ":443/", "/", 1) != c.want {
			t.Errorf("%s %s leads to %q, want %q: %v", c.method, c.host, r.Header.Get("Location"), c.want, err)
		}
	}
	if a := f.answers(f.throughTLS("api.example.com", 8443), http.StatusOK, "GET", "https://api.example.com/a"); a.Workload != "v1" {
		t.Errorf("HTTPS is answered by %q", a.Workload)
	}

	f.apply(edgeWith("{port: 8080, protocol: HTTP, redirectToHttps: {port: 8443, statusCode: 308}}", "{port: 8080, protocol: HTTP, hostname: plain.example.com}", https),
		gatewayRoute("plain", "plain.example.com", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV2))
	f.answers(client, http.StatusPermanentRedirect, "PUT", url, "Host", "api.example.com")
	if r, _, err := ask(client, "PUT", url, "Host", "api.example.com"); err != nil || r.Header.Get("Location") != "https://api.example.com:8443/a/b?c=d" {
		t.Errorf("it leads to %v: %v", r, err)
	}
	if a := f.answers(client, http.StatusOK, "GET", url, "Host", "plain.example.com"); a.Workload != "v2" {
		t.Errorf("the listener beside it is answered by %q", a.Workload)
	}
}

// TestConnectionLimit closes what is over a listener's limit, and takes connections again when others end.
func TestConnectionLimit(t *testing.T) {
	f := startEdge(t)
	chain, key := certificate(t, 1, "*.example.com")
	f.apply(secretDocument("wide", chain, key), gatewayRoute("all", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1),
		edgeWith("{port: 8080, protocol: HTTP, resources: {connectionLimit: 3, bufferLimit: 32768}}",
			"{port: 8443, protocol: HTTPS, hostname: one.example.com, resources: {connectionLimit: 2}, tls: {mode: TERMINATE, certificates: [{secret: wide}]}}",
			"{port: 8443, protocol: HTTPS, hostname: two.example.com, tls: {mode: TERMINATE, certificates: [{secret: wide}]}}"))
	// open is a connection that answered a request.
	open := func(dial func() (net.Conn, error)) (net.Conn, error) {
		conn, err := dial()
		if err != nil {
			return nil, err
		}
		if err = conn.SetDeadline(time.Now().Add(answerTime)); err == nil {
			_, err = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: one.example.com\r\n\r\n")
		}
		if err == nil {
			var r *http.Response
			if r, err = http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				_, _ = io.Copy(io.Discard, r.Body) // what counts is the status
				r.Body.Close()
				if r.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %d", r.StatusCode)
				}
			}
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
	secure := func(sni string) func() (net.Conn, error) {
		return func() (net.Conn, error) {
			return tls.DialWithDialer(&net.Dialer{Timeout: answerTime}, "tcp", f.at(10, 8443), &tls.Config{ServerName: sni, InsecureSkipVerify: true})
		}
	}
	for name, c := range map[string]struct {
		limit int
		dial  func() (net.Conn, error)
	}{
		"http":  {3, func() (net.Conn, error) { return net.DialTimeout("tcp", f.at(10, 8080), answerTime) }},
		"https": {2, secure("one.example.com")},
	} {
		t.Run(name, func(t *testing.T) {
			var all []net.Conn
			for range c.limit {
				f.await("a connection", func() error {
					conn, err := open(c.dial)
					if err == nil {
						all = append(all, conn)
					}
					return err
				})
			}
			for range 3 {
				if conn, err := open(c.dial); err == nil {
					conn.Close()
					t.Fatalf("connection %d is taken", c.limit+1)
				}
			}
			// Other listeners go on.
			other, err := open(secure("two.example.com"))
			if err != nil && !strings.Contains(err.Error(), "status 404") {
				t.Errorf("the listener beside it: %v", err)
			} else if err == nil {
				other.Close()
			}
			all[0].Close()
			f.await("a connection in the place of one that ended", func() error {
				conn, err := open(c.dial)
				if err == nil {
					all[0] = conn
				}
				return err
			})
			for _, conn := range all {
				conn.Close()
			}
		})
	}
}

// TestBufferLimit bounds what a listener holds of a body for a filter that needs it whole; what passes by is as long as it likes.
func TestBufferLimit(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	f.apply(startBodies(f), edgeWith("{port: 8080, protocol: HTTP}", "{port: 8081, protocol: HTTP, resources: {bufferLimit: 32768}}"),
		bodiesRoute("whole", "{transform: {request: {body: {merge: '{\"added\": true}'}}}}"), gatewayRoute("plain", "", "      - matches: [{path: {match: PREFIX, value: /raw}}]\n"+toBodies),
		gatewayRoute("large", "", "      - matches: [{path: {match: PREFIX, value: /large}}]\n"+toV1))
	body := func(n int) string { return `{"text": "` + strings.Repeat("x", n) + `"}` }
	url := func(port int, path string) string { return fmt.Sprintf("http://%s%s", f.at(10, port), path) }
	f.answers(client, http.StatusOK, "GET", url(8081, "/large"))
	for _, c := range []struct {
		what       string
		port, size int
		path       string
		want       int
	}{
		{"held within the limit", 8081, 16 << 10, "/whole/raw", 200}, {"held beyond the limit", 8081, 64 << 10, "/whole/raw", 413},
		{"held at a listener without", 8080, 64 << 10, "/whole/raw", 200}, {"passing by", 8081, 512 << 10, "/raw", 200},
	} {
		r, got, err := post(client, url(c.port, c.path), "application/json", body(c.size))
		if err != nil || r.StatusCode != c.want || c.want == 200 && len(got) < c.size {
			t.Errorf("%s: %v with %d bytes, want %d: %v", c.what, r, len(got), c.want, err)
		}
	}
	if r := deliver(t, client, "GET", url(8081, "/large"), nil); r.status != 200 || len(r.body) != 100<<10 {
		t.Errorf("an answer that passes by: %d with %d bytes", r.status, len(r.body))
	}
}

// TestProxiesInFront takes the address of clients from those proxies that are trusted, and from nobody else.
func TestProxiesInFront(t *testing.T) {
	f := startEdge(t)
	f.apply(gatewayRoute("all", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1),
		edgeWith("{port: 8080, protocol: HTTP}", "{port: 8081, protocol: HTTP, trustedHops: 1}", "{port: 8082, protocol: HTTP, trustedHops: 2}",
			"{port: 8083, protocol: HTTP, proxyProtocol: REQUIRE}", "{port: 8084, protocol: HTTP, proxyProtocol: OPTIONAL}"))
	client := newClient(t)
	f.answers(client, http.StatusOK, "GET", "http://"+f.at(10, 8080)+"/")
	own := f.answers(client, http.StatusOK, "GET", "http://"+f.at(10, 8084)+"/").Header.Get("X-Envoy-External-Address")
	if own == "" || strings.HasPrefix(own, "203.") {
		t.Fatalf("without anything in front the client is %q", own)
	}
	for _, c := range []struct {
		port      int
		forwarded string
		want      string
	}{
		{8080, "203.0.113.1, 203.0.113.2", own},
		{8081, "203.0.113.1, 203.0.113.2", "203.0.113.2"},
		{8082, "203.0.113.1, 203.0.113.2", "203.0.113.1"},
		{8082, "203.0.113.9, 203.0.113.1, 203.0.113.2", "203.0.113.1"},
		{8081, "", own},
	} {
		var header []string
		if c.forwarded != "" {
			header = []string{"X-Forwarded-For", c.forwarded}
		}
		a := f.answers(client, http.StatusOK, "GET", fmt.Sprintf("http://%s/", f.at(10, c.port)), header...)
		if got := a.Header.Get("X-Envoy-External-Address"); got != c.want {
			t.Errorf("port %d with %q: the client is %q, want %q", c.port, c.forwarded, got, c.want)
		}
	}
	// behind is a request over a connection that begins with some bytes.
	behind := func(port int, preamble string) (string, error) {
		conn, err := net.DialTimeout("tcp", f.at(10, port), answerTime)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
			return "", err
		}
		if _, err := fmt.Fprint(conn, preamble+"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
			return "", err
		}
		body, err := io.ReadAll(conn)
		if err == nil && !strings.HasPrefix(string(body), "HTTP/1.1 200") {
			err = fmt.Errorf("%q", body)
		}
		return string(body), err
	}
	const v1 = "PROXY TCP4 203.0.113.7 192.0.2.1 40000 8080\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\xcb\x00\x71\x08" + "\xc0\x00\x02\x01" + "\x9c\x40\x1f\x90"
	for name, c := range map[string]struct {
		port           int
		preamble, want string
	}{
		"required, version 1": {8083, v1, `"203.0.113.7"`}, "required, version 2": {8083, v2, `"203.0.113.8"`},
		"optional, with": {8084, v1, `"203.0.113.7"`}, "optional, without": {8084, "", `"` + own + `"`},
	} {
		if got, err := behind(c.port, c.preamble); err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %s: %v", name, got, c.want, err)
		}
	}
	if got, err := behind(8083, ""); err == nil {
		t.Errorf("without the PROXY protocol it is answered %q", got)
	}
	if got, err := behind(8080, v1); err == nil {
		t.Errorf("a port without the PROXY protocol takes it: %q", got)
	}
}
