package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"time"
)

const (
	// RootLifetime is the default lifetime of a root.
	RootLifetime = 87600 * time.Hour
	// IntermediateLifetime is the default lifetime of an intermediate, and so the longest outage of the global control
	// plane that a zone survives.
	IntermediateLifetime = 30 * 24 * time.Hour
	// Backdate is by how much certificates start before they are made by default, so that the clock of who makes them may be an hour
	// ahead, and that of who checks them an hour behind.
	Backdate = 2*time.Hour + 5*time.Minute
)

var (
	// ErrNotCA says that a certificate may not sign what it is asked to sign.
	ErrNotCA = errors.New("not a suitable certificate authority")
	// ErrExpired says that a certificate's time is over.
	ErrExpired = errors.New("certificate has expired")
	// ErrNotYetValid says that a certificate's time has not come.
	ErrNotYetValid = errors.New("certificate is not valid yet")
	// ErrBadRequest says that a certificate signing request is refused.
	ErrBadRequest = errors.New("certificate request refused")
	// ErrInvalidLifetime says that a lifetime or backdate makes no sense.
	ErrInvalidLifetime = errors.New("invalid lifetime")
)

// Authority is a certificate that signs, with its key.
type Authority struct {
	Certificate *x509.Certificate
	// Parents stand between Certificate and the root, nearest first. When Certificate is not itself the root, the last
	// is the root, if it is known.
	Parents []*x509.Certificate
	Key     Key
}

// Root is the self-signed end of the chain; nil if the authority does not hold it.
func (a Authority) Root() *x509.Certificate {
	last := a.Certificate
	if n := len(a.Parents); n > 0 {
		last = a.Parents[n-1]
	}
	if last == nil || !isSelfSigned(last) {
		return nil
	}
	return last
}

// Chain is what is sent with a certificate that the authority signed: the authority and its parents without the root.
// Empty for a root.
func (a Authority) Chain() []*x509.Certificate {
	var out []*x509.Certificate
	for _, c := range append([]*x509.Certificate{a.Certificate}, a.Parents...) {
		if c != nil && !isSelfSigned(c) {
			out = append(out, c)
		}
	}
	return out
}

// notAfter is the earliest end in the chain: nothing signed here is of use after it.
func (a Authority) notAfter() time.Time {
	end := a.Certificate.NotAfter
	for _, p := range a.Parents {
		if p.NotAfter.Before(end) {
			end = p.NotAfter
		}
	}
	return end
}

// check says whether the authority can sign at now, with below further levels of authorities under it.
func (a Authority) check(now time.Time, below int) error {
	if a.Certificate == nil || a.Key.IsZero() {
		return fmt.Errorf("%w: certificate or key is missing", ErrNotCA)
	}
	if !samePublicKey(a.Certificate.PublicKey, a.Key.Public()) {
		return fmt.Errorf("authority %q: %w", a.Certificate.Subject, ErrKeyMismatch)
	}
	for i, c := range append([]*x509.Certificate{a.Certificate}, a.Parents...) {
		if err := checkCA(c, now, below+i); err != nil {
			return err
		}
	}
	return nil
}

func checkCA(c *x509.Certificate, now time.Time, below int) error {
	if !c.BasicConstraintsValid || !c.IsCA {
		return fmt.Errorf("certificate %q: %w: basic constraints do not say CA:TRUE", c.Subject, ErrNotCA)
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("certificate %q: %w: key usage lacks certSign", c.Subject, ErrNotCA)
	}
	if limited := c.MaxPathLen > 0 || c.MaxPathLen == 0 && c.MaxPathLenZero; limited && c.MaxPathLen < below {
		return fmt.Errorf("certificate %q: %w: path length %d, at least %d is needed", c.Subject, ErrNotCA, c.MaxPathLen, below)
	}
	return checkTime(c, now)
}

