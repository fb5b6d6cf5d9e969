package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"
)

// certificate is PEM of a self-signed certificate for hosts, and of its key.
func certificate(t *testing.T, serial int64, hosts ...string) (chain, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

func secretDocument(name string, parts ...[]byte) string {
	return fmt.Sprintf("type: Secret\nmesh: default\nname: %s\ndata: %s\n", name, base64.StdEncoding.EncodeToString(bytes.Join(parts, nil)))
}

const tlsGateway = `type: MeshGateway
mesh: default
name: edge
selectors: [{match: {kuma.io/service: edge}}]
conf:
  listeners:
    - {port: 8080, protocol: HTTP}
    - {port: 8443, protocol: HTTPS, hostname: api.example.com, tls: {mode: TERMINATE, certificates: [{secret: api}]}}
    - {port: 8443, protocol: HTTPS, hostname: "*.example.com", tls: {mode: TERMINATE, certificates: [{secret: wide}]}}
`

// TestHTTPSGateway terminates TLS by SNI, and replaces a certificate under traffic.
func TestHTTPSGateway(t *testing.T) {
	f := startEdge(t)
	plain := newClient(t)
	secure := func(sni string) *http.Client {
		c := &http.Client{Timeout: answerTime, Transport: &http.Transport{
			// The certificate itself is looked at.
			TLSClientConfig: &tls.Config{ServerName: sni, InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, f.at(10, 8443))
			},
		}}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	serial := func(sni string) int64 {
		conn, err := tls.Dial("tcp", f.at(10, 8443), &tls.Config{ServerName: sni, InsecureSkipVerify: true})
		if err != nil {
			return -1
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	serves := func(sni string, want int64) {
		t.Helper()
		f.await(sni, func() error {
			if got := serial(sni); got != want {
				return fmt.Errorf("certificate %d, want %d", got, want)
			}
			return nil
		})
	}
	apiChain, apiKey := certificate(t, 1, "api.example.com")
	wideChain, wideKey := certificate(t, 2, "*.example.com")
	routes := gatewayRoute("api", "api.example.com", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1) + "---\n" +
		gatewayRoute("wide", `"*.example.com"`, "      - matches: [{path: {match: EXACT, value: /wide}}]\n"+toV2)

	// A listener whose Secret is not there yet must not hold up the others.
	f.refusesToApply([]string{"Secret default/api is not there", "refused in east"}, tlsGateway, routes, secretDocument("wide", wideChain, wideKey))
	serves("two.example.com", 2)
	f.apply(secretDocument("api", apiChain, apiKey))
	f.settled("east", 3)
	serves("api.example.com", 1)
	serves("two.example.com", 2)
	if got := serial("example.org"); got != -1 {
		t.Errorf("a name of nobody is served certificate %d", got)
	}

	for _, c := range []struct {
		sni, host, path, workload string
		status                    int
	}{
		{"api.example.com", "api.example.com", "/x", "v1", 200},
		{"two.example.com", "two.example.com", "/wide", "v2", 200},
		{"two.example.com", "two.example.com", "/x", "", 404},
		// The wide route stands behind the narrower one for its hostname.
		{"api.example.com", "api.example.com", "/wide", "v2", 200},
		// A connection for one name must not reach what another name's listener guards.
		{"two.example.com", "api.example.com", "/x", "", 404},
	} {
		r, a, err := ask(secure(c.sni), "GET", "https://"+c.sni+c.path, "Host", c.host)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if r.StatusCode != c.status || a.Workload != c.workload {
			t.Errorf("%+v: %d from %q", c, r.StatusCode, a.Workload)
		}
	}
	// Plaintext on the TLS port and TLS on the plaintext port are refused and hurt nobody.
	if r, _, err := ask(plain, "GET", "http://"+f.at(10, 8443)+"/x", "Host", "api.example.com"); err == nil && r.StatusCode == http.StatusOK {
		t.Error("plaintext is served on the TLS port")
	}

	// What cannot serve TLS is refused at once, by the place it would serve.
	_, otherKey := certificate(t, 9, "api.example.com")
	f.refusesToApply([]string{"Secret default/api cannot serve TLS", "not that of the first certificate"}, secretDocument("api", apiChain, otherKey))
	f.refusesToApply([]string{"cannot serve TLS", "no private key"}, secretDocument("api", apiChain))
	damaged := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")})
	f.refusesToApply([]string{"cannot serve TLS", "damaged"}, secretDocument("api", apiChain, damaged, apiKey))
	f.settled("east", 3)
	serves("api.example.com", 1)

	// A new certificate under traffic: old connections go on, new ones get it.
	client := secure("api.example.com")
	var mu sync.Mutex
	var requests, connections int
	var failed error
	stop, stopped := make(chan struct{}), make(chan struct{})
	send := func() error {
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			mu.Lock()
			defer mu.Unlock()
			if !info.Reused {
				connections++
			}
		}}
		r, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET", "https://api.example.com/x", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(r)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var body bytes.Buffer
		_, err = body.ReadFrom(response.Body)
		if err == nil && (response.StatusCode != 200 || !strings.Contains(body.String(), "v1")) {
			err = fmt.Errorf("status %d: %s", response.StatusCode, &body)
		}
		return err
	}
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			err := send()
			mu.Lock()
			requests++
			if err != nil && failed == nil {
				failed = err
			}
			mu.Unlock()
		}
	}()
	count := func() int { mu.Lock(); defer mu.Unlock(); return requests }
	for generation := int64(10); generation < 13; generation++ {
		before := count()
		chain, key := certificate(t, generation, "api.example.com")
		f.apply(secretDocument("api", chain, key))
		serves("api.example.com", generation)
		f.await("traffic", func() error {
			if count() < before+20 {
				return fmt.Errorf("%d requests", count())
			}
			return nil
		})
	}
	close(stop)
	<-stopped
	if failed != nil || connections != 1 {
		t.Errorf("%d requests on %d connections while the certificate was replaced, with the error %v; want 1 connection and none", requests, connections, failed)
	}

	// Without the secret its hostname is not served, and the other one is.
	f.cli("delete", "secret", "api")
	serves("two.example.com", 2)
	f.await("api.example.com without its Secret", func() error {
		s, err := f.status("east")
		if err == nil && (len(s.Rejected) != 1 || !strings.Contains(s.Rejected[0].Reason, "Secret default/api is not there")) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	f.says(f.cli("inspect", "zone", "east"), "Secret default/api is not there")
	f.answers(plain, http.StatusNotFound, "GET", "http://"+f.at(10, 8080)+"/none")
}
