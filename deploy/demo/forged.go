package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/pki"
	"github.com/zoneforge/zoneforge/zone/disk"
)

const domain = "zoneforge"

// checkForged steals the first zone's intermediate from its disk and signs two certificates with it: a true one, to show
// that the way works, and one that claims to be the edge of the second zone. Both knock at backend in the second zone,
// through that zone's ingress.
func (f *federation) checkForged(ctx context.Context) (string, error) {
	stolen, err := f.steal(f.first())
	if err != nil {
		return "", fmt.Errorf("steal the key: %w", err)
	}
	claim := func(zone string) (int, error) {
		id := fmt.Sprintf("spiffe://%s.%s.%s/%s", zone, mesh, domain, edge)
		certificate, err := forge(stolen, id)
		if err != nil {
			return 0, fmt.Errorf("forge: %w", err)
		}
		return f.knock(ctx, f.second(), "backend", certificate)
	}
	if status, err := claim(f.first().name); err != nil || status != http.StatusOK {
		return "", fmt.Errorf("a true certificate of %s: status %d, %w", f.first().name, status, errOr(err, "want 200"))
	}
	if status, err := claim(f.second().name); err == nil {
		return "", fmt.Errorf("%s's key posed as %s and was answered with status %d", f.first().name, f.second().name, status)
	}
	return fmt.Sprintf("%s's key cannot pose as %s", f.first().name, f.second().name), nil
}

func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

// steal reads the intermediate out of a copy of a running zone's data directory, as a thief of a backup would.
func (f *federation) steal(s site) (disk.Intermediate, error) {
	copied := f.path("stolen")
	defer os.RemoveAll(copied)
	if err := os.CopyFS(copied, os.DirFS(f.path(s.name))); err != nil {
		return disk.Intermediate{}, err
	}
	if err := os.Chmod(copied, 0o700); err != nil {
		return disk.Intermediate{}, err
	}
	store, err := disk.Open(copied)
	if err != nil {
		return disk.Intermediate{}, err
	}
	defer store.Close()
	intermediates, err := store.LoadIntermediates()
	if err != nil {
		return disk.Intermediate{}, err
	}
	for _, i := range intermediates {
		if i.Mesh == mesh {
			return i, nil
		}
	}
	return disk.Intermediate{}, fmt.Errorf("zone %s holds no intermediate of mesh %s", s.name, mesh)
}

// forge signs whatever it is asked to.
func forge(stolen disk.Intermediate, id string) (tls.Certificate, error) {
	if len(stolen.Chain) == 0 {
		return tls.Certificate{}, errors.New("the intermediate has no certificate")
	}
	issuer, err := x509.ParseCertificate(stolen.Chain[0])
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := pki.ParseKey(stolen.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	uri, err := url.Parse(id)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, URIs: []*url.URL{uri},
	}, issuer, leaf.Public(), key.Signer())
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: append([][]byte{der}, stolen.Chain...), PrivateKey: leaf}, nil
}

// knock sends a request to a service straight through a zone's ingress, with a certificate of the caller's choice.
func (f *federation) knock(ctx context.Context, s site, service string, certificate tls.Certificate) (int, error) {
	sni, err := ingress.Destination{Mesh: mesh, Service: service}.SNI()
	if err != nil {
		return 0, err
	}
	knocker := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address(s.ingress(), ingressPort))
		},
		// The thief does not care who answers; whether the thief is believed is what is tried.
		TLSClientConfig: &tls.Config{ServerName: sni, InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate}},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+service+"/", nil)
	if err != nil {
		return 0, err
	}
	resp, err := knocker.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode, err
}
