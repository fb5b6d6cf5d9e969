package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

var clock = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func newZone(t *testing.T, root Authority, zone string) (Authority, TrustDomain) {
	t.Helper()
	td := must(NewTrustDomain(zone, "default", "mesh.local"))(t)
	key := must(NewKey(rand.Reader))(t)
	csr := must(NewRequest(rand.Reader, key, td))(t)
	chain := must(SignIntermediate(rand.Reader, clock, root, td, csr, Validity{}))(t)
	bundle := must(NewBundle(root.Root()))(t)
	return must(LoadIntermediate(EncodeCertificates(chain...), key, td, bundle, clock))(t), td
}

func newRoot(t *testing.T) Authority {
	t.Helper()
	return must(NewRoot(rand.Reader, clock, "default", Validity{}))(t)
}

func TestChain(t *testing.T) {
	root := newRoot(t)
	r := root.Certificate
	if r.MaxPathLen != 1 || r.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || r.Subject.CommonName != "mesh default" ||
		!r.NotAfter.Equal(clock.Add(RootLifetime)) || !r.NotBefore.Equal(clock.Add(-Backdate)) {
		t.Errorf("root: path length %d, usage %b, %s, %s to %s", r.MaxPathLen, r.KeyUsage, r.Subject, r.NotBefore, r.NotAfter)
	}
	east, td := newZone(t, root, "east")
	if got := east.Certificate.NotAfter; !got.Equal(clock.Add(30 * 24 * time.Hour)) {
		t.Errorf("intermediate ends %s", got)
	}
	id := ID{TrustDomain: td, Service: "back_end.v1"}
	s := must(NewSVID(rand.Reader, clock, east, id, Validity{}))(t)
	leaf := s.Chain[0]
	if len(s.Chain) != 2 || len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://east.default.mesh.local/back_end.v1" {
		t.Errorf("chain of %d, URIs %v", len(s.Chain), leaf.URIs)
	}
	if !leaf.NotAfter.Equal(clock.Add(24*time.Hour)) || !leaf.NotBefore.Equal(clock.Add(-Backdate)) {
		t.Errorf("leaf from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	bundle := must(NewBundle(root.Certificate))(t)
	chain := must(ParseCertificates(s.ChainPEM()))(t)
	if got := must(Verify(chain, bundle, clock))(t); got != id {
		t.Errorf("verified %s, want %s", got, id)
	}
	_, err := Verify(chain, bundle, clock.Add(25*time.Hour))
	wantErr(t, err, ErrExpired)
	_, err = Verify(chain, bundle, clock.Add(-Backdate-time.Minute))
	wantErr(t, err, ErrNotYetValid)
	_, err = Verify(chain, must(NewBundle(newRoot(t).Certificate))(t), clock)
	wantErr(t, err, ErrUntrusted)
	_, err = Verify(nil, bundle, clock)
	wantErr(t, err, ErrMalformed)
	_, err = Verify(chain[:1], bundle, clock)
	wantErr(t, err, ErrUntrusted)
	_, err = Verify(chain[1:], bundle, clock)
	wantErr(t, err, ErrUntrusted)
}

func TestNothingOutlivesItsIssuer(t *testing.T) {
	root := must(NewRoot(rand.Reader, clock, "default", Validity{Lifetime: time.Hour}))(t)
	east, td := newZone(t, root, "east")
	s := must(NewSVID(rand.Reader, clock, east, ID{TrustDomain: td, Service: "a"}, Validity{}))(t)
	for _, c := range s.Chain {
		if !c.NotAfter.Equal(clock.Add(time.Hour)) {
			t.Errorf("%s ends %s, the root %s", c.Subject, c.NotAfter, root.Certificate.NotAfter)
		}
	}
	_, err := NewSVID(rand.Reader, clock.Add(2*time.Hour), east, s.ID, Validity{})
	wantErr(t, err, ErrExpired)
}

// A thief of one zone's key signs for another zone, past NewSVID's own check.
func TestForgedLeafIsRefused(t *testing.T) {
	root := newRoot(t)
	east, _ := newZone(t, root, "east")
	for _, forged := range []string{
		"spiffe://west.default.mesh.local/backend",
		"spiffe://east.other.mesh.local/backend",
		"spiffe://x.east.default.mesh.local/backend", // Go's constraint covers it, ours does not
	} {
		t.Run(forged, func(t *testing.T) {
			u := must(url.Parse(forged))(t)
			key := must(NewKey(rand.Reader))(t)
			leaf := must(sign(rand.Reader, &x509.Certificate{
				NotBefore: clock, NotAfter: clock.Add(time.Hour), URIs: []*url.URL{u}, BasicConstraintsValid: true,
				KeyUsage:    x509.KeyUsageDigitalSignature,
				ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			}, east.Certificate, key.Public(), east.Key))(t)
			_, err := Verify([]*x509.Certificate{leaf, east.Certificate}, must(NewBundle(root.Certificate))(t), clock)
			wantErr(t, err, ErrUntrusted)
			if strings.HasPrefix(forged, "spiffe://x.") {
				return
			}
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			roots.AddCert(root.Certificate)
			between.AddCert(east.Certificate)
			_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: clock})
			var invalid x509.CertificateInvalidError
			if !errors.As(err, &invalid) || invalid.Reason != x509.CANotAuthorizedForThisName {
				t.Errorf("x509 says %v", err)
			}
		})
	}
	// Envoy's RBAC takes DNS names for principals: a URI of the own zone must not carry the other's ID in beside it.
	key := must(NewKey(rand.Reader))(t)
	leaf := must(sign(rand.Reader, &x509.Certificate{
		NotBefore: clock, NotAfter: clock.Add(time.Hour), URIs: []*url.URL{must(url.Parse("spiffe://east.default.mesh.local/a"))(t)},
		DNSNames: []string{"west.default.mesh.local"}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, east.Certificate, key.Public(), east.Key))(t)
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root.Certificate)
	between.AddCert(east.Certificate)
	var invalid x509.CertificateInvalidError
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: clock, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if !errors.As(err, &invalid) || invalid.Reason != x509.CANotAuthorizedForThisName {
		t.Errorf("x509 says of a DNS name: %v", err)
	}
	id := ID{TrustDomain{"west", "default", "mesh.local"}, "backend"}
	_, err = NewSVID(rand.Reader, clock, east, id, Validity{})
	wantErr(t, err, ErrNotCA)
}

