package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// signer is an authority of clients.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newSigner(t *testing.T, name string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signer{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue makes a client's certificate with one name of a kind.
func (s signer) issue(t *testing.T, kind, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	switch kind {
	case "dns":
		template.DNSNames = []string{name}
	case "email":
		template.EmailAddresses = []string{name}
	case "uri":
		u, err := url.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

const clientsGateway = `type: MeshGateway
mesh: default
name: edge
selectors: [{match: {kuma.io/service: edge}}]
conf:
  listeners:
    - port: 8443
      protocol: HTTPS
      hostname: admin.example.com
      http3: true
      tags: {who: admins}
      tls:
        mode: TERMINATE
        certificates: [{secret: wide}]
        clientValidation:
          secret: clients
          subjectAltNames: [{dns: ops.example.com}, {uri: {prefix: "spiffe://partners/"}}, {email: {regex: '.*@example\.com'}}]
    - port: 8443
      protocol: HTTPS
      hostname: "*.example.com"
      tags: {who: anyone}
      tls: {mode: TERMINATE, certificates: [{secret: wide}], clientValidation: {secret: clients, mode: OPTIONAL}}
    - port: 8444
      protocol: TLS
      hostname: "*.example.com"
      tls: {mode: TERMINATE, certificates: [{secret: wide}], clientValidation: {secret: clients, certificateHashes: ["HASH"], spkiHashes: ["KEY"]}}
`

// showing is TLS of a client that shows its certificate to whoever asks, whether or not they would know its authority.
func showing(sni string, certificates []tls.Certificate) *tls.Config {
	return &tls.Config{ServerName: sni, InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(certificates) == 0 {
			return &tls.Certificate{}, nil
		}
		return &certificates[0], nil
	}}
}

// throughTLS is a client at a port of the edge for a server name, which shows a certificate where one is given.
func (f *federation) throughTLS(sni string, port int, certificates ...tls.Certificate) *http.Client {
	c := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: showing(sni, certificates),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, f.at(10, port))
		}}}
	f.t.Cleanup(c.CloseIdleConnections)
	return c
}

