package peers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// lifetime of a replica's certificate, which is trusted by its fingerprint and made anew at each start.
const lifetime = 10 * 365 * 24 * time.Hour

var errStranger = errors.New("peer is no replica of this global: its certificate is not one that a replica has told of")

// newIdentity makes the certificate of this process, and its fingerprint.
func newIdentity(name string) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("peers: make a key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("peers: make a certificate: %w", err)
	}
	pin := sha256.Sum256(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pin[:], nil
}

func pinOf(s tls.ConnectionState) string {
	if len(s.PeerCertificates) == 0 {
		return ""
	}
	pin := sha256.Sum256(s.PeerCertificates[0].Raw)
	return string(pin[:])
}

// dialing trusts one certificate alone.
func (p *Peers) dialing(pin string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.identity},
		InsecureSkipVerify: true, // no name and no authority: the fingerprint says all, and is checked below
		VerifyConnection: func(s tls.ConnectionState) error {
			if pin == "" || pinOf(s) != pin {
				return errStranger
			}
			return nil
		},
	}
}

// serving trusts the certificates of the replicas that are alive.
func (p *Peers) serving() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.identity}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			known, _, _ := p.known()
			for name, t := range known {
				if name != p.cfg.Name && t.pin != "" && t.pin == pinOf(s) {
					return nil
				}
			}
			return errStranger
		},
	}
}