func checkTime(c *x509.Certificate, now time.Time) error {
	if now.After(c.NotAfter) {
		return fmt.Errorf("certificate %q: %w: ended %s, now is %s", c.Subject, ErrExpired, stamp(c.NotAfter), stamp(now))
	}
	if now.Before(c.NotBefore) {
		return fmt.Errorf("certificate %q: %w: starts %s, now is %s; check the clock", c.Subject, ErrNotYetValid, stamp(c.NotBefore), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func isSelfSigned(c *x509.Certificate) bool {
	return c.CheckSignatureFrom(c) == nil
}

// Validity says when a certificate is to be valid. Zero members take the defaults of what is made; a negative Backdate
// means none.
type Validity struct {
	// Lifetime counts from now.
	Lifetime time.Duration
	// Backdate is subtracted from now for the start.
	Backdate time.Duration
}

// window is whole seconds, as certificates hold no finer ones, and never ends after limit (unless limit is zero).
func (v Validity) window(now time.Time, lifetime time.Duration, limit time.Time) (time.Time, time.Time, error) {
	if v.Lifetime != 0 {
		lifetime = v.Lifetime
	}
	if lifetime < time.Second {
		return time.Time{}, time.Time{}, fmt.Errorf("%w: %s; at least 1s is needed", ErrInvalidLifetime, lifetime)
	}
	back := max(v.Backdate, 0)
	if v.Backdate == 0 {
		back = Backdate
	}
	start, end := now.Add(-back).UTC().Truncate(time.Second), now.Add(lifetime).UTC().Truncate(time.Second)
	if !limit.IsZero() && end.After(limit) {
		end = limit.UTC()
	}
	return start, end, nil
}

// NewRoot makes the root of a mesh: self-signed, with room for one level of intermediates.
func NewRoot(random io.Reader, now time.Time, mesh string, v Validity) (Authority, error) {
	if err := checkLabel("mesh", mesh); err != nil {
		return Authority{}, err
	}
	return newSelfSigned(random, now, "mesh "+mesh, 1, v)
}

func newSelfSigned(random io.Reader, now time.Time, name string, pathLen int, v Validity) (Authority, error) {
	key, err := NewKey(random)
	if err != nil {
		return Authority{}, err
	}
	start, end, err := v.window(now, RootLifetime, time.Time{})
	if err != nil {
		return Authority{}, err
	}
	template := &x509.Certificate{
		Subject:               subject(name),
		NotBefore:             start,
		NotAfter:              end,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		MaxPathLenZero:        pathLen == 0,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := sign(random, template, template, key.Public(), key)
	if err != nil {
		return Authority{}, fmt.Errorf("root %q: %w", name, err)
	}
	a := Authority{Certificate: cert, Key: key}
	if err := a.check(now, pathLen); err != nil {
		return Authority{}, fmt.Errorf("root %q: %w", name, err)
	}
	return a, nil
}

// LoadRoot reads a provided root: the certificate that signs, then what stands above it up to and including the
// self-signed root, and the key of the first. Errors wrap ErrMalformed, ErrUnsupportedKey, ErrKeyMismatch, ErrNotCA,
// ErrExpired or ErrNotYetValid.
func LoadRoot(chainPEM, keyPEM []byte, now time.Time) (Authority, error) {
	a, err := LoadAuthority(chainPEM, keyPEM)
	if err != nil {
		return Authority{}, fmt.Errorf("provided root: %w", err)
	}
	if err := a.check(now, 1); err != nil {
		return Authority{}, fmt.Errorf("provided root: %w", err)
	}
	if a.Root() == nil {
		return Authority{}, fmt.Errorf("provided root: %w: the last certificate is not self-signed; append the chain up to the root", ErrNotCA)
	}
	return a, nil
}

// LoadAuthority reads a chain and the key of its first certificate, and checks that they fit together, but not times.
func LoadAuthority(chainPEM, keyPEM []byte) (Authority, error) {
	certs, err := ParseCertificates(chainPEM)
	if err != nil {
		return Authority{}, err
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return Authority{}, err
	}
	for _, c := range certs {
		if err := checkPublicKey(c.PublicKey); err != nil {
			return Authority{}, fmt.Errorf("certificate %q: %w", c.Subject, err)
		}
	}
	if !samePublicKey(certs[0].PublicKey, key.Public()) {
		return Authority{}, fmt.Errorf("certificate %q: %w; the key of the first certificate is needed", certs[0].Subject, ErrKeyMismatch)
	}
	for i := 1; i < len(certs); i++ {
		if err := certs[i-1].CheckSignatureFrom(certs[i]); err != nil {
			return Authority{}, fmt.Errorf("certificate %q: %w: not signed by the next one, %q: %w", certs[i-1].Subject, ErrNotCA, certs[i].Subject, err)
		}
	}
	return Authority{Certificate: certs[0], Parents: certs[1:], Key: key}, nil
}

// NewRequest makes the request (DER of PKCS#10) for the intermediate of a zone and mesh. It names the trust domain, so
// that a request can't be answered for another.
func NewRequest(random io.Reader, key Key, td TrustDomain) ([]byte, error) {
	if err := td.Validate(); err != nil {
		return nil, err
	}
	if key.IsZero() {
		return nil, fmt.Errorf("certificate request for %s: %w: the key is empty", td, ErrUnsupportedKey)
	}
	der, err := x509.CreateCertificateRequest(random, &x509.CertificateRequest{
		Subject: subject(td.String()), URIs: []*url.URL{td.URI()},
	}, key.Signer())
	if err != nil {
		return nil, fmt.Errorf("certificate request for %s: %w", td, err)
	}
	return der, nil
}

// SignIntermediate answers a request of NewRequest with the intermediate, then what stands between it and the root. The
// zone is what the caller authenticated; the request must prove possession of its key and name exactly that trust
// domain. All else in it is ignored. The result may sign for services of the trust domain only, for no DNS name, and never
// outlives the root.
func SignIntermediate(random io.Reader, now time.Time, root Authority, td TrustDomain, csr []byte, v Validity) ([]*x509.Certificate, error) {
	if err := td.Validate(); err != nil {
		return nil, err
	}
	pub, err := checkRequest(td, csr)
	if err != nil {
		return nil, err
	}
	if err := root.check(now, 1); err != nil {
		return nil, fmt.Errorf("intermediate for %s: %w", td, err)
	}
	start, end, err := v.window(now, IntermediateLifetime, root.notAfter())
	if err != nil {
		return nil, fmt.Errorf("intermediate for %s: %w", td, err)
	}
	template := &x509.Certificate{
		Subject:                     subject(td.String()),
		NotBefore:                   start,
		NotAfter:                    end,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, // the flag makes the whole extension critical, also without DNS names
		PermittedURIDomains:         []string{td.String()},
		// Envoy compares a principal with DNS names too, whatever they look like, and the URI constraint doesn't bind
		// them: so no DNS name at all. The empty name stands for every name.
		ExcludedDNSDomains: []string{""},
	}
	cert, err := sign(random, template, root.Certificate, pub, root.Key)
	if err != nil {
		return nil, fmt.Errorf("intermediate for %s: %w", td, err)
	}
	if err := checkIntermediate(cert, td, now); err != nil {
		return nil, fmt.Errorf("intermediate for %s: %w", td, err)
	}
	return append([]*x509.Certificate{cert}, root.Chain()...), nil
}

// LoadIntermediate reads what SignIntermediate answered, with the zone's key, and checks that it is for the trust domain,
// valid now, and that bundle trusts it.
func LoadIntermediate(chainPEM []byte, key Key, td TrustDomain, bundle Bundle, now time.Time) (Authority, error) {
	certs, err := ParseCertificates(chainPEM)
	if err != nil {
		return Authority{}, fmt.Errorf("intermediate for %s: %w", td, err)
	}
	a := Authority{Certificate: certs[0], Parents: certs[1:], Key: key}
	if err := a.check(now, 0); err != nil {
		return Authority{}, fmt.Errorf("intermediate for %s: %w", td, err)
	}
	if err := checkIntermediate(certs[0], td, now); err != nil {
		return Authority{}, fmt.Errorf("intermediate for %s: %w", td, err)
	}
	if err := bundle.verify(certs, now); err != nil {
		return Authority{}, fmt.Errorf("intermediate for %s: %w", td, err)
	}
	return a, nil
}

func checkIntermediate(c *x509.Certificate, td TrustDomain, now time.Time) error {
	if err := checkCA(c, now, 0); err != nil {
		return err
	}
	if !c.MaxPathLenZero || c.MaxPathLen != 0 {
		return fmt.Errorf("%w: path length is not 0", ErrNotCA)
	}
	if !c.PermittedDNSDomainsCritical || len(c.PermittedURIDomains) != 1 || c.PermittedURIDomains[0] != td.String() {
		return fmt.Errorf("%w: name constraint %q is not critical and exactly %q", ErrNotCA, c.PermittedURIDomains, td)
	}
	if len(c.ExcludedDNSDomains) != 1 || c.ExcludedDNSDomains[0] != "" {
		return fmt.Errorf("%w: its name constraint does not exclude every DNS name", ErrNotCA)
	}
	return nil
}

func checkRequest(td TrustDomain, der []byte) (crypto.PublicKey, error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w for %s: %w", ErrBadRequest, td, fmt.Errorf(format, args...))
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, refuse("%w: %w", ErrMalformed, err)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, refuse("no proof of possession of the key: %w", err)
	}
	if p, ok := req.PublicKey.(*ecdsa.PublicKey); !ok || p.Curve != elliptic.P256() {
		return nil, refuse("%w: %T; use ECDSA P-256", ErrUnsupportedKey, req.PublicKey)
	}
	if len(req.URIs) != 1 || req.URIs[0].String() != td.URI().String() {
		return nil, refuse("it must name %s alone, but names %v", td.URI(), req.URIs)
	}
	if len(req.DNSNames)+len(req.IPAddresses)+len(req.EmailAddresses) > 0 {
		return nil, refuse("it names hosts or addresses")
	}
	return req.PublicKey, nil
}

// subject bounds the common name to the 64 characters of RFC 5280 (ub-common-name). It is for people; nothing trusts it.
func subject(name string) pkix.Name {
	const limit = 64
	if len(name) > limit {
		name = name[:limit]
	}
	return pkix.Name{Organization: []string{"zoneforge"}, CommonName: name}
}

// sign gives the template a random serial of 127 bits, signs it and parses the result.
func sign(random io.Reader, template, parent *x509.Certificate, pub crypto.PublicKey, key Key) (*x509.Certificate, error) {
	var serial [16]byte
	if _, err := io.ReadFull(random, serial[:]); err != nil {
		return nil, fmt.Errorf("read randomness for the serial: %w", err)
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive and never zero (RFC 5280, 4.1.2.2)
	template.SerialNumber = new(big.Int).SetBytes(serial[:])
	der, err := x509.CreateCertificate(random, template, parent, pub, key.Signer())
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse what was signed: %w", err)
	}
	return cert, nil
}
