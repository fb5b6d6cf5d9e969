package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/pki/token"
	"github.com/zoneforge/zoneforge/resource"
)

// Tokens is what the API needs of token signing; *ca.Authorities is one.
type Tokens interface {
	// IssueToken signs claims for ttl and gives them back with their identifier and times.
	IssueToken(ctx context.Context, claims token.Claims, ttl time.Duration) (token.Token, token.Claims, error)
	// RevokeToken refuses a token from now on; an error of package token says that it is none of this federation.
	// The identifier is empty where the token had ended before.
	RevokeToken(ctx context.Context, text string) (id string, err error)
	// RotateKey makes the key that signs tokens of a purpose from now on, and RetireKey refuses all tokens that a key signed; their
	// errors are those of package ca.
	RotateKey(ctx context.Context, purpose token.Purpose) (id string, err error)
	RetireKey(ctx context.Context, id string) error
}

// Lifetimes of tokens.
const (
	defaultUserTTL      = 24 * time.Hour
	defaultZoneTTL      = 8760 * time.Hour
	defaultDataplaneTTL = 720 * time.Hour
	minTTL              = time.Second
	maxTTL              = 87600 * time.Hour
)

// maxTokenBody bounds requests about tokens, in bytes.
const maxTokenBody = 64 << 10

var zoneName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// values is one text or a list of them.
type values []string

func (v *values) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*v = values{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(v))
}

// readJSON reads a small body strictly.
func readJSON(w http.ResponseWriter, r *http.Request, into any, example string) *problem {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return newProblem(http.StatusUnsupportedMediaType, "unsupported_media_type", "the content type is not supported", "send application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTokenBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return newProblem(http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body is larger than %d bytes", maxTokenBody), "list fewer names")
	}
	if err != nil {
		return newProblem(http.StatusBadRequest, "bad_body", "the body cannot be read to its end", "repeat the request")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err = dec.Decode(into); err == nil {
		if _, end := dec.Token(); end != io.EOF {
			err = errors.New("something follows the object")
		}
	}
	if err != nil {
		return newProblem(http.StatusBadRequest, "bad_body", err.Error(), "send "+example)
	}
	return nil
}

// tokenKinds are the tokens that can be asked for, by the last part of the route.
var tokenKinds = map[string]struct {
	example string
	ttl     time.Duration
}{
	"user":         {`{"name": "ann", "role": "writer", "meshes": ["default"], "ttl": "24h"}`, defaultUserTTL},
	"zone":         {`{"zone": "east", "ttl": "8760h"}`, defaultZoneTTL},
	"dataplane":    {`{"mesh": "default", "services": ["web"], "tags": {"env": ["prod"]}, "zone": "east", "ttl": "720h"}`, defaultDataplaneTTL},
	"zone-ingress": {`{"zone": "east", "ttl": "720h"}`, defaultDataplaneTTL},
}

// issue signs a token. Those of a mesh's proxies are its writers' to give, all others an admin's.
func (a *api) issue(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	what := r.PathValue("what")
	kind, ok := tokenKinds[what]
	if !ok {
		return newProblem(http.StatusNotFound, "unknown_route", "there is no such kind of token", "use user, zone, dataplane or zone-ingress")
	}
	forbidden := newProblem(http.StatusForbidden, "forbidden", "not allowed to issue this "+what+" token", "use a token of an admin, or for dataplanes of a writer of the mesh")
	if who.Role != RoleAdmin && (what != "dataplane" || !who.mayWriteSome()) {
		return forbidden
	}
	var ttlText string
	claims := token.Claims{}
	var p *problem
	switch what {
	case "user":
		var in struct {
			Name, Role, TTL string
			Meshes          []string
		}
		if p = readJSON(w, r, &in, kind.example); p == nil {
			claims = token.Claims{Purpose: token.User, Subject: in.Name, Role: token.Role(in.Role), Meshes: in.Meshes}
		}
		ttlText = in.TTL
	case "zone", "zone-ingress":
		var in struct{ Zone, TTL string }
		if p = readJSON(w, r, &in, kind.example); p == nil {
			claims = token.Claims{Purpose: token.Zone, Zone: in.Zone}
		}
		if what == "zone-ingress" {
			claims.Purpose, claims.Ingress = token.Dataplane, true
		}
		ttlText = in.TTL
	case "dataplane":
		var in struct {
			Mesh, Zone, TTL string
			Services        []string
			Tags            map[string]values
		}
		if p = readJSON(w, r, &in, kind.example); p == nil {
			claims = token.Claims{Purpose: token.Dataplane, Mesh: in.Mesh, Zone: in.Zone, Services: in.Services}
		}
		for k, v := range in.Tags {
			if claims.Tags == nil {
				claims.Tags = map[string][]string{}
			}
			claims.Tags[k] = v
		}
		ttlText = in.TTL
	}
	if p != nil {
		return p
	}
	note := noteOf(r.Context())
	note.does("issue " + what + " token for " + claimed(claims))
	if claims.Mesh != "" && !who.mayWrite(resource.Key{Kind: "Dataplane", Mesh: claims.Mesh}) {
		return forbidden
	}
	ttl, vs := kind.ttl, a.judge(what, claims)
	if ttlText != "" {
		var err error
		if ttl, err = time.ParseDuration(ttlText); err != nil || ttl < minTTL || ttl > maxTTL {
			vs = append(vs, resource.Violation{Path: "ttl", Message: fmt.Sprintf("%q is no duration between %s and %s", ttlText, minTTL, maxTTL), Hint: "write it as 24h or 30m"})
		}
	}
	if len(vs) > 0 {
		return badToken(vs)
	}
	t, signed, err := a.Tokens.IssueToken(r.Context(), claims, ttl)
	switch {
	case errors.Is(err, token.ErrMalformed):
		return badToken([]resource.Violation{{Message: err.Error(), Hint: "send " + kind.example}})
	case err != nil:
		return a.storeProblem(err)
	}
	note.does("token " + signed.ID)
	a.Logger.Info("token issued", zap.String("kind", what), zap.String("id", signed.ID), zap.String("name", who.Name),
		zap.Time("expires", signed.ExpiresAt))
	writeJSON(w, http.StatusCreated, map[string]any{"token": t.Reveal(), "id": signed.ID, "expires": signed.ExpiresAt.UTC()})
	return nil
}

