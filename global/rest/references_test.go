package rest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/pki"
)

// pair makes a self-signed certificate with its key, in PEM.
func pair(t *testing.T, key crypto.Signer, host string, until time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: until.Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...)
}

func ec(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func secretJSON(name string, data []byte) string {
	return `{"type":"Secret","mesh":"default","name":"` + name + `","data":"` + base64.StdEncoding.EncodeToString(data) + `"}`
}

func gatewayJSON(secret string) string {
	return `{"type":"MeshGateway","mesh":"default","name":"edge","selectors":[{"match":{"kuma.io/service":"edge"}}],"conf":{"listeners":[` +
		`{"port":8443,"protocol":"HTTPS","hostname":"api.example.com","tls":{"mode":"TERMINATE","certificates":[{"secret":"` + secret + `"}]}}]}}`
}

func changeJSON(resources ...string) string {
	return `{"resources":[` + strings.Join(resources, ",") + `]}`
}

// notes are those of an answer, as one text.
func notes(t *testing.T, body string) string {
	t.Helper()
	var out struct{ Notes []noteJSON }
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	var lines []string
	for _, n := range out.Notes {
		lines = append(lines, n.Text)
	}
	return strings.Join(lines, "\n")
}

func TestListenerCertificates(t *testing.T) {
	c := client{t, New(Config{Store: newStore(t), Authenticator: byName{}})}
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(`{"type":"Mesh","name":"default"}`)), 200)
	later := time.Now().Add(time.Hour)
	good := pair(t, ec(t), "api.example.com", later)
	other := pair(t, ec(t), "api.example.com", later)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	certOf := func(b []byte) []byte { return slices.Clip(b[:bytes.Index(b, []byte("-----BEGIN PRIVATE"))]) }
	keyOf := func(b []byte) []byte { return b[bytes.Index(b, []byte("-----BEGIN PRIVATE")):] }
	for name, bad := range map[string]struct {
		data []byte
		part string
	}{
		"nothing":      {[]byte("hello"), "no certificate in PEM"},
		"no key":       {certOf(good), "no private key in PEM"},
		"no cert":      {keyOf(good), "no certificate in PEM"},
		"another key":  {append(certOf(good), keyOf(other)...), "not that of the first certificate"},
		"encrypted":    {append(certOf(good), pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})...), "encrypted"},
		"ed25519":      {pair(t, edKey, "api.example.com", later), "Ed25519"},
		"weak rsa key": {pair(t, weak, "api.example.com", later), "RSA of 1024 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			c := client{t, c.h}
			w := c.do("admin", "POST", "/v1/changes", js, changeJSON(secretJSON("cert", bad.data), gatewayJSON("cert")))
			c.want(w, 422, bad.part, `"path":"conf.listeners[0].tls.certificates[0].secret"`, "MeshGateway default/edge", `"hint":"put the PEM`)
			c.want(c.do("admin", "GET", "/v1/meshes/default/secrets/cert", "", ""), 404) // nothing was applied
		})
	}
	// A secret that is not there yet is only noted, but what is then applied is judged.
	w := c.do("admin", "POST", "/v1/changes", js, changeJSON(gatewayJSON("cert")))
	c.want(w, 200)
	if n := notes(t, w.Body.String()); !strings.Contains(n, "Secret default/cert does not exist") || !strings.Contains(n, "port 8443") {
		t.Errorf("notes: %s", n)
	}
	c.want(c.do("admin", "PUT", "/v1/meshes/default/secrets/cert", js, secretJSON("cert", certOf(good))), 422, "no private key in PEM")
	w = c.do("writer", "PUT", "/v1/meshes/default/secrets/cert", js, secretJSON("cert", good))
	c.want(w, 201)
	if n := notes(t, w.Body.String()); n != "" {
		t.Errorf("a good certificate is noted: %s", n)
	}
	w = c.do("writer", "PUT", "/v1/meshes/default/secrets/cert", js, secretJSON("cert", pair(t, ec(t), "www.example.com", later)))
	c.want(w, 200)
	if n := notes(t, w.Body.String()); !strings.Contains(n, "not for api.example.com") {
		t.Errorf("notes: %s", n)
	}
	// What has expired is no mend for anything.
	c.want(c.do("writer", "PUT", "/v1/meshes/default/secrets/cert", js, secretJSON("cert", pair(t, ec(t), "api.example.com", time.Now().Add(-time.Minute)))), 422,
		"expired on", `"path":"conf.listeners[0].tls.certificates[0].secret"`, "valid now")
	w = c.do("writer", "DELETE", "/v1/meshes/default/secrets/cert", "", "")
	c.want(w, 200)
	if n := notes(t, w.Body.String()); !strings.Contains(n, "does not exist") {
		t.Errorf("notes: %s", n)
	}
	// Secrets that no listener names hold what they like.
	w = c.do("writer", "PUT", "/v1/meshes/default/secrets/free", js, secretJSON("free", []byte("hello")))
	c.want(w, 201)
	if n := notes(t, w.Body.String()); n != "" {
		t.Errorf("notes: %s", n)
	}
}

