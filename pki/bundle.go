package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// ErrUntrusted says that a chain does not lead to a root of the bundle, or breaks a constraint on the way.
var ErrUntrusted = errors.New("certificate is not trusted")

// Bundle is the roots that a mesh trusts, the one that signs first.
type Bundle struct {
	roots []*x509.Certificate
}

// NewBundle keeps the order and drops repetitions. Every certificate must be an authority; expired ones are kept, as
// they do no harm and a bundle must not depend on the clock.
func NewBundle(roots ...*x509.Certificate) (Bundle, error) {
	var b Bundle
next:
	for _, c := range roots {
		if c == nil {
			return Bundle{}, fmt.Errorf("trust bundle: %w: a certificate is missing", ErrMalformed)
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return Bundle{}, fmt.Errorf("trust bundle: certificate %q: %w", c.Subject, ErrNotCA)
		}
		for _, have := range b.roots {
			if bytes.Equal(have.Raw, c.Raw) {
				continue next
			}
		}
		b.roots = append(b.roots, c)
	}
	return b, nil
}

// ParseBundle reads one or more roots in PEM.
func ParseBundle(data []byte) (Bundle, error) {
	certs, err := ParseCertificates(data)
	if err != nil {
		return Bundle{}, fmt.Errorf("trust bundle: %w", err)
	}
	return NewBundle(certs...)
}

// PEM is equal for equal bundles.
func (b Bundle) PEM() []byte { return EncodeCertificates(b.roots...) }

// Roots is a copy, the one that signs first.
func (b Bundle) Roots() []*x509.Certificate { return append([]*x509.Certificate(nil), b.roots...) }

// Len is the number of roots.
func (b Bundle) Len() int { return len(b.roots) }

// Fingerprints are SHA-256 over each certificate in PEM, in their order.
func Fingerprints(text []byte) (out [][sha256.Size]byte) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		out = append(out, sha256.Sum256(block.Bytes))
	}
	return out
}

// Verify checks a chain (leaf first) at now and returns whose it is. It is stricter than X.509: the issuer must be an
// intermediate of exactly the leaf's trust domain, because Go lets a URI constraint also cover what lies below a domain.
// Errors wrap ErrMalformed, ErrExpired, ErrNotYetValid, ErrInvalidID or ErrUntrusted.
func Verify(chain []*x509.Certificate, bundle Bundle, now time.Time) (ID, error) {
	if len(chain) == 0 {
		return ID{}, fmt.Errorf("verify: %w: the chain is empty", ErrMalformed)
	}
	id, err := leafID(chain[0])
	if err != nil {
		return ID{}, fmt.Errorf("verify: %w", err)
	}
	if err := bundle.verify(chain, now); err != nil {
		return ID{}, fmt.Errorf("verify %s: %w", id, err)
	}
	if len(chain) < 2 {
		return ID{}, fmt.Errorf("verify %s: %w: no intermediate of a zone in the chain", id, ErrUntrusted)
	}
	if err := chain[0].CheckSignatureFrom(chain[1]); err != nil {
		return ID{}, fmt.Errorf("verify %s: %w: not signed by the next certificate: %w", id, ErrUntrusted, err)
	}
	if err := checkIntermediate(chain[1], id.TrustDomain, now); err != nil {
		return ID{}, fmt.Errorf("verify %s: %w: %w", id, ErrUntrusted, err)
	}
	return id, nil
}

func (b Bundle) verify(chain []*x509.Certificate, now time.Time) error {
	for _, c := range chain {
		if err := checkTime(c, now); err != nil {
			return err
		}
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range b.roots {
		roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// Leaves need both usages, since a sidecar is client and server; authorities have none, which allows any.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := chain[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUntrusted, err)
		}
	}
	return nil
}