// TestClientCertificates lets clients in by what their certificates prove, and tells the backend.
func TestClientCertificates(t *testing.T) {
	f := startEdge(t)
	authority, stranger := newSigner(t, "clients"), newSigner(t, "strangers")
	ops := authority.issue(t, "dns", "ops.example.com")
	other := authority.issue(t, "dns", "other.example.com")
	hash := sha256.Sum256(ops.Certificate[0])
	second := authority.issue(t, "dns", "second.example.com")
	spki := sha256.Sum256(second.Leaf.RawSubjectPublicKeyInfo)
	gateway := strings.NewReplacer("HASH", hex.EncodeToString(hash[:]), "KEY", base64.StdEncoding.EncodeToString(spki[:])).Replace(clientsGateway)
	chain, key := certificate(t, 1, "*.example.com")
	route := func(name, who, backend string) string {
		return strings.Replace(gatewayRoute(name, "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+backend), "kuma.io/service: edge", "who: "+who, 1)
	}
	documents := []string{secretDocument("wide", chain, key), route("admins", "admins", toV1), route("anyone", "anyone", toV2),
		bytesRoute("raw", "", "{destination: {kuma.io/service: echo, version: v1}}")}

	// A listener must not let in anyone while it doesn't know whom to let in.
	f.refusesToApply([]string{"Secret default/clients is not there", "refused in east"}, append(documents, gateway)...)
	if r, _, err := ask(f.throughTLS("admin.example.com", 8443), "GET", "https://admin.example.com/"); err == nil {
		t.Errorf("without its authorities the listener answers %d", r.StatusCode)
	}
	f.refusesToApply([]string{"Secret default/clients cannot prove clients: it holds no certificate of an authority"}, secretDocument("clients", chain))
	f.apply(secretDocument("clients", authority.pem))
	f.settled("east", 3)
	f.answers(f.throughTLS("admin.example.com", 8443, ops), http.StatusOK, "GET", "https://admin.example.com/")

	admin, www := "admin.example.com", "www.example.com"
	for _, c := range []struct {
		name, sni string
		shown     []tls.Certificate
		workload  string // empty: refused
		proven    string
	}{
		{"no certificate", admin, nil, "", ""},
		{"another authority", admin, []tls.Certificate{stranger.issue(t, "dns", "ops.example.com")}, "", ""},
		{"another name", admin, []tls.Certificate{other}, "", ""},
		{"the name as another kind", admin, []tls.Certificate{authority.issue(t, "uri", "ops.example.com")}, "", ""},
		{"dns", admin, []tls.Certificate{ops}, "v1", "DNS=ops.example.com"},
		{"uri", admin, []tls.Certificate{authority.issue(t, "uri", "spiffe://partners/one")}, "v1", "URI=spiffe://partners/one"},
		{"email", admin, []tls.Certificate{authority.issue(t, "email", "one@example.com")}, "v1", `Subject="CN=client"`},
		{"optional without", www, nil, "v2", ""},
		{"optional with any name", www, []tls.Certificate{other}, "v2", "DNS=other.example.com"},
		{"optional with another authority", www, []tls.Certificate{stranger.issue(t, "dns", "ops.example.com")}, "", ""},
	} {
		r, a, err := ask(f.throughTLS(c.sni, 8443, c.shown...), "GET", "https://"+c.sni+"/", "X-Forwarded-Client-Cert", "Hash=0;DNS=forged.example.com")
		if c.workload == "" {
			if err == nil {
				t.Errorf("%s: %d from %q", c.name, r.StatusCode, a.Workload)
			}
			continue
		}
		if err != nil || a.Workload != c.workload {
			t.Errorf("%s: %v from %q: %v", c.name, r, a.Workload, err)
			continue
		}
		// The last element is the sidecar's of the gateway; before it stands the gateway's of the client, if it showed anything.
		told := a.Header.Get("X-Forwarded-Client-Cert")
		if elements := strings.Split(told, ",By="); !strings.Contains(told, c.proven) || strings.Contains(told, "forged") || !strings.HasSuffix(told, "/edge") || (c.proven != "") != (len(elements) == 2) {
			t.Errorf("%s: the backend is told %q, want %q in it", c.name, told, c.proven)
		}
	}
	// Who needs no certificate for one name must not reach by it what another name guards.
	if r, a, err := ask(f.throughTLS(www, 8443), "GET", "https://www.example.com/", "Host", admin); err != nil || a.Workload == "v1" {
		t.Errorf("the other name's host leads to %q: %v: %v", a.Workload, r, err)
	}

	// Pins hold at a listener for bytes: one of the hashes is enough.
	raw := func(shown ...tls.Certificate) error {
		conn, err := tls.Dial("tcp", f.at(10, 8444), showing(www, shown))
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
			return err
		}
		if _, err := fmt.Fprint(conn, "GET /raw HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
			return err
		}
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", r.StatusCode)
		}
		return nil
	}
	for _, good := range []tls.Certificate{ops, second} {
		if err := raw(good); err != nil {
			t.Errorf("pinned %s: %v", good.Leaf.DNSNames, err)
		}
	}
	if raw(other) == nil || raw() == nil {
		t.Error("a client is let in that is not pinned")
	}

	// Over QUIC it is the same.
	quic := func(shown ...tls.Certificate) (*http.Response, answer, error) {
		return ask(f.overQUIC(admin, 8443, shown...), "GET", "https://admin.example.com/", "X-Forwarded-Client-Cert", "Hash=0;DNS=forged.example.com")
	}
	if _, a, err := quic(ops); err != nil || a.Workload != "v1" || !strings.Contains(a.Header.Get("X-Forwarded-Client-Cert"), "DNS=ops.example.com") || strings.Contains(fmt.Sprint(a.Header), "forged") {
		t.Errorf("HTTP/3 with a certificate: %v: %v", a, err)
	}
	for name, shown := range map[string][]tls.Certificate{"none": nil, "another name": {other}, "another authority": {stranger.issue(t, "dns", "ops.example.com")}} {
		if r, a, err := quic(shown...); err == nil {
			t.Errorf("HTTP/3 with %s: %d from %q", name, r.StatusCode, a.Workload)
		}
	}

	// Authorities change as any Secret does; the key of one is in no proxy.
	_, private := certificate(t, 9, "stranger")
	f.apply(secretDocument("clients", stranger.pem, private))
	f.answers(f.throughTLS(admin, 8443, stranger.issue(t, "dns", "ops.example.com")), http.StatusOK, "GET", "https://admin.example.com/")
	f.await("the end of the old authority", func() error {
		if r, _, err := ask(f.throughTLS(admin, 8443, ops), "GET", "https://admin.example.com/"); err == nil {
			return fmt.Errorf("status %d", r.StatusCode)
		}
		return nil
	})
	block, _ := pem.Decode(private)
	if dump := f.cli("inspect", "dataplane", "edge", "--config"); bytes.Contains([]byte(dump), []byte(base64.StdEncoding.EncodeToString(block.Bytes)[:40])) || strings.Contains(dump, "BEGIN PRIVATE KEY") {
		t.Error("the key beside the authorities is in the proxy's configuration")
	}
}