// TestCertificatesOfOneName: which of two would be served must not be left to chance.
func TestCertificatesOfOneName(t *testing.T) {
	c := client{t, New(Config{Store: newStore(t), Authenticator: byName{}})}
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(`{"type":"Mesh","name":"default"}`)), 200)
	later := time.Now().Add(time.Hour)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	gateway := `{"type":"MeshGateway","mesh":"default","name":"edge","selectors":[{"match":{"kuma.io/service":"edge"}}],"conf":{"listeners":[` +
		`{"port":8443,"protocol":"HTTPS","tls":{"mode":"TERMINATE","certificates":[{"secret":"one"},{"secret":"two"}]}}]}}`
	one := secretJSON("one", pair(t, ec(t), "api.example.com", later))
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(one, secretJSON("two", pair(t, ec(t), "API.example.com", later)), gateway)), 422,
		`"path":"conf.listeners[0].tls.certificates[1].secret"`, "Secret default/one and Secret default/two are both for api.example.com", "remove one of them")
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(one, secretJSON("two", pair(t, rsaKey, "api.example.com", later)), gateway)), 200)
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(secretJSON("two", pair(t, ec(t), "www.example.com", later)))), 200)
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(secretJSON("two", pair(t, ec(t), "api.example.com", later)))), 422, "both for api.example.com")
}

// TestAuthoritiesOfClients: without a usable authority nobody could come in.
func TestAuthoritiesOfClients(t *testing.T) {
	c := client{t, New(Config{Store: newStore(t), Authenticator: byName{}})}
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(`{"type":"Mesh","name":"default"}`)), 200)
	gateway := `{"type":"MeshGateway","mesh":"default","name":"edge","selectors":[{"match":{"kuma.io/service":"edge"}}],"conf":{"listeners":[` +
		`{"port":8443,"protocol":"HTTPS","tls":{"mode":"TERMINATE","certificates":[{"secret":"cert"}],"clientValidation":{"secret":"clients"}}}]}}`
	leaf := pair(t, ec(t), "api.example.com", time.Now().Add(time.Hour))
	root, err := pki.NewRoot(rand.Reader, time.Now(), "clients", pki.Validity{})
	if err != nil {
		t.Fatal(err)
	}
	old, err := pki.NewRoot(rand.Reader, time.Now().Add(-48*time.Hour), "clients", pki.Validity{Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cert := secretJSON("cert", leaf)
	w := c.do("admin", "POST", "/v1/changes", js, changeJSON(cert, gateway))
	c.want(w, 200)
	if n := notes(t, w.Body.String()); !strings.Contains(n, "clientValidation.secret: Secret default/clients does not exist") {
		t.Errorf("notes: %s", n)
	}
	for text, data := range map[string][]byte{
		"holds no certificate of an authority": leaf,
		"have expired":                         pki.EncodeCertificates(old.Certificate),
		"is damaged":                           pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
	} {
		c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(secretJSON("clients", data))), 422, text, `"path":"conf.listeners[0].tls.clientValidation.secret"`)
	}
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(secretJSON("clients", pki.EncodeCertificates(root.Certificate)))), 200)
}

func TestProvidedAuthority(t *testing.T) {
	c := client{t, New(Config{Store: newStore(t), Authenticator: byName{}})}
	root, err := pki.NewRoot(rand.Reader, time.Now(), "default", pki.Validity{})
	if err != nil {
		t.Fatal(err)
	}
	key, err := root.Key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	cert := pki.EncodeCertificates(root.Certificate)
	mesh := func(enabled string) string {
		return `{"type":"Mesh","name":"default","mtls":{"enabledBackend":"` + enabled + `","backends":[{"name":"builtin","type":"builtin"},` +
			`{"name":"own","type":"provided","conf":{"cert":{"secret":"c"},"key":{"secret":"k"}}}]}}`
	}
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(mesh("own"))), 422, "backend own is in use, but Secret default/c does not exist")
	w := c.do("admin", "POST", "/v1/changes", js, changeJSON(mesh("builtin")))
	c.want(w, 200)
	if n := notes(t, w.Body.String()); !strings.Contains(n, "backend own cannot be used yet: Secret default/c does not exist") {
		t.Errorf("notes: %s", n)
	}
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(mesh("own"), secretJSON("c", cert), secretJSON("k", []byte("no key")))), 422, "backend own is in use")
	w = c.do("admin", "POST", "/v1/changes", js, changeJSON(mesh("own"), secretJSON("c", cert), secretJSON("k", key)))
	c.want(w, 200)
	if n := notes(t, w.Body.String()); n != "" {
		t.Errorf("notes: %s", n)
	}
	c.want(c.do("admin", "DELETE", "/v1/meshes/default/secrets/k", "", ""), 422, "Secret default/k does not exist")
	c.want(c.do("admin", "POST", "/v1/changes", js, changeJSON(`{"type":"Mesh","name":"default"}`)), 200)
	c.want(c.do("admin", "DELETE", "/v1/meshes/default/secrets/k", "", ""), 200)
}

// TestSkippedDocuments: an author learns what of a file was not taken.
func TestSkippedDocuments(t *testing.T) {
	c := client{t, New(Config{Store: newStore(t), Authenticator: byName{}})}
	w := c.do("admin", "POST", "/v1/changes", ym, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: x\n---\ntype: Mesh\nname: default\n")
	c.want(w, 200, `"created":[{"kind":"Mesh"`, `"notes":[{"file":"body","line":1,`, "Namespace")
}
