// Package token signs and verifies the tokens by which users, zones and dataplanes prove who they are: JWTs signed with
// Ed25519 (RFC 7519, RFC 8037). It owns their claims and the order of checks; it never stores keys or revocations,
// reads no clock and does no I/O. All functions are safe for concurrent use.
package token

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var (
	// ErrMalformed says that a token is not a JWT signed with Ed25519, or that its claims make no sense.
	ErrMalformed = errors.New("malformed token")
	// ErrUnknownKey says that no key of the set has the token's key identifier.
	ErrUnknownKey = errors.New("token signed by an unknown key")
	// ErrSignature says that the signature is not by the key that the token names.
	ErrSignature = errors.New("wrong signature of token")
	// ErrWrongPurpose says that a token, or the key that signed it, is for another purpose.
	ErrWrongPurpose = errors.New("token is for another purpose")
	// ErrExpired says that a token's time is over.
	ErrExpired = errors.New("token has expired")
	// ErrRevoked says that a token was revoked.
	ErrRevoked = errors.New("token was revoked")
)

const (
	redacted = "(redacted)"
	issuer   = "zoneforge"
	// maxSize bounds what is parsed before anything is verified, in bytes.
	maxSize = 16 << 10
	// maxID bounds identifiers of tokens and keys, in bytes.
	maxID = 128
)

// Purpose is what a token is for. Each has its own audience and its own keys.
type Purpose string

// The purposes.
const (
	User      Purpose = "user"
	Zone      Purpose = "zone"
	Dataplane Purpose = "dataplane"
)

func (p Purpose) valid() bool { return p == User || p == Zone || p == Dataplane }

func (p Purpose) audience() string { return issuer + "/" + string(p) }

// Role is what a user may do.
type Role string

// The roles, the strongest first.
const (
	Admin  Role = "admin"
	Writer Role = "writer"
	Viewer Role = "viewer"
)

// Claims is what a token says. Which members are set depends on the purpose.
type Claims struct {
	Purpose Purpose
	// ID is the jti, by which a token is revoked.
	ID string
	// Key is the identifier of the key that signed the token; Verify sets it, and Sign doesn't look at it.
	Key string
	// IssuedAt and ExpiresAt are in whole seconds.
	IssuedAt  time.Time
	ExpiresAt time.Time

	// Subject names a user.
	Subject string
	// Role of a user.
	Role Role
	// Meshes that a user's role is limited to; empty means all.
	Meshes []string

	// Zone that a zone token is for, or that a dataplane token is limited to; a zone ingress's token always is.
	Zone string

	// Ingress makes a dataplane token one of a zone ingress, which serves all meshes: Zone is needed, and Mesh, Services
	// and Tags must be empty.
	Ingress bool
	// Mesh of a dataplane.
	Mesh string
	// Services that a dataplane may offer; empty means any of the mesh.
	Services []string
	// Tags that a dataplane must carry: for each key one of the values. Empty asks for none.
	Tags map[string][]string
}

// validate returns errors that wrap ErrMalformed.
func (c Claims) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	if c.ID == "" || len(c.ID) > maxID {
		return bad("jti must have 1 to %d bytes", maxID)
	}
	if c.IssuedAt.IsZero() || c.ExpiresAt.IsZero() {
		return bad("iat and exp are needed")
	}
	if !c.ExpiresAt.After(c.IssuedAt) {
		return bad("exp is not after iat")
	}
	user := c.Subject != "" || c.Role != "" || len(c.Meshes) > 0
	workload := c.Mesh != "" || len(c.Services) > 0 || len(c.Tags) > 0
	dataplane := workload || c.Ingress
	switch c.Purpose {
	case User:
		if c.Role != Admin && c.Role != Writer && c.Role != Viewer {
			return bad("role %q; use admin, writer or viewer", c.Role)
		}
		if dataplane || c.Zone != "" {
			return bad("a user token holds claims of another purpose")
		}
	case Zone:
		if c.Zone == "" {
			return bad("a zone token needs a zone")
		}
		if dataplane || user {
			return bad("a zone token holds claims of another purpose")
		}
	case Dataplane:
		if user {
			return bad("a dataplane token holds claims of another purpose")
		}
		if c.Ingress {
			if c.Zone == "" {
				return bad("the token of a zone ingress needs a zone")
			}
			if workload {
				return bad("the token of a zone ingress must name no mesh, services or tags")
			}
			break
		}
		if c.Mesh == "" {
			return bad("a dataplane token needs a mesh")
		}
		for k, values := range c.Tags {
			if k == "" || len(values) == 0 {
				return bad("tag %q has no values", k)
			}
		}
	default:
		return bad("purpose %q; use user, zone or dataplane", c.Purpose)
	}
	if slices.Contains(c.Meshes, "") || slices.Contains(c.Services, "") {
		return bad("an empty name is listed")
	}
	return nil
}

