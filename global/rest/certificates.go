package rest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// listeners checks the Secrets by which a gateway's listeners speak TLS.
func (c *checker) listeners(gateway *resource.Resource, touched func(resource.Key) bool) {
	for i, l := range resource.Spec[*meshv1.MeshGateway](gateway).GetConf().GetListeners() {
		c.servers(gateway, i, l, touched)
		c.clients(gateway, i, l, touched)
	}
}

// secret finds a Secret that a listener names; what is not there is noted, as it may come with the next change.
func (c *checker) secret(gateway *resource.Resource, path string, key resource.Key, port uint32) ([]byte, bool) {
	secret, ok := c.get(key)
	if !ok {
		c.note("%s: %s: %s does not exist; the listener on port %d serves no TLS until it is applied", gateway.Key, path, key, port)
		return nil, false
	}
	return resource.Spec[*meshv1.Secret](secret).GetData(), true
}

// servers checks the certificates that a listener serves. What was there before the change is only noted where time alone made
// it bad, so that it holds up nothing else.
func (c *checker) servers(gateway *resource.Resource, i int, l *meshv1.MeshGateway_Listener, touched func(resource.Key) bool) {
	type served struct {
		path string
		key  resource.Key
		leaf *x509.Certificate
	}
	var before []served
	anyTouched := false
	for j, cert := range l.GetTls().GetCertificates() {
		key := resource.Key{Kind: "Secret", Mesh: gateway.Mesh, Name: cert.GetSecret()}
		path := fmt.Sprintf("conf.listeners[%d].tls.certificates[%d].secret", i, j)
		anyTouched = anyTouched || touched(key)
		if !touched(key) {
			if secret, ok := c.get(key); ok {
				if leaf, err := servingPair(resource.Spec[*meshv1.Secret](secret).GetData()); err == nil {
					before = append(before, served{path, key, leaf})
				}
			}
			continue
		}
		data, ok := c.secret(gateway, path, key, l.GetPort())
		if !ok {
			continue
		}
		leaf, err := servingPair(data)
		if err != nil {
			c.wrong(path, fmt.Sprintf("%s: %s cannot serve TLS: %s", gateway.Key, key, err),
				"put the PEM of the certificate, of its intermediates, and of its private key into the secret's data, in base64")
			continue
		}
		before = append(before, served{path, key, leaf})
		switch host := l.GetHostname(); {
		case c.now.After(leaf.NotAfter) && c.put[key] != nil:
			c.wrong(path, fmt.Sprintf("%s: the certificate in %s expired on %s", gateway.Key, key, leaf.NotAfter.UTC().Format(time.RFC3339)),
				"put one into the secret that is valid now")
		case c.now.After(leaf.NotAfter):
			c.note("%s: %s: the certificate in %s expired on %s", gateway.Key, path, key, leaf.NotAfter.UTC().Format(time.RFC3339))
		case host != "" && host != "*" && leaf.VerifyHostname(sample(host)) != nil && len(l.GetTls().GetCertificates()) == 1:
			c.note("%s: %s: the certificate in %s is not for %s", gateway.Key, path, key, host)
		}
	}
	if !anyTouched {
		return
	}
	for j, one := range before {
		for _, other := range before[:j] {
			if name := sharedName(one.leaf, other.leaf); name != "" {
				c.wrong(one.path, fmt.Sprintf("%s: the certificates in %s and %s are both for %s with a key of one kind, so it is open which one is served",
					gateway.Key, other.key, one.key, name), "remove one of them, or make one RSA and the other ECDSA")
				break
			}
		}
	}
}

// sharedName is a name for which either of two certificates with the same kind of key may be served; empty where there is none.
func sharedName(a, b *x509.Certificate) string {
	if a.PublicKeyAlgorithm != b.PublicKeyAlgorithm {
		return ""
	}
	for _, x := range a.DNSNames {
		for _, y := range b.DNSNames {
			if strings.EqualFold(x, y) {
				return strings.ToLower(x)
			}
		}
	}
	return ""
}

// clients checks the authorities by which a listener proves its clients.
func (c *checker) clients(gateway *resource.Resource, i int, l *meshv1.MeshGateway_Listener, touched func(resource.Key) bool) {
	v := l.GetTls().GetClientValidation()
	key := resource.Key{Kind: "Secret", Mesh: gateway.Mesh, Name: v.GetSecret()}
	if v == nil || !touched(key) {
		return
	}
	path := fmt.Sprintf("conf.listeners[%d].tls.clientValidation.secret", i)
	data, ok := c.secret(gateway, path, key, l.GetPort())
	if !ok {
		return
	}
	if problem := c.authoritiesProblem(data); problem != "" {
		c.wrong(path, fmt.Sprintf("%s: %s cannot prove clients: %s", gateway.Key, key, problem),
			"put the PEM of the authorities that sign clients into the secret's data, in base64")
	}
}

// authoritiesProblem says why no client can be proven by what a Secret holds; empty where some can.
func (c *checker) authoritiesProblem(data []byte) string {
	found, alive := 0, 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "one of its certificates is damaged"
		}
		if !cert.IsCA {
			continue
		}
		if found++; !c.now.After(cert.NotAfter) {
			alive++
		}
	}
	switch {
	case found == 0:
		return "it holds no certificate of an authority in PEM"
	case alive == 0:
		return "all of its authorities have expired"
	}
	return ""
}

// sample is a name that a hostname of a listener covers.
func sample(host string) string {
	if len(host) > 1 && host[0] == '*' {
		return "any" + host[1:]
	}
	return host
}

// servingPair reads a certificate with its key as a listener's Secret holds them. Its errors quote nothing of the content.
func servingPair(data []byte) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, errors.New(plainPairError(data))
	}
	leaf := pair.Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, errors.New("its certificate is damaged")
		}
	}
	for i, der := range pair.Certificate[1:] {
		if _, err := x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d of its chain is damaged", i+2)
		}
	}
	// Envoy refuses others when it loads them.
	switch key := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P224() {
			return nil, errors.New("its key is ECDSA on P-224; use P-256, P-384 or P-521")
		}
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return nil, fmt.Errorf("its key is RSA of %d bits; use at least 2048, or ECDSA P-256", key.N.BitLen())
		}
	case ed25519.PublicKey:
		return nil, errors.New("its key is Ed25519, which browsers and Envoy do not take; use ECDSA P-256")
	}
	return leaf, nil
}

// plainPairError says which part is at fault. crypto/tls speaks of files, and of parts of PEM that nobody wrote.
func plainPairError(data []byte) string {
	switch {
	case !hasBlock(data, "CERTIFICATE"):
		return "it holds no certificate in PEM"
	case !hasBlock(data, "PRIVATE KEY"):
		return "it holds no private key in PEM"
	case hasBlock(data, "ENCRYPTED PRIVATE KEY"):
		return "its private key is encrypted; decrypt it first"
	}
	return "its certificate or key is damaged, or the key is not that of the first certificate"
}

// hasBlock looks for a PEM block whose type ends so.
func hasBlock(data []byte, suffix string) bool {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return false
		}
		if strings.HasSuffix(block.Type, suffix) {
			return true
		}
		data = rest
	}
}