func TestZoneCannotMakeAuthorities(t *testing.T) {
	root := newRoot(t)
	east, td := newZone(t, root, "east")
	key := must(NewKey(rand.Reader))(t)
	csr := must(NewRequest(rand.Reader, key, td))(t)
	_, err := SignIntermediate(rand.Reader, clock, east, td, csr, Validity{})
	wantErr(t, err, ErrNotCA)
}

func TestRequests(t *testing.T) {
	root := newRoot(t)
	td := must(NewTrustDomain("east", "default", "mesh.local"))(t)
	west := must(NewTrustDomain("west", "default", "mesh.local"))(t)
	key := must(NewKey(rand.Reader))(t)
	good := must(NewRequest(rand.Reader, key, td))(t)
	tampered := bytes.Clone(good)
	tampered[len(tampered)-1] ^= 1
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	for name, csr := range map[string][]byte{
		"empty":        nil,
		"garbage":      []byte("garbage"),
		"signature":    tampered,
		"other zone":   must(NewRequest(rand.Reader, key, west))(t),
		"no name":      must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key.Signer()))(t),
		"host name":    must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{td.URI()}, DNSNames: []string{"a"}}, key.Signer()))(t),
		"kind of key":  must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{td.URI()}}, p384))(t),
		"with a leaf ": must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{ID{td, "a"}.URI()}}, key.Signer()))(t),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := SignIntermediate(rand.Reader, clock, root, td, csr, Validity{})
			wantErr(t, err, ErrBadRequest)
		})
	}
	_, err := SignIntermediate(rand.Reader, clock, root, td, good, Validity{Lifetime: -time.Hour})
	wantErr(t, err, ErrInvalidLifetime)
	_, err = SignIntermediate(rand.Reader, clock, root, td, good, Validity{})
	if err != nil {
		t.Fatal(err)
	}
}

// Root, intermediate and SVID are made by three clocks, of which each is right or an hour wrong, and so is that of who checks them.
func TestClocksMayBeAnHourWrong(t *testing.T) {
	wrong := []time.Duration{-time.Hour, 0, time.Hour}
	for _, global := range wrong {
		root := must(NewRoot(rand.Reader, clock.Add(global), "default", Validity{}))(t)
		bundle := must(NewBundle(root.Certificate))(t)
		for _, zone := range wrong {
			key := must(NewKey(rand.Reader))(t)
			td := must(NewTrustDomain("east", "default", "local"))(t)
			csr := must(NewRequest(rand.Reader, key, td))(t)
			signed := must(SignIntermediate(rand.Reader, clock.Add(global), root, td, csr, Validity{}))(t)
			east := must(LoadIntermediate(EncodeCertificates(signed...), key, td, bundle, clock.Add(zone)))(t)
			s := must(NewSVID(rand.Reader, clock.Add(zone), east, ID{TrustDomain: td, Service: "web"}, Validity{}))(t)
			for _, peer := range wrong {
				if _, err := Verify(s.Chain, bundle, clock.Add(peer)); err != nil {
					t.Errorf("global by %s, zone by %s, peer by %s: %v", global, zone, peer, err)
				}
			}
		}
	}
}

