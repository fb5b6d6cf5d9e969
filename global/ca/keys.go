package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	"github.com/zoneforge/zoneforge/resource"
)

var purposes = []token.Purpose{token.Dataplane, token.User, token.Zone}

// VerificationKeysKey is the key of the one VerificationKeys resource.
func VerificationKeysKey() resource.Key {
	return resource.Key{Kind: "VerificationKeys", Name: string(token.Dataplane)}
}

func signingKeyKey(name string) resource.Key { return resource.Key{Kind: "SigningKey", Name: name} }

func revokedKey(jti string) resource.Key { return resource.Key{Kind: "RevokedToken", Name: jti} }

// forgetAfter is how long after its end a revoked token is remembered.
const forgetAfter = 24 * time.Hour

// EnsureKeys makes one signing key for each purpose that has none, writes VerificationKeys where it is not up to date, and
// forgets revoked tokens that ended long ago, and zones that were removed even longer ago.
func (a *Authorities) EnsureKeys(ctx context.Context) error {
	err := a.converge(ctx, "signing keys of tokens", func(snap *store.Snapshot) ([]store.Op, error) {
		keys := signingKeys(snap)
		var ops []store.Op
		for _, p := range purposes {
			if slices.ContainsFunc(keys, func(k *federationv1.SigningKey) bool { return k.GetPurpose() == string(p) }) {
				continue
			}
			made, err := token.NewSigningKey(a.random, p)
			if err != nil {
				return nil, err
			}
			spec := &federationv1.SigningKey{
				Purpose: string(p), Id: made.ID(), Ed25519Public: made.Verification().Public, Created: timestamppb.New(a.now()),
				// In clear here: the kind is sensitive, so the store's Sealer seals the whole resource before it is written.
				SealedSeed: made.Seed(),
			}
			keys = append(keys, spec)
			// Named by purpose, so that two replicas can't both make the first one.
			ops = append(ops, put(snap, &resource.Resource{Key: signingKeyKey(string(p)), Spec: spec}))
		}
		if op, changed := verificationKeys(snap, keys, a.revoked(snap, token.Dataplane)); changed {
			ops = append(ops, op)
		}
		ops = append(ops, a.forgetRemoved(snap)...)
		for e := range snap.Each("RevokedToken", "") {
			if a.now().After(resource.Spec[*federationv1.RevokedToken](e.Resource).GetExpires().AsTime().Add(forgetAfter)) {
				ops = append(ops, store.Op{Key: e.Resource.Key, Delete: true, IfRevision: &e.Revision})
			}
		}
		return ops, nil
	})
	if err != nil {
		return fmt.Errorf("ca: signing keys: %w", err)
	}
	return nil
}

func signingKeys(snap *store.Snapshot) []*federationv1.SigningKey {
	var keys []*federationv1.SigningKey
	for e := range snap.Each("SigningKey", "") {
		keys = append(keys, resource.Spec[*federationv1.SigningKey](e.Resource))
	}
	return keys
}

// revoked are the jtis of a purpose that have not expired anyway, in order.
func (a *Authorities) revoked(snap *store.Snapshot, purpose token.Purpose) []string {
	var ids []string
	for e := range snap.Each("RevokedToken", "") {
		spec := resource.Spec[*federationv1.RevokedToken](e.Resource)
		// An hour more, for zones whose clocks are slow.
		if spec.GetPurpose() == string(purpose) && a.now().Before(spec.GetExpires().AsTime().Add(time.Hour)) {
			ids = append(ids, e.Resource.Name)
		}
	}
	return ids
}

// verificationKeys is what zones need of keys and revoked.
func verificationKeys(snap *store.Snapshot, keys []*federationv1.SigningKey, revoked []string) (store.Op, bool) {
	want := &federationv1.VerificationKeys{Revoked: revoked}
	for _, k := range keys {
		if k.GetPurpose() == string(token.Dataplane) {
			want.Keys = append(want.Keys, &federationv1.VerificationKey{Id: k.GetId(), Ed25519: k.GetEd25519Public()})
		}
	}
	slices.SortFunc(want.Keys, func(x, y *federationv1.VerificationKey) int { return slices.Compare([]byte(x.Id), []byte(y.Id)) })
	r := &resource.Resource{Key: VerificationKeysKey(), Spec: want}
	if e, ok := snap.Get(r.Key); ok {
		r.Labels = e.Resource.Labels
		if proto.Equal(e.Resource.Spec, want) {
			return store.Op{}, false
		}
	}
	return put(snap, r), true
}

