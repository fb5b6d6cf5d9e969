package admission

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
)

// maxVerified bounds the tokens that a ring remembers.
const maxVerified = 4096

// ring is one message of keys and revocations, and the tokens that were good by it: a stream's token is asked about twice, before its
// first request and with it, and replicas of a service may share one. Safe for concurrent use.
type ring struct {
	// Set once.
	message *federationv1.VerificationKeys
	set     token.KeySet
	revoked token.Revocations

	mu sync.Mutex
	// verified holds claims by the SHA-256 of the token that they were read from; guarded by mu. They are not changed.
	verified map[[sha256.Size]byte]*token.Claims
}

func newRing(message *federationv1.VerificationKeys) (*ring, error) {
	keys := make([]token.VerificationKey, 0, len(message.GetKeys()))
	for _, k := range message.GetKeys() {
		keys = append(keys, token.VerificationKey{ID: k.GetId(), Purpose: token.Dataplane, Public: k.GetEd25519()})
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		return nil, fmt.Errorf("%w: the keys of tokens that global sent can't be used: %w", ErrNotReady, err)
	}
	return &ring{
		message: message, set: set, revoked: token.NewRevocations(message.GetRevoked()...), verified: map[[sha256.Size]byte]*token.Claims{},
	}, nil
}

// verify is token.Verify. Of a token that was good by this ring, only its end can have come since.
func (r *ring) verify(bearer string, now time.Time) (*token.Claims, error) {
	digest := sha256.Sum256([]byte(bearer))
	r.mu.Lock()
	known := r.verified[digest]
	r.mu.Unlock()
	if known != nil && now.Before(known.ExpiresAt) {
		return known, nil
	}
	claims, err := token.Verify(bearer, token.Dataplane, r.set, r.revoked, now)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.verified) >= maxVerified {
		clear(r.verified)
	}
	r.verified[digest] = &claims
	return &claims, nil
}
