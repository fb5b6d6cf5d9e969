package admission

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/zoneforge/zoneforge/pki/token"
)

// newTestRing gives a ring, and a token that is good by it.
func newTestRing(t testing.TB) (*bench, *ring, string) {
	t.Helper()
	b := newBench(t)
	r, err := b.admission.known()
	if err != nil {
		t.Fatal(err)
	}
	return b, r, b.token(nil)
}

func TestTokenIsVerifiedOnceByItsKeys(t *testing.T) {
	b, r, text := newTestRing(t)
	first, err := r.verify(text, clock)
	if err != nil {
		t.Fatal(err)
	}
	r.set = token.KeySet{} // none is good any more that was not before
	again, err := r.verify(text, clock)
	if err != nil || again.ID != first.ID || again.Mesh != first.Mesh {
		t.Errorf("got %+v, %v", again, err)
	}
	if _, err := r.verify(b.token(func(c *token.Claims) { c.ID = "other" }), clock); !errors.Is(err, token.ErrUnknownKey) {
		t.Errorf("another token: %v", err)
	}
	if len(r.verified) != 1 {
		t.Errorf("%d tokens are remembered, and one was good", len(r.verified))
	}
}

func TestRememberedTokenEnds(t *testing.T) {
	_, r, text := newTestRing(t)
	claims, err := r.verify(text, clock)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.verify(text, claims.ExpiresAt); !errors.Is(err, token.ErrExpired) {
		t.Errorf("got %v", err)
	}
}

func TestRememberedTokensAreBounded(t *testing.T) {
	_, r, text := newTestRing(t)
	for i := range maxVerified {
		var digest [32]byte
		binary.BigEndian.PutUint32(digest[:], uint32(i))
		r.verified[digest] = &token.Claims{}
	}
	if _, err := r.verify(text, clock); err != nil || len(r.verified) != 1 {
		t.Errorf("%d tokens are remembered: %v", len(r.verified), err)
	}
}

func BenchmarkVerifyAgain(b *testing.B) {
	_, r, text := newTestRing(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.verify(text, clock); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	_, r, text := newTestRing(b)
	b.ReportAllocs()
	for b.Loop() {
		clear(r.verified)
		if _, err := r.verify(text, clock); err != nil {
			b.Fatal(err)
		}
	}
}
