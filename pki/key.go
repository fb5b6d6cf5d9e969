package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
)

var (
	// ErrMalformed says that PEM or DER could not be read.
	ErrMalformed = errors.New("malformed")
	// ErrKeyMismatch says that a private key does not belong to its certificate.
	ErrKeyMismatch = errors.New("private key does not belong to the certificate")
	// ErrUnsupportedKey says that a key is of a kind that proxies would refuse.
	ErrUnsupportedKey = errors.New("unsupported key")
)

const redacted = "(redacted)"

// Key is a private key. It redacts itself wherever it is printed or marshalled; only PEM and Signer give it out.
type Key struct {
	signer crypto.Signer
}

// NewKey makes an ECDSA P-256 key.
func NewKey(random io.Reader) (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return Key{}, fmt.Errorf("make key: %w", err)
	}
	return Key{signer: k}, nil
}

// ParseKey reads one private key in PEM: PKCS#8, SEC 1 or PKCS#1; ECDSA on P-256 or P-384, or RSA of at least 2048 bits.
// Errors wrap ErrMalformed or ErrUnsupportedKey and never quote the input.
func ParseKey(data []byte) (Key, error) {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return Key{}, fmt.Errorf("private key: %w: no PEM block of a private key", ErrMalformed)
		}
		data = rest
		var parsed any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			parsed, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return Key{}, fmt.Errorf("private key: %w: it is encrypted with a password; store it decrypted", ErrUnsupportedKey)
		default: // such as EC PARAMETERS, which openssl writes first
			continue
		}
		if err != nil {
			return Key{}, fmt.Errorf("private key: %w: %s block does not parse", ErrMalformed, block.Type)
		}
		signer, ok := parsed.(crypto.Signer)
		if !ok {
			return Key{}, fmt.Errorf("private key: %w: %T cannot sign", ErrUnsupportedKey, parsed)
		}
		if err := checkPublicKey(signer.Public()); err != nil {
			return Key{}, fmt.Errorf("private key: %w", err)
		}
		return Key{signer: signer}, nil
	}
}

// IsZero is true of a Key that holds nothing.
func (k Key) IsZero() bool { return k.signer == nil }

// Signer gives the key out for signing; nil if zero.
func (k Key) Signer() crypto.Signer { return k.signer }

// Public is nil if the key is zero.
func (k Key) Public() crypto.PublicKey {
	if k.signer == nil {
		return nil
	}
	return k.signer.Public()
}

// PEM gives the key out as PKCS#8.
func (k Key) PEM() ([]byte, error) {
	if k.signer == nil {
		return nil, fmt.Errorf("%w: the key is empty", ErrMalformed)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return nil, fmt.Errorf("marshal private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// String redacts.
func (Key) String() string { return redacted }

// GoString redacts.
func (Key) GoString() string { return redacted }

// Format redacts for every verb, also those that skip String.
func (Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// MarshalJSON redacts.
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText redacts.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// checkPublicKey refuses what Envoy's TLS library refuses by default, so that the failure is seen here and not there.
func checkPublicKey(pub crypto.PublicKey) error {
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		if p.Curve == elliptic.P256() || p.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("%w: ECDSA on %s; use P-256 or P-384", ErrUnsupportedKey, p.Curve.Params().Name)
	case *rsa.PublicKey:
		if p.N.BitLen() >= 2048 {
			return nil
		}
		return fmt.Errorf("%w: RSA of %d bits; use at least 2048", ErrUnsupportedKey, p.N.BitLen())
	}
	return fmt.Errorf("%w: %T; use ECDSA P-256", ErrUnsupportedKey, pub)
}

func samePublicKey(a, b crypto.PublicKey) bool {
	eq, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && eq.Equal(b)
}

// EncodeCertificates writes PEM in the order given.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// ParseCertificates reads one or more certificates in PEM and keeps their order. Errors wrap ErrMalformed.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("certificate %d: %w: found a PEM block of type %q, want only CERTIFICATE", len(out)+1, ErrMalformed, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w: %w", len(out)+1, ErrMalformed, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no certificate in PEM found", ErrMalformed)
	}
	return out, nil
}
