package state

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
)

// secret is what a Secret holds, and what that can be used as: certificate is nil when it is no certificate with its key,
// authorities when it proves nobody.
type secret struct {
	data        []byte
	certificate *ir.Certificate
	authorities []byte
}

func newSecret(data []byte) *secret {
	out := &secret{data: data, authorities: authoritiesIn(data)}
	if chain, key := splitPEM(data); len(chain) > 0 && len(key) > 0 {
		out.certificate = &ir.Certificate{Chain: chain, Key: key}
	}
	return out
}

// certificate is that of a Secret, or of two that are named CERTIFICATE+KEY; nil when there is none.
func (m *mesh) certificate(name string) *ir.Certificate {
	cert, key, two := strings.Cut(name, "+")
	if !two {
		if v := m.secrets[name]; v != nil {
			return v.certificate
		}
		return nil
	}
	c, k := m.secrets[cert], m.secrets[key]
	if c == nil || k == nil {
		return nil
	}
	return newSecret(slices.Concat(c.data, []byte("\n"), k.data)).certificate
}

// authorities are those of a Secret; nil when there are none.
func (m *mesh) authorities(name string) []byte {
	if v := m.secrets[name]; v != nil {
		return v.authorities
	}
	return nil
}

// Secret is what a name of a proxy's secrets stands for, of those that Secrets of its mesh hold: a certificate with its key
// ("secret:NAME", or "secret:CERTIFICATE+KEY" of two), authorities ("authorities:NAME"), a text ("text:NAME") or
// a key derived from one ("seal:NAME"). It must not be printed.
func (s *State) Secret(mesh, name string) (*ir.Secret, bool) {
	m := s.meshes[mesh]
	if m == nil {
		return nil, false
	}
	if n, ok := strings.CutPrefix(name, "secret:"); ok {
		if c := m.certificate(n); c != nil {
			return &ir.Secret{Name: name, Certificate: c}, true
		}
	}
	if n, ok := strings.CutPrefix(name, "authorities:"); ok {
		if bundle := m.authorities(n); bundle != nil {
			return &ir.Secret{Name: name, Bundle: bundle}, true
		}
	}
	for prefix, of := range map[string]func(string) []byte{ir.SecretText: m.text, ir.SecretSeal: m.seal} {
		if n, ok := strings.CutPrefix(name, prefix); ok {
			if text := of(n); len(text) > 0 {
				return &ir.Secret{Name: name, Text: text}, true
			}
		}
	}
	return nil, false
}

// splitPEM takes a Secret's certificates and its key apart; both are empty unless they belong together.
func splitPEM(data []byte) (chain, key []byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			chain = append(chain, pem.EncodeToMemory(block)...)
		} else if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			key = append(key, pem.EncodeToMemory(block)...)
		}
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, nil
	}
	// Envoy reads the whole chain, crypto/tls its first certificate.
	for _, der := range pair.Certificate {
		if _, err := x509.ParseCertificate(der); err != nil {
			return nil, nil
		}
	}
	return chain, key
}

// authoritiesIn are the certificates of a Secret that may sign others, and nothing else of it; empty where one is damaged, as
// Envoy would refuse them all.
func authoritiesIn(data []byte) (bundle []byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil
		}
		if c.IsCA {
			bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})...)
		}
	}
	return bundle
}
