package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// ErrInvalidKey says that a signing or verification key can't be used.
var ErrInvalidKey = errors.New("invalid token key")

// SigningKey signs tokens of one purpose. It redacts itself wherever it is printed or marshalled; only Seed gives the
// secret out.
type SigningKey struct {
	id      string
	purpose Purpose
	private ed25519.PrivateKey
}

// NewSigningKey makes a key from 32 bytes of randomness; its identifier is random as well.
func NewSigningKey(random io.Reader, purpose Purpose) (SigningKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return SigningKey{}, fmt.Errorf("make %s signing key: %w", purpose, err)
	}
	id, err := NewID(random)
	if err != nil {
		return SigningKey{}, fmt.Errorf("make %s signing key: %w", purpose, err)
	}
	return LoadSigningKey(id, purpose, seed)
}

// LoadSigningKey takes what ID, Purpose and Seed gave out.
func LoadSigningKey(id string, purpose Purpose, seed []byte) (SigningKey, error) {
	if id == "" || len(id) > maxID {
		return SigningKey{}, fmt.Errorf("%w: the identifier must have 1 to %d bytes", ErrInvalidKey, maxID)
	}
	if !purpose.valid() {
		return SigningKey{}, fmt.Errorf("%w %q: purpose %q; use user, zone or dataplane", ErrInvalidKey, id, purpose)
	}
	if len(seed) != ed25519.SeedSize {
		return SigningKey{}, fmt.Errorf("%w %q: the seed has %d bytes, want %d", ErrInvalidKey, id, len(seed), ed25519.SeedSize)
	}
	return SigningKey{id: id, purpose: purpose, private: ed25519.NewKeyFromSeed(seed)}, nil
}

// ID is the kid.
func (k SigningKey) ID() string { return k.id }

// Purpose is what the key signs.
func (k SigningKey) Purpose() Purpose { return k.purpose }

// Seed gives the secret out, to be sealed; nil if the key is empty.
func (k SigningKey) Seed() []byte {
	if k.private == nil {
		return nil
	}
	return k.private.Seed()
}

// Verification is the public part.
func (k SigningKey) Verification() VerificationKey {
	v := VerificationKey{ID: k.id, Purpose: k.purpose}
	if k.private != nil {
		v.Public = append(ed25519.PublicKey(nil), k.private[ed25519.SeedSize:]...)
	}
	return v
}

// String redacts.
func (SigningKey) String() string { return redacted }

// GoString redacts.
func (SigningKey) GoString() string { return redacted }

// Format redacts for every verb.
func (SigningKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// MarshalJSON redacts.
func (SigningKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText redacts.
func (SigningKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// VerificationKey is the public part of a signing key.
type VerificationKey struct {
	ID      string
	Purpose Purpose
	// Public has 32 bytes.
	Public ed25519.PublicKey
}

// KeySet is the keys that are accepted; several of one purpose while keys are rotated. The zero value accepts none.
type KeySet struct {
	byID map[string]VerificationKey
}

// NewKeySet refuses keys of a wrong size, and two keys of one identifier.
func NewKeySet(keys ...VerificationKey) (KeySet, error) {
	s := KeySet{byID: make(map[string]VerificationKey, len(keys))}
	for _, k := range keys {
		if k.ID == "" || len(k.ID) > maxID {
			return KeySet{}, fmt.Errorf("%w: the identifier must have 1 to %d bytes", ErrInvalidKey, maxID)
		}
		if !k.Purpose.valid() {
			return KeySet{}, fmt.Errorf("%w %q: purpose %q; use user, zone or dataplane", ErrInvalidKey, k.ID, k.Purpose)
		}
		if len(k.Public) != ed25519.PublicKeySize {
			return KeySet{}, fmt.Errorf("%w %q: the public key has %d bytes, want %d", ErrInvalidKey, k.ID, len(k.Public), ed25519.PublicKeySize)
		}
		if _, ok := s.byID[k.ID]; ok {
			return KeySet{}, fmt.Errorf("%w %q: listed twice", ErrInvalidKey, k.ID)
		}
		s.byID[k.ID] = k
	}
	return s, nil
}

// NewID makes a random identifier of 128 bits for a token or key. It begins with no hyphen, or a command line would take it for a flag.
func NewID(random io.Reader) (string, error) {
	for {
		var b [16]byte
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", fmt.Errorf("make identifier: %w", err)
		}
		if id := base64.RawURLEncoding.EncodeToString(b[:]); id[0] != '-' {
			return id, nil
		}
	}
}
