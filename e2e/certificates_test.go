package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"
)

// rsaCertificate is certificate with an RSA key, which ends at a time.
func rsaCertificate(t *testing.T, serial int64, end time.Time, hosts ...string) (chain, key []byte) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts, NotBefore: end.Add(-2 * time.Hour), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
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

// TestSeveralCertificates picks among those of one listener by server name and by the kinds of key that a client knows, and speaks
// the versions and cipher suites of TLS that it is told.
func TestSeveralCertificates(t *testing.T) {
	f := startEdge(t)
	later := time.Now().Add(time.Hour)
	rsaChain, rsaKey := rsaCertificate(t, 1, later, "api.example.com")
	ecChain, ecKey := certificate(t, 2, "api.example.com")
	wwwChain, wwwKey := certificate(t, 3, "www.example.com")
	gateway := func(options string) string {
		return `type: MeshGateway
mesh: default
name: edge
selectors: [{match: {kuma.io/service: edge}}]
conf:
  listeners:
    - {port: 8443, protocol: HTTPS, tls: {mode: TERMINATE, certificates: [{secret: rsa}, {secret: ec}, {secret: www}]` + options + `}}
`
	}
	f.apply(secretDocument("rsa", rsaChain, rsaKey), secretDocument("ec", ecChain, ecKey), secretDocument("www", wwwChain, wwwKey), gateway(""),
		gatewayRoute("all", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1))

	const ecdsa12, rsa12 = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
	dial := func(config *tls.Config) (tls.ConnectionState, error) {
		config.InsecureSkipVerify = true
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: answerTime}, "tcp", f.at(10, 8443), config)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	shows := func(name string, config *tls.Config, want int64) {
		t.Helper()
		f.await(name, func() error {
			s, err := dial(config)
			if err == nil && s.PeerCertificates[0].SerialNumber.Int64() != want {
				err = fmt.Errorf("certificate %d, want %d", s.PeerCertificates[0].SerialNumber, want)
			}
			return err
		})
	}
	old := func(sni string, suite uint16) *tls.Config {
		return &tls.Config{ServerName: sni, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}
	}
	shows("a client that knows both", &tls.Config{ServerName: "api.example.com"}, 2)
	shows("another name", &tls.Config{ServerName: "www.example.com"}, 3)
	// Clients from before TLS 1.3 tell the kinds of key that they know by their cipher suites. This one tells that it knows the
	// newer way too, so the newer way is closed here.
	f.apply(gateway(", maxVersion: TLS1_2"))
	shows("a client that knows RSA alone", old("api.example.com", rsa12), 1)
	shows("a client that knows ECDSA alone", old("api.example.com", ecdsa12), 2)
	shows("a name of none", old("example.org", rsa12), 1)
	f.apply(gateway(""))

	// Two for one name with one kind of key, and what has expired, are refused by the place that they would serve at.
	twinChain, twinKey := certificate(t, 4, "api.example.com")
	f.refusesToApply([]string{"conf.listeners[0].tls.certificates[2].secret", "are both for api.example.com", "make one RSA and the other ECDSA"}, secretDocument("www", twinChain, twinKey))
	oldChain, oldKey := rsaCertificate(t, 5, time.Now().Add(-time.Minute), "api.example.com")
	f.refusesToApply([]string{"conf.listeners[0].tls.certificates[0].secret", "Secret default/rsa expired on", "valid now"}, secretDocument("rsa", oldChain, oldKey))
	f.refusesToApply([]string{"Secret default/rsa cannot serve TLS", "not that of the first certificate"}, secretDocument("rsa", rsaChain, oldKey))
	shows("the name from before", &tls.Config{ServerName: "www.example.com"}, 3)

	version := func(want uint16, config *tls.Config) error {
		s, err := dial(config)
		if err == nil && s.Version != want {
			err = fmt.Errorf("version %x, want %x", s.Version, want)
		}
		return err
	}
	f.apply(gateway(", minVersion: TLS1_3"))
	f.await("TLS 1.3 alone", func() error {
		if err := version(tls.VersionTLS12, old("api.example.com", rsa12)); err == nil {
			return fmt.Errorf("TLS 1.2 is spoken")
		}
		return version(tls.VersionTLS13, &tls.Config{ServerName: "api.example.com"})
	})
	f.apply(gateway(", maxVersion: TLS1_2, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]"))
	f.await("one cipher suite of TLS 1.2", func() error {
		if err := version(tls.VersionTLS12, old("api.example.com", ecdsa12)); err == nil {
			return fmt.Errorf("another suite is spoken")
		}
		return version(tls.VersionTLS12, &tls.Config{ServerName: "api.example.com"})
	})
	if err := version(tls.VersionTLS10, &tls.Config{ServerName: "api.example.com", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS before 1.2 is spoken")
	}
}