// claimed says whom a token is for.
func claimed(c token.Claims) string {
	switch {
	case c.Purpose == token.User:
		return strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Role, c.Subject, strings.Join(c.Meshes, " ")))
	case c.Mesh != "":
		return strings.TrimSpace("mesh " + c.Mesh + " " + strings.Join(c.Services, " "))
	}
	return "zone " + c.Zone
}

func badToken(vs []resource.Violation) *problem {
	p := invalid(vs)
	p.Detail, p.Mend = "the token cannot be issued as asked", "mend all violations and repeat"
	return p
}

// judge finds what is wrong with asked claims beyond what signing finds.
func (a *api) judge(what string, c token.Claims) []resource.Violation {
	var vs []resource.Violation
	wrong := func(path, message, hint string) {
		vs = append(vs, resource.Violation{Path: path, Message: message, Hint: hint})
	}
	mesh := func(path, name string) {
		if _, ok := a.Store.Snapshot().Get(resource.Key{Kind: "Mesh", Name: name}); !ok {
			wrong(path, fmt.Sprintf("mesh %q does not exist", name), "create the mesh first")
		}
	}
	switch what {
	case "user":
		if c.Subject == "" || len(c.Subject) > 128 {
			wrong("name", "a name of 1 to 128 bytes is needed", "name the person or program, it becomes the author of changes")
		}
		switch c.Role {
		case token.Writer:
			if len(c.Meshes) == 0 {
				wrong("meshes", "a writer needs the meshes to write in", "name them, or use the role admin")
			}
		case token.Admin, token.Viewer:
			if len(c.Meshes) > 0 {
				wrong("meshes", "the role "+string(c.Role)+" is not limited to meshes", "leave meshes out, or use the role writer")
			}
		default:
			wrong("role", fmt.Sprintf("%q is no role", c.Role), "use admin, writer or viewer")
		}
		for i, m := range c.Meshes {
			mesh(fmt.Sprintf("meshes[%d]", i), m)
		}
	case "dataplane":
		if c.Mesh == "" {
			wrong("mesh", "the mesh of the dataplane is needed", "name it")
		} else {
			mesh("mesh", c.Mesh)
		}
		for _, k := range slices.Sorted(maps.Keys(c.Tags)) {
			if k == "" || len(c.Tags[k]) == 0 || slices.Contains(c.Tags[k], "") {
				wrong("tags", fmt.Sprintf("tag %q has no value", k), "give each tag one value or a list")
			}
		}
	}
	if c.Zone == "" && (what == "zone" || what == "zone-ingress") {
		wrong("zone", "the zone is needed", "name it")
	} else if c.Zone != "" && !zoneName.MatchString(c.Zone) {
		wrong("zone", fmt.Sprintf("%q is no name of a zone", c.Zone), "use lower-case letters, digits and hyphens, at most 63")
	}
	return vs
}

// revoke takes a token back, whatever its purpose; an admin alone may.
func (a *api) revoke(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if who.Role != RoleAdmin {
		return newProblem(http.StatusForbidden, "forbidden", "not allowed to revoke tokens", "use a token of an admin")
	}
	var in struct{ Token string }
	if p := readJSON(w, r, &in, `{"token": "..."}`); p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commitTimeout)
	defer cancel()
	a.begins(r, "revoke a token")
	id, err := a.Tokens.RevokeToken(ctx, in.Token)
	for _, foreign := range []error{token.ErrMalformed, token.ErrUnknownKey, token.ErrSignature, token.ErrWrongPurpose} {
		if errors.Is(err, foreign) {
			return badRevocation(foreign)
		}
	}
	if err != nil {
		return a.storeProblem(err)
	}
	if id == "" {
		noteOf(r.Context()).does("one that had ended")
	} else {
		noteOf(r.Context()).does("token " + id)
	}
	a.Logger.Info("token revoked", zap.String("id", id), zap.String("name", who.Name))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func badRevocation(err error) *problem {
	p := invalid([]resource.Violation{{Path: "token", Message: err.Error(), Hint: "send the whole token, as it was issued by this federation"}})
	p.Detail, p.Mend = "nothing was revoked", "send a token of this federation"
	return p
}