// IssueToken signs a token of claims.Purpose that ends after ttl, with the newest key of the purpose. It sets the claims'
// identifier (unless given) and times, and gives the claims as they were signed. Errors wrap ErrNoKey, token.ErrMalformed or
// token.ErrInvalidKey.
func (a *Authorities) IssueToken(ctx context.Context, claims token.Claims, ttl time.Duration) (token.Token, token.Claims, error) {
	fail := func(format string, args ...any) (token.Token, token.Claims, error) {
		return token.Token{}, token.Claims{}, fmt.Errorf("ca: "+format, args...)
	}
	if err := ctx.Err(); err != nil {
		return token.Token{}, token.Claims{}, err
	}
	var newest *federationv1.SigningKey
	for _, k := range signingKeys(a.store.Snapshot()) {
		if k.GetPurpose() == string(claims.Purpose) &&
			(newest == nil || k.GetCreated().AsTime().After(newest.GetCreated().AsTime())) {
			newest = k
		}
	}
	if newest == nil {
		return fail("%w for tokens of purpose %q", ErrNoKey, claims.Purpose)
	}
	key, err := token.LoadSigningKey(newest.GetId(), claims.Purpose, newest.GetSealedSeed())
	if err != nil {
		return fail("signing key: %w", err)
	}
	if claims.ID == "" {
		if claims.ID, err = token.NewID(a.random); err != nil {
			return fail("%w", err)
		}
	}
	claims.IssuedAt = a.now().Truncate(time.Second)
	if removed, ok := removals(a.store.Snapshot())[claims.Zone]; ok && claims.Purpose == token.Zone && !claims.IssuedAt.After(removed) {
		claims.IssuedAt = removed.Truncate(time.Second).Add(time.Second) // as those before are refused
	}
	claims.ExpiresAt = claims.IssuedAt.Add(ttl).Truncate(time.Second)
	t, err := token.Sign(key, claims)
	if err != nil {
		return fail("issue token: %w", err)
	}
	return t, claims, nil
}

// Verifier verifies tokens of one purpose by the keys and revocations of one snapshot. Safe for concurrent use.
type Verifier struct {
	purpose token.Purpose
	keys    token.KeySet
	revoked token.Revocations
	// removed is when Zones were deleted; of a verifier of zones' tokens.
	removed map[string]time.Time
	now     func() time.Time
}

// Verifier is made from the current snapshot; take a new one for each request, or when the snapshot is stale.
func (a *Authorities) Verifier(purpose token.Purpose) (Verifier, error) {
	snap := a.store.Snapshot()
	var keys []token.VerificationKey
	for _, k := range signingKeys(snap) {
		if k.GetPurpose() == string(purpose) {
			keys = append(keys, token.VerificationKey{ID: k.GetId(), Purpose: purpose, Public: k.GetEd25519Public()})
		}
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		return Verifier{}, fmt.Errorf("ca: keys of %s tokens: %w", purpose, err)
	}
	v := Verifier{purpose: purpose, keys: set, revoked: token.NewRevocations(a.revoked(snap, purpose)...), now: a.now}
	if purpose == token.Zone {
		v.removed = removals(snap)
	}
	return v, nil
}

// Verify returns the claims of a token; errors are those of token.Verify.
func (v Verifier) Verify(text string) (token.Claims, error) {
	claims, err := token.Verify(text, v.purpose, v.keys, v.revoked, v.now())
	if err == nil {
		err = v.refusesRemoved(claims)
	}
	if err != nil {
		return token.Claims{}, err
	}
	return claims, nil
}

// Revoke refuses a token from now on; expires is the token's own end, after which nothing needs to be remembered.
// Revoking twice is no error. For dataplane tokens the zones learn of it by VerificationKeys, in the same change.
func (a *Authorities) Revoke(ctx context.Context, jti string, purpose token.Purpose, expires time.Time) error {
	if jti == "" || !slices.Contains(purposes, purpose) {
		return errors.New("ca: revoke: the token's identifier (jti) and its purpose (user, zone or dataplane) are needed")
	}
	err := a.converge(ctx, "revoke "+string(purpose)+" token", func(snap *store.Snapshot) ([]store.Op, error) {
		spec := &federationv1.RevokedToken{Purpose: string(purpose), Expires: timestamppb.New(expires)}
		var ops []store.Op
		if e, ok := snap.Get(revokedKey(jti)); !ok || !proto.Equal(e.Resource.Spec, spec) {
			ops = append(ops, put(snap, &resource.Resource{Key: revokedKey(jti), Spec: spec}))
		}
		if purpose == token.Dataplane {
			ids := a.revoked(snap, purpose)
			if !slices.Contains(ids, jti) {
				ids = append(ids, jti)
				slices.Sort(ids)
			}
			if op, changed := verificationKeys(snap, signingKeys(snap), ids); changed {
				ops = append(ops, op)
			}
		}
		return ops, nil
	})
	if err != nil {
		return fmt.Errorf("ca: revoke: %w", err)
	}
	return nil
}

// RevokeToken revokes a token that the caller holds, whatever its purpose. One that has expired or was revoked before needs
// nothing, and has no id. One that this federation did not sign is refused with an error that wraps one of the token package's.
func (a *Authorities) RevokeToken(ctx context.Context, text string) (id string, err error) {
	var failed error
	for _, purpose := range purposes {
		v, err := a.Verifier(purpose)
		if err != nil {
			return "", err
		}
		claims, err := v.Verify(text)
		switch {
		case err == nil:
			return claims.ID, a.Revoke(ctx, claims.ID, purpose, claims.ExpiresAt)
		case errors.Is(err, token.ErrExpired), errors.Is(err, token.ErrRevoked):
			return "", nil
		case failed == nil, errors.Is(failed, token.ErrUnknownKey):
			// A key that is known says more than one that is not.
			failed = err
		}
	}
	return "", fmt.Errorf("ca: revoke: %w", failed)
}
