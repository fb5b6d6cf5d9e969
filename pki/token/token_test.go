package token

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var clock = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB, p Purpose) SigningKey {
	t.Helper()
	k, err := NewSigningKey(rand.Reader, p)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keySet(t testing.TB, keys ...SigningKey) KeySet {
	t.Helper()
	var public []VerificationKey
	for _, k := range keys {
		public = append(public, k.Verification())
	}
	s, err := NewKeySet(public...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func claims(p Purpose) Claims {
	c := Claims{Purpose: p, ID: "jti-1", IssuedAt: clock, ExpiresAt: clock.Add(time.Hour)}
	switch p {
	case User:
		c.Subject, c.Role, c.Meshes = "ann", Writer, []string{"a", "b"}
	case Zone:
		c.Zone = "east"
	case Dataplane:
		c.Mesh, c.Zone, c.Services, c.Tags = "default", "east", []string{"backend"}, map[string][]string{"version": {"v1", "v2"}}
	}
	return c
}

func sign(t testing.TB, k SigningKey, c Claims) string {
	t.Helper()
	tok, err := Sign(k, c)
	if err != nil {
		t.Fatal(err)
	}
	return tok.Reveal()
}

func TestRoundTrip(t *testing.T) {
	for _, p := range []Purpose{User, Zone, Dataplane} {
		k := newKey(t, p)
		loaded, err := LoadSigningKey(k.ID(), k.Purpose(), k.Seed())
		if err != nil {
			t.Fatal(err)
		}
		text := sign(t, loaded, claims(p))
		if text != sign(t, k, claims(p)) {
			t.Errorf("%s: two signings differ", p)
		}
		got, err := Verify(text, p, keySet(t, newKey(t, p), k), NewRevocations("jti-2"), clock)
		want := claims(p)
		want.Key = k.ID()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", p, got, err)
		}
	}
}

func ingressClaims() Claims {
	c := claims(Dataplane)
	c.Ingress, c.Mesh, c.Services, c.Tags = true, "", nil, nil
	return c
}

func TestIngressToken(t *testing.T) {
	k := newKey(t, Dataplane)
	got, err := Verify(sign(t, k, ingressClaims()), Dataplane, keySet(t, k), Revocations{}, clock)
	want := ingressClaims()
	want.Key = k.ID()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	if !got.AllowsIngress("east") || got.AllowsIngress("west") || got.AllowsIngress("") || claims(Dataplane).AllowsIngress("east") || claims(Zone).AllowsIngress("east") {
		t.Error("AllowsIngress")
	}
	if got.AllowsService("", "east", "backend", nil) || got.AllowsService("default", "east", "backend", nil) {
		t.Error("a zone ingress's token offers a service")
	}
	for name, change := range map[string]func(*Claims){
		"no zone":  func(c *Claims) { c.Zone = "" },
		"mesh":     func(c *Claims) { c.Mesh = "default" },
		"services": func(c *Claims) { c.Services = []string{"a"} },
		"tags":     func(c *Claims) { c.Tags = map[string][]string{"a": {"b"}} },
		"role":     func(c *Claims) { c.Role = Admin },
	} {
		c := ingressClaims()
		change(&c)
		if _, err := Sign(k, c); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, p := range []Purpose{User, Zone} {
		c := claims(p)
		c.Ingress = true
		if _, err := Sign(newKey(t, p), c); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// handMade signs what Sign would refuse to.
func handMade(t *testing.T, k SigningKey, method jwt.SigningMethod, key any, kid any, p jwt.Claims) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, p)
	if kid != nil {
		tok.Header["kid"] = kid
	}
	text, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRefused(t *testing.T) {
	zone, user := newKey(t, Zone), newKey(t, User)
	keys := keySet(t, zone, user)
	good := sign(t, zone, claims(Zone))
	parts := strings.Split(good, ".")
	impostor, err := LoadSigningKey(zone.ID(), Zone, newKey(t, Zone).Seed())
	if err != nil {
		t.Fatal(err)
	}
	content := func(change func(jwt.MapClaims)) jwt.MapClaims {
		m := jwt.MapClaims{"iss": "zoneforge", "aud": "zoneforge/zone", "jti": "j", "zone": "east", "iat": clock.Unix(), "exp": clock.Add(time.Hour).Unix()}
		change(m)
		return m
	}
	same := content(func(jwt.MapClaims) {})
	ed := jwt.SigningMethodEdDSA
	if _, err := Verify(handMade(t, zone, ed, zone.private, zone.id, same), Zone, keys, Revocations{}, clock); err != nil {
		t.Fatalf("the unchanged one: %v", err)
	}
	signed := func(change func(jwt.MapClaims)) string {
		return handMade(t, zone, ed, zone.private, zone.id, content(change))
	}
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"empty":             {"", ErrMalformed},
		"garbage":           {"a.b.c", ErrMalformed},
		"two parts":         {parts[0] + "." + parts[1], ErrMalformed},
		"too long":          {strings.Repeat("a", maxSize+1), ErrMalformed},
		"no signature":      {parts[0] + "." + parts[1] + ".", ErrSignature},
		"changed":           {parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"zone":"west"}`)) + "." + parts[2], ErrSignature},
		"impostor":          {sign(t, impostor, claims(Zone)), ErrSignature},
		"unknown key":       {sign(t, newKey(t, Zone), claims(Zone)), ErrUnknownKey},
		"alg none":          {handMade(t, zone, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, zone.id, same), ErrMalformed},
		"alg HS256":         {handMade(t, zone, jwt.SigningMethodHS256, []byte(zone.Verification().Public), zone.id, same), ErrMalformed},
		"no kid":            {handMade(t, zone, ed, zone.private, nil, same), ErrMalformed},
		"kid is a number":   {handMade(t, zone, ed, zone.private, 7, same), ErrMalformed},
		"user token":        {sign(t, user, claims(User)), ErrWrongPurpose},
		"key of a user":     {handMade(t, user, ed, user.private, user.id, same), ErrWrongPurpose},
		"audience":          {signed(func(m jwt.MapClaims) { m["aud"] = "zoneforge/user" }), ErrWrongPurpose},
		"two audiences":     {signed(func(m jwt.MapClaims) { m["aud"] = []string{"zoneforge/zone", "zoneforge/user"} }), ErrWrongPurpose},
		"no audience":       {signed(func(m jwt.MapClaims) { delete(m, "aud") }), ErrWrongPurpose},
		"issuer":            {signed(func(m jwt.MapClaims) { m["iss"] = "other" }), ErrMalformed},
		"no end":            {signed(func(m jwt.MapClaims) { delete(m, "exp") }), ErrMalformed},
		"no jti":            {signed(func(m jwt.MapClaims) { delete(m, "jti") }), ErrMalformed},
		"no zone":           {signed(func(m jwt.MapClaims) { delete(m, "zone") }), ErrMalformed},
		"claims of a user":  {signed(func(m jwt.MapClaims) { m["role"] = "admin" }), ErrMalformed},
		"zone is no string": {signed(func(m jwt.MapClaims) { m["zone"] = 1 }), ErrMalformed},
		"revoked":           {signed(func(m jwt.MapClaims) { m["jti"] = "gone" }), ErrRevoked},
		"expired":           {signed(func(m jwt.MapClaims) { m["iat"], m["exp"] = clock.Add(-time.Hour).Unix(), clock.Unix() }), ErrExpired},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Verify(c.text, Zone, keys, NewRevocations("gone"), clock)
			if !errors.Is(err, c.want) || !reflect.DeepEqual(got, Claims{}) {
				t.Fatalf("%+v, %v; want %v", got, err, c.want)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	k := newKey(t, Dataplane)
	for name, change := range map[string]func(*Claims){
		"no mesh":    func(c *Claims) { c.Mesh = "" },
		"no jti":     func(c *Claims) { c.ID = "" },
		"no end":     func(c *Claims) { c.ExpiresAt = time.Time{} },
		"reversed":   func(c *Claims) { c.ExpiresAt = c.IssuedAt },
		"role":       func(c *Claims) { c.Role = Admin },
		"empty name": func(c *Claims) { c.Services = []string{""} },
		"empty tag":  func(c *Claims) { c.Tags = map[string][]string{"a": nil} },
		"purpose":    func(c *Claims) { c.Purpose = "x" },
	} {
		c := claims(Dataplane)
		change(&c)
		if _, err := Sign(k, c); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Sign(k, claims(Zone)); !errors.Is(err, ErrWrongPurpose) {
		t.Error(err)
	}
	if _, err := Sign(SigningKey{}, claims(Zone)); !errors.Is(err, ErrUnknownKey) {
		t.Error(err)
	}
	v := k.Verification()
	for _, keys := range [][]VerificationKey{{v, v}, {{ID: "a", Purpose: Zone}}, {{Purpose: Zone, Public: v.Public}}, {{ID: "a", Public: v.Public}}} {
		if _, err := NewKeySet(keys...); !errors.Is(err, ErrInvalidKey) {
			t.Error(err)
		}
	}
}

func TestAllows(t *testing.T) {
	c := claims(Dataplane)
	v1 := map[string]string{"version": "v1", "other": "x"}
	for name, got := range map[string]bool{
		"all":     c.AllowsService("default", "east", "backend", v1),
		"no tag":  !c.AllowsService("default", "east", "backend", nil),
		"tag":     !c.AllowsService("default", "east", "backend", map[string]string{"version": "v3"}),
		"mesh":    !c.AllowsService("other", "east", "backend", v1),
		"zone":    !c.AllowsService("default", "west", "backend", v1),
		"service": !c.AllowsService("default", "east", "web", v1),
		"user":    !claims(User).AllowsService("default", "east", "backend", v1),
		"mesh a":  claims(User).AllowsMesh("a") && !claims(User).AllowsMesh("c") && !c.AllowsMesh("default"),
	} {
		if !got {
			t.Error(name)
		}
	}
}

func TestRedaction(t *testing.T) {
	k := newKey(t, User)
	tok, err := Sign(k, claims(User))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{k, tok} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			if got := fmt.Sprintf(format, v); got != redacted {
				t.Errorf("%s of %T prints %s", format, v, got)
			}
		}
		if got, err := json.Marshal(v); err != nil || string(got) != `"(redacted)"` {
			t.Errorf("JSON %s, %v", got, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	k := newKey(f, Dataplane)
	keys := keySet(f, k)
	good := sign(f, k, claims(Dataplane))
	f.Add(good)
	f.Add(good + "=")
	f.Add("..")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Verify(text, Dataplane, keys, Revocations{}, clock)
		if err == nil && text != good {
			t.Fatalf("%q verifies as %+v", text, c)
		}
		if err != nil && text == good {
			t.Fatal(err)
		}
	})
}

func TestNoIdentifierIsAFlag(t *testing.T) {
	hyphen, other := bytes.Repeat([]byte{0xfb}, 16), bytes.Repeat([]byte{1}, 16)
	id, err := NewID(bytes.NewReader(slices.Concat(hyphen, hyphen, other)))
	if want := base64.RawURLEncoding.EncodeToString(other); err != nil || id != want {
		t.Errorf("%q, %v, want %q", id, err, want)
	}
	if _, err := NewID(bytes.NewReader(hyphen)); err == nil {
		t.Error("an identifier is made of too little")
	}
}