func TestLoadRoot(t *testing.T) {
	root, other := newRoot(t), newRoot(t)
	east, _ := newZone(t, root, "east")
	keyPEM := must(root.Key.PEM())(t)
	certPEM := EncodeCertificates(root.Certificate)
	got := must(LoadRoot(certPEM, keyPEM, clock))(t)
	if !got.Certificate.Equal(root.Certificate) || got.Root() == nil || len(got.Chain()) != 0 {
		t.Errorf("loaded %v", got.Certificate.Subject)
	}
	edKey := must(x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, 32))))(t)
	for name, c := range map[string]struct {
		cert, key []byte
		now       time.Time
		want      error
	}{
		"no certificate": {nil, keyPEM, clock, ErrMalformed},
		"no key":         {certPEM, nil, clock, ErrMalformed},
		"swapped":        {keyPEM, certPEM, clock, ErrMalformed},
		"broken":         {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), keyPEM, clock, ErrMalformed},
		"other key":      {certPEM, must(other.Key.PEM())(t), clock, ErrKeyMismatch},
		"expired":        {certPEM, keyPEM, clock.Add(2 * RootLifetime), ErrExpired},
		"early":          {certPEM, keyPEM, clock.Add(-Backdate - time.Hour), ErrNotYetValid},
		"intermediate":   {EncodeCertificates(east.Certificate, root.Certificate), must(east.Key.PEM())(t), clock, ErrNotCA},
		"unrelated":      {EncodeCertificates(root.Certificate, east.Certificate), keyPEM, clock, ErrNotCA},
		"ed25519":        {certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: edKey}), clock, ErrUnsupportedKey},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadRoot(c.cert, c.key, c.now)
			wantErr(t, err, c.want)
		})
	}
}

func TestBundleWhileRotating(t *testing.T) {
	old, next := newRoot(t), newRoot(t)
	both := must(NewBundle(old.Certificate, next.Certificate, old.Certificate))(t)
	if len(both.Roots()) != 2 {
		t.Errorf("%d roots", len(both.Roots()))
	}
	parsed := must(ParseBundle(both.PEM()))(t)
	if !bytes.Equal(parsed.PEM(), both.PEM()) {
		t.Error("bundle changed in PEM")
	}
	for _, root := range []Authority{old, next} {
		east, td := newZone(t, root, "east")
		s := must(NewSVID(rand.Reader, clock, east, ID{td, "a"}, Validity{}))(t)
		must(Verify(s.Chain, both, clock))(t)
	}
	east, td := newZone(t, old, "east")
	s := must(NewSVID(rand.Reader, clock, east, ID{td, "a"}, Validity{}))(t)
	_, err := NewBundle(s.Chain[0])
	wantErr(t, err, ErrNotCA)
	_, err = ParseBundle([]byte("nothing"))
	wantErr(t, err, ErrMalformed)
}

func TestThresholds(t *testing.T) {
	const day = 24 * time.Hour
	of := func(life time.Duration) Window { return Window{clock, clock.Add(life)} }
	for name, c := range map[string]struct {
		th     Thresholds
		window Window
		want   time.Duration
	}{
		"root of ten years":    {RootThresholds(), of(3650 * day), 3560 * day},
		"root of two months":   {RootThresholds(), of(60 * day), 30 * day},
		"intermediate":         {IntermediateThresholds(), of(30 * day), 15 * day},
		"intermediate of hour": {IntermediateThresholds(), of(time.Hour), 30 * time.Minute},
	} {
		if got := c.th.PrepareAt(c.window); !got.Equal(clock.Add(c.want)) {
			t.Errorf("%s: %s, want %s", name, got, clock.Add(c.want))
		}
	}
}

func TestServerCertificate(t *testing.T) {
	ca := must(NewServerAuthority(rand.Reader, clock, "global", Validity{}))(t)
	hosts := []string{"global.example.com", "127.0.0.1", "::1", "*.zones.example.com", "127.0.0.1"}
	s := must(NewServerCertificate(rand.Reader, clock, ca, hosts, Validity{}))(t)
	if missing := s.MissingHosts(append(hosts, "other", "127.0.0.2")); fmt.Sprint(missing) != "[other 127.0.0.2]" {
		t.Errorf("missing %v", missing)
	}
	w := WindowOf(s.Chain[0])
	if NeedsRenewal(w, clock.Add(ServerLifetime/2)) || !NeedsRenewal(w, clock.Add(ServerLifetime*3/4)) || !NeedsRenewal(w, clock.Add(2*ServerLifetime)) {
		t.Error("renewal is not in the last third")
	}
	for _, bad := range [][]string{nil, {""}, {"a b"}, {"a..b"}, {"a/b"}} {
		_, err := NewServerCertificate(rand.Reader, clock, ca, bad, Validity{})
		wantErr(t, err, ErrInvalidHost)
	}
}

func TestKeyRedacts(t *testing.T) {
	root := newRoot(t)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%q"} {
		if got := fmt.Sprintf(format, root.Key); got != redacted {
			t.Errorf("%s prints %s", format, got)
		}
	}
	if got := string(must(json.Marshal(root.Key))(t)); got != `"(redacted)"` {
		t.Errorf("JSON %s", got)
	}
}
