package pki

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/url"
	"time"
)

// SVIDLifetime is the default lifetime of an SVID.
const SVIDLifetime = 24 * time.Hour

// SVID is the certificate of a service with its key.
type SVID struct {
	ID ID
	// Chain is the leaf, then the intermediate and what stands between it and the root. The root is not in it.
	Chain []*x509.Certificate
	Key   Key
}

// ChainPEM is the chain as Envoy takes it.
func (s SVID) ChainPEM() []byte { return EncodeCertificates(s.Chain...) }

// NewSVID makes a key and a certificate for a service of the issuer's zone. It never outlives the issuer.
func NewSVID(random io.Reader, now time.Time, issuer Authority, id ID, v Validity) (SVID, error) {
	if err := id.Validate(); err != nil {
		return SVID{}, err
	}
	if err := issuer.check(now, 0); err != nil {
		return SVID{}, fmt.Errorf("SVID %s: %w", id, err)
	}
	if err := checkIntermediate(issuer.Certificate, id.TrustDomain, now); err != nil {
		return SVID{}, fmt.Errorf("SVID %s: %w", id, err)
	}
	start, end, err := v.window(now, SVIDLifetime, issuer.notAfter())
	if err != nil {
		return SVID{}, fmt.Errorf("SVID %s: %w", id, err)
	}
	key, err := NewKey(random)
	if err != nil {
		return SVID{}, fmt.Errorf("SVID %s: %w", id, err)
	}
	template := &x509.Certificate{
		Subject:               subject(id.Service),
		NotBefore:             start,
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{id.URI()},
	}
	leaf, err := sign(random, template, issuer.Certificate, key.Public(), issuer.Key)
	if err != nil {
		return SVID{}, fmt.Errorf("SVID %s: %w", id, err)
	}
	if got, err := leafID(leaf); err != nil || got != id {
		return SVID{}, fmt.Errorf("SVID %s: signed for %s: %w", id, got, err)
	}
	return SVID{ID: id, Chain: append([]*x509.Certificate{leaf}, issuer.Chain()...), Key: key}, nil
}

// leafID reads the identity and refuses what is not an SVID of ours: exactly one URI, no other names, no authority.
func leafID(c *x509.Certificate) (ID, error) {
	if c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 {
		return ID{}, fmt.Errorf("%w: the leaf is an authority", ErrUntrusted)
	}
	if len(c.URIs) != 1 || len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses) > 0 {
		return ID{}, fmt.Errorf("%w: the leaf must have exactly one URI and no other name, but has %d URIs and %d others", ErrInvalidID,
			len(c.URIs), len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses))
	}
	return ParseID(c.URIs[0].String())
}
