package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	"github.com/zoneforge/zoneforge/resource"
)

var (
	// ErrPurpose says that there are no tokens of a purpose.
	ErrPurpose = errors.New("no purpose of tokens")
	// ErrUnknownKey says that no signing key has an identifier.
	ErrUnknownKey = errors.New("no such signing key")
	// ErrKeyInUse says that a key can't be retired, as it signs.
	ErrKeyInUse = errors.New("the key signs new tokens")
	// ErrManyKeys says that a purpose has as many keys as it may have.
	ErrManyKeys = errors.New("too many signing keys")
)

// maxKeys bounds the signing keys of a purpose, as each token may be tried with any.
const maxKeys = 8

// RotateKey makes a signing key that signs the tokens of a purpose from now on, and gives its identifier. Tokens of the keys before
// stay good until those are retired. Zones are given the new one in the same change. Errors wrap ErrPurpose, ErrManyKeys or what
// the store gave.
func (a *Authorities) RotateKey(ctx context.Context, purpose token.Purpose) (id string, err error) {
	if !slices.Contains(purposes, purpose) {
		return "", fmt.Errorf("ca: rotate signing key: %w: %q; use one of %v", ErrPurpose, purpose, purposes)
	}
	made, err := token.NewSigningKey(a.random, purpose)
	if err != nil {
		return "", fmt.Errorf("ca: rotate signing key: %w", err)
	}
	err = a.converge(ctx, "rotate signing key of "+string(purpose)+" tokens", func(snap *store.Snapshot) ([]store.Op, error) {
		keys := signingKeys(snap)
		// The newest signs, whatever the clocks of replicas say.
		created, n := a.now(), 0
		for _, k := range keys {
			if k.GetPurpose() != string(purpose) {
				continue
			}
			n++
			if at := k.GetCreated().AsTime(); !created.After(at) {
				created = at.Add(time.Nanosecond)
			}
		}
		if n >= maxKeys {
			return nil, fmt.Errorf("%w: %s tokens have %d; retire one first", ErrManyKeys, purpose, n)
		}
		spec := &federationv1.SigningKey{
			Purpose: string(purpose), Id: made.ID(), Ed25519Public: made.Verification().Public, Created: timestamppb.New(created),
			// In clear here: the kind is sensitive, so the store's Sealer seals the whole resource before it is written.
			SealedSeed: made.Seed(),
		}
		ops := []store.Op{put(snap, &resource.Resource{Key: signingKeyKey(string(purpose) + "." + made.ID()), Spec: spec})}
		if op, changed := verificationKeys(snap, append(keys, spec), a.revoked(snap, token.Dataplane)); changed {
			ops = append(ops, op)
		}
		return ops, nil
	})
	if err != nil {
		return "", fmt.Errorf("ca: rotate signing key: %w", err)
	}
	return made.ID(), nil
}

// RetireKey deletes a signing key, so that no token that it signed is good any more; zones learn it in the same change. Errors
// wrap ErrUnknownKey, ErrKeyInUse or what the store gave.
func (a *Authorities) RetireKey(ctx context.Context, id string) error {
	err := a.converge(ctx, "retire signing key "+id, func(snap *store.Snapshot) ([]store.Op, error) {
		var gone *store.Entry
		var rest []*federationv1.SigningKey
		for e := range snap.Each("SigningKey", "") {
			if spec := resource.Spec[*federationv1.SigningKey](e.Resource); spec.GetId() == id {
				gone = &e
			} else {
				rest = append(rest, spec)
			}
		}
		if gone == nil {
			return nil, fmt.Errorf("%w: %q", ErrUnknownKey, id)
		}
		retired := resource.Spec[*federationv1.SigningKey](gone.Resource)
		if !slices.ContainsFunc(rest, func(k *federationv1.SigningKey) bool {
			return k.GetPurpose() == retired.GetPurpose() && k.GetCreated().AsTime().After(retired.GetCreated().AsTime())
		}) {
			return nil, fmt.Errorf("%w of purpose %s; rotate it first", ErrKeyInUse, retired.GetPurpose())
		}
		ops := []store.Op{{Key: gone.Resource.Key, Delete: true, IfRevision: &gone.Revision}}
		if op, changed := verificationKeys(snap, rest, a.revoked(snap, token.Dataplane)); changed {
			ops = append(ops, op)
		}
		return ops, nil
	})
	if err != nil {
		return fmt.Errorf("ca: retire signing key: %w", err)
	}
	return nil
}
