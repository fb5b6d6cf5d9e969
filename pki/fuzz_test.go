package pki

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"
)

// A zone's request is refused, or answered for the trust domain that global meant and for nothing more.
func FuzzSignIntermediate(f *testing.F) {
	now := time.Unix(1_700_000_000, 0)
	root, err := NewRoot(rand.Reader, now, "default", Validity{})
	if err != nil {
		f.Fatal(err)
	}
	bundle, err := NewBundle(root.Certificate)
	if err != nil {
		f.Fatal(err)
	}
	domain := func(zone string) TrustDomain {
		td, err := NewTrustDomain(zone, "default", "zoneforge")
		if err != nil {
			f.Fatal(err)
		}
		return td
	}
	key, err := NewKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, zone := range []string{"east", "west"} {
		csr, err := NewRequest(rand.Reader, key, domain(zone))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(csr)
	}
	f.Fuzz(func(t *testing.T, csr []byte) {
		chain, err := SignIntermediate(rand.Reader, now, root, domain("east"), csr, Validity{})
		if err != nil {
			return
		}
		if c := chain[0]; !slices.Equal(c.PermittedURIDomains, []string{domain("east").String()}) || len(c.URIs)+len(c.DNSNames)+len(c.IPAddresses) > 0 || c.MaxPathLen != 0 {
			t.Fatalf("signed for %v", c.PermittedURIDomains)
		}
		if !samePublicKey(chain[0].PublicKey, key.Public()) {
			return // of a key that the request proved, which is not the one here
		}
		if _, err := LoadIntermediate(EncodeCertificates(chain...), key, domain("east"), bundle, now); err != nil {
			t.Fatal(err)
		}
	})
}

// What global answers is refused, or an intermediate that can issue what the bundle proves.
func FuzzLoadIntermediate(f *testing.F) {
	now := time.Unix(1_700_000_000, 0)
	root, err := NewRoot(rand.Reader, now, "default", Validity{})
	if err != nil {
		f.Fatal(err)
	}
	td, err := NewTrustDomain("east", "default", "zoneforge")
	if err != nil {
		f.Fatal(err)
	}
	key, err := NewKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	csr, err := NewRequest(rand.Reader, key, td)
	if err != nil {
		f.Fatal(err)
	}
	chain, err := SignIntermediate(rand.Reader, now, root, td, csr, Validity{})
	if err != nil {
		f.Fatal(err)
	}
	bundle, err := NewBundle(root.Certificate)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(EncodeCertificates(chain...))
	f.Add(bundle.PEM())
	f.Fuzz(func(t *testing.T, chain []byte) {
		_, _ = ParseBundle(chain)
		a, err := LoadIntermediate(chain, key, td, bundle, now)
		if err == nil && !slices.Equal(a.Certificate.PermittedURIDomains, []string{td.String()}) {
			t.Fatalf("taken for %v", a.Certificate.PermittedURIDomains)
		}
	})
}
