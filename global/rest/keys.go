package rest

import (
	"context"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/ca"
	"github.com/zoneforge/zoneforge/pki/token"
)

// adminOfKeys refuses all but admins.
func adminOfKeys(who Principal) *problem {
	if who.Role != RoleAdmin {
		return newProblem(http.StatusForbidden, "forbidden", "not allowed to change the keys of tokens", "use a token of an admin")
	}
	return nil
}

// rotateKey makes the key that signs tokens of a purpose from now on.
func (a *api) rotateKey(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if p := adminOfKeys(who); p != nil {
		return p
	}
	var in struct{ Purpose string }
	if p := readJSON(w, r, &in, `{"purpose": "dataplane"}`); p != nil {
		return p
	}
	a.begins(r, "rotate key of "+in.Purpose+" tokens")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commitTimeout)
	defer cancel()
	id, err := a.Tokens.RotateKey(ctx, token.Purpose(in.Purpose))
	switch {
	case errors.Is(err, ca.ErrPurpose):
		return newProblem(http.StatusUnprocessableEntity, "invalid", "there are no tokens of this purpose", "use user, zone or dataplane")
	case errors.Is(err, ca.ErrManyKeys):
		return newProblem(http.StatusConflict, "too_many_keys", "the purpose has as many keys as it may have", "retire one that signed no token that is still needed")
	case err != nil:
		return a.storeProblem(err)
	}
	noteOf(r.Context()).does("new key " + id)
	a.Logger.Info("signing key rotated", zap.String("kind", in.Purpose), zap.String("id", id), zap.String("name", who.Name))
	writeJSON(w, http.StatusCreated, map[string]string{"id": id, "purpose": in.Purpose})
	return nil
}

// retireKey ends all tokens that a key signed.
func (a *api) retireKey(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if p := adminOfKeys(who); p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commitTimeout)
	defer cancel()
	id := r.PathValue("id")
	a.begins(r, "retire key "+id)
	switch err := a.Tokens.RetireKey(ctx, id); {
	case errors.Is(err, ca.ErrUnknownKey):
		return newProblem(http.StatusNotFound, "not_found", "no key of tokens has this id", "list /v1/signing-keys to see their ids")
	case errors.Is(err, ca.ErrKeyInUse):
		return newProblem(http.StatusConflict, "key_in_use", "the key signs new tokens", "rotate the keys of its purpose first")
	case err != nil:
		return a.storeProblem(err)
	}
	a.Logger.Info("signing key retired", zap.String("id", id), zap.String("name", who.Name))
	w.WriteHeader(http.StatusNoContent)
	return nil
}