// payload is the JSON form.
type payload struct {
	jwt.RegisteredClaims
	Role     Role                `json:"role,omitempty"`
	Meshes   []string            `json:"meshes,omitempty"`
	Zone     string              `json:"zone,omitempty"`
	Ingress  bool                `json:"ingress,omitempty"`
	Mesh     string              `json:"mesh,omitempty"`
	Services []string            `json:"services,omitempty"`
	Tags     map[string][]string `json:"tags,omitempty"`
}

// Token is a signed token. It redacts itself wherever it is printed or marshalled; only Reveal gives it out.
type Token struct {
	text string
}

// Reveal gives the token out.
func (t Token) Reveal() string { return t.text }

// String redacts.
func (Token) String() string { return redacted }

// GoString redacts.
func (Token) GoString() string { return redacted }

// Format redacts for every verb.
func (Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// MarshalJSON redacts.
func (Token) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText redacts.
func (Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Sign makes a token. The key must be of the claims' purpose. Lists are sorted and lose repetitions; times are cut to
// seconds.
func Sign(key SigningKey, c Claims) (Token, error) {
	c.IssuedAt, c.ExpiresAt = c.IssuedAt.Truncate(time.Second), c.ExpiresAt.Truncate(time.Second)
	if err := c.validate(); err != nil {
		return Token{}, fmt.Errorf("sign %s token: %w", c.Purpose, err)
	}
	if key.private == nil {
		return Token{}, fmt.Errorf("sign %s token: %w: the signing key is empty", c.Purpose, ErrUnknownKey)
	}
	if key.purpose != c.Purpose {
		return Token{}, fmt.Errorf("sign %s token: %w: key %q signs %s tokens", c.Purpose, ErrWrongPurpose, key.id, key.purpose)
	}
	p := payload{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Subject: c.Subject, ID: c.ID, Audience: jwt.ClaimStrings{c.Purpose.audience()},
			IssuedAt: jwt.NewNumericDate(c.IssuedAt), ExpiresAt: jwt.NewNumericDate(c.ExpiresAt),
		},
		Role: c.Role, Zone: c.Zone, Ingress: c.Ingress, Mesh: c.Mesh, Meshes: sorted(c.Meshes), Services: sorted(c.Services), Tags: sortedTags(c.Tags),
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, p)
	t.Header["kid"] = key.id
	text, err := t.SignedString(key.private)
	if err != nil {
		return Token{}, fmt.Errorf("sign %s token: %w", c.Purpose, err)
	}
	if len(text) > maxSize {
		return Token{}, fmt.Errorf("sign %s token: %w: %d bytes, at most %d are allowed; list fewer names", c.Purpose, ErrMalformed, len(text), maxSize)
	}
	return Token{text: text}, nil
}

// Verify checks a token for a purpose. The checks come in the order form, key, signature, purpose, claims, end,
// revocation, so that nothing is said about the content of a token that we did not sign. Errors wrap exactly one of the
// package's sentinels and never quote the token. The caller compares zone and mesh with what it talks to.
func Verify(text string, want Purpose, keys KeySet, revoked Revocations, now time.Time) (Claims, error) {
	c, err := verify(text, want, keys, revoked, now)
	if err != nil {
		return Claims{}, fmt.Errorf("verify %s token: %w", want, err)
	}
	return c, nil
}

func verify(text string, want Purpose, keys KeySet, revoked Revocations, now time.Time) (Claims, error) {
	if len(text) > maxSize {
		return Claims{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrMalformed, len(text), maxSize)
	}
	var p payload
	var key VerificationKey
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
	_, err := parser.ParseWithClaims(text, &p, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		if kid == "" {
			return nil, fmt.Errorf("%w: no kid in the header", ErrMalformed)
		}
		var ok bool
		if key, ok = keys.byID[kid]; !ok {
			return nil, fmt.Errorf("%w: kid %.128q", ErrUnknownKey, kid)
		}
		return key.Public, nil
	})
	switch {
	case err == nil:
	case errors.Is(err, ErrMalformed):
		return Claims{}, fmt.Errorf("%w: no kid in the header", ErrMalformed)
	case errors.Is(err, ErrUnknownKey):
		// The parser decided on the key before; its own wrapping adds nothing for the reader.
		return Claims{}, fmt.Errorf("%w; it may have been rotated out, ask for a new token", ErrUnknownKey)
	case errors.Is(err, jwt.ErrTokenSignatureInvalid) && key.Public != nil:
		return Claims{}, fmt.Errorf("%w: kid %q", ErrSignature, key.ID)
	default:
		return Claims{}, fmt.Errorf("%w: not a JWT signed with EdDSA", ErrMalformed)
	}
	if key.Purpose != want {
		return Claims{}, fmt.Errorf("%w: its key %q signs %s tokens", ErrWrongPurpose, key.ID, key.Purpose)
	}
	if len(p.Audience) != 1 || p.Audience[0] != want.audience() {
		return Claims{}, fmt.Errorf("%w: audience %q, want %q", ErrWrongPurpose, p.Audience, want.audience())
	}
	if p.Issuer != issuer {
		return Claims{}, fmt.Errorf("%w: issuer %q, want %q", ErrMalformed, p.Issuer, issuer)
	}
	c := Claims{
		Purpose: want, ID: p.ID, Key: key.ID, Subject: p.Subject, Role: p.Role, Meshes: sorted(p.Meshes),
		Zone: p.Zone, Ingress: p.Ingress, Mesh: p.Mesh, Services: sorted(p.Services), Tags: sortedTags(p.Tags),
	}
	if p.IssuedAt != nil && p.ExpiresAt != nil {
		c.IssuedAt, c.ExpiresAt = p.IssuedAt.UTC(), p.ExpiresAt.UTC()
	}
	if err := c.validate(); err != nil {
		return Claims{}, err
	}
	if !now.Before(c.ExpiresAt) {
		return Claims{}, fmt.Errorf("%w: ended %s, now is %s", ErrExpired, c.ExpiresAt.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if revoked.Contains(c.ID) {
		return Claims{}, fmt.Errorf("%w: jti %q", ErrRevoked, c.ID)
	}
	return c, nil
}

// Contains is true if the set has a key of an identifier.
func (s KeySet) Contains(id string) bool {
	_, ok := s.byID[id]
	return ok
}

// AllowsMesh is true if a user's role holds in the mesh.
func (c Claims) AllowsMesh(mesh string) bool {
	return c.Purpose == User && (len(c.Meshes) == 0 || slices.Contains(c.Meshes, mesh))
}

// AllowsService is true if a dataplane may offer the service with the tags.
func (c Claims) AllowsService(mesh, zone, service string, tags map[string]string) bool {
	if c.Purpose != Dataplane || c.Ingress || c.Mesh != mesh || c.Zone != "" && c.Zone != zone {
		return false
	}
	if len(c.Services) > 0 && !slices.Contains(c.Services, service) {
		return false
	}
	for k, values := range c.Tags {
		if have, ok := tags[k]; !ok || !slices.Contains(values, have) {
			return false
		}
	}
	return true
}

// AllowsIngress is true if a proxy may be the zone's ingress.
func (c Claims) AllowsIngress(zone string) bool {
	return c.Purpose == Dataplane && c.Ingress && c.Zone == zone
}

func sorted(in []string) []string {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

func sortedTags(in map[string][]string) map[string][]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string][]string, len(in))
	for k, v := range in {
		out[k] = sorted(v)
	}
	return out
}

// Revocations is a set of jtis. The zero value is empty.
type Revocations struct {
	ids map[string]struct{}
}

// NewRevocations makes the set.
func NewRevocations(ids ...string) Revocations {
	r := Revocations{ids: make(map[string]struct{}, len(ids))}
	for _, id := range ids {
		r.ids[id] = struct{}{}
	}
	return r
}

// Contains is true of a revoked jti.
func (r Revocations) Contains(id string) bool {
	_, ok := r.ids[id]
	return ok
}
