package ca

import (
	"errors"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	"github.com/zoneforge/zoneforge/resource"
)

// TestSigningKeysRotate issues tokens across a rotation: the former key's stay good until it is retired, and no others end with it.
func TestSigningKeysRotate(t *testing.T) {
	s, _ := newStore(t)
	a := newAuthorities(t, s) // with a clock that stands still
	ctx := testContext(t)
	if err := a.EnsureKeys(ctx); err != nil {
		t.Fatal(err)
	}
	issue := func(p token.Purpose) string {
		t.Helper()
		issued, _, err := a.IssueToken(ctx, token.Claims{Purpose: p, Mesh: map[token.Purpose]string{token.Dataplane: "m"}[p], Zone: map[token.Purpose]string{token.Zone: "east"}[p],
			Role: map[token.Purpose]token.Role{token.User: token.Admin}[p]}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return issued.Reveal()
	}
	verify := func(text string, p token.Purpose) error {
		t.Helper()
		v, err := a.Verifier(p)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(text)
		return err
	}
	given := func() (ids []string) {
		t.Helper()
		e, ok := s.Snapshot().Get(VerificationKeysKey())
		if !ok {
			t.Fatal("zones are given no keys")
		}
		for _, k := range resource.Spec[*federationv1.VerificationKeys](e.Resource).GetKeys() {
			ids = append(ids, k.GetId())
		}
		return ids
	}
	for _, p := range purposes {
		var first string
		for e := range s.Snapshot().Each("SigningKey", "") {
			if k := resource.Spec[*federationv1.SigningKey](e.Resource); k.GetPurpose() == string(p) {
				first = k.GetId()
			}
		}
		before := issue(p)
		if err := a.RetireKey(ctx, first); !errors.Is(err, ErrKeyInUse) {
			t.Errorf("%s: the only key is retired: %v", p, err)
		}
		second, err := a.RotateKey(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.RetireKey(ctx, second); !errors.Is(err, ErrKeyInUse) {
			t.Errorf("%s: the key that signs is retired: %v", p, err)
		}
		after := issue(p)
		if err := errors.Join(verify(before, p), verify(after, p)); err != nil {
			t.Errorf("%s: while both keys are there: %v", p, err)
		}
		if want := map[bool]int{true: 2, false: 1}[p == token.Dataplane]; len(given()) != want {
			t.Errorf("%s: zones are given %d keys, want %d", p, len(given()), want)
		}
		if err := a.RetireKey(ctx, first); err != nil {
			t.Fatal(err)
		}
		if err := verify(before, p); !errors.Is(err, token.ErrUnknownKey) {
			t.Errorf("%s: a token of the retired key: %v", p, err)
		}
		if err := verify(after, p); err != nil {
			t.Errorf("%s: a token of the key that stays: %v", p, err)
		}
		if p == token.Dataplane && (len(given()) != 1 || given()[0] != second) {
			t.Errorf("zones are given %v, want %s", given(), second)
		}
		if err := a.RetireKey(ctx, first); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("%s: it is retired twice: %v", p, err)
		}
	}
	// A start finds nothing to make.
	at := s.Snapshot().Revision()
	if err := a.EnsureKeys(ctx); err != nil || s.Snapshot().Revision() != at {
		t.Errorf("keys are made again: %v", err)
	}
	for range maxKeys - 1 {
		if _, err := a.RotateKey(ctx, token.User); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.RotateKey(ctx, token.User); !errors.Is(err, ErrManyKeys) {
		t.Errorf("one key too many: %v", err)
	}
	if _, err := a.RotateKey(ctx, "king"); !errors.Is(err, ErrPurpose) {
		t.Errorf("keys for kings: %v", err)
	}
}
