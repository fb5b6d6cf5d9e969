package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
)

// ErrReplicasDiffer says that replicas of global would seal with different keys.
var ErrReplicasDiffer = errors.New("replicas seal with different keys")

// Sealed says which keys seal the store's secrets, in the JSON of the API.
type Sealed struct {
	// Keys name those of this replica's key file: the first seals, all open.
	Keys []string `json:"keys"`
	// Uses say what each key has sealed that is still there.
	Uses []store.KeyUse `json:"uses"`
	// Alone says that no other replica can have this store, so that a new key seals at once.
	Alone bool `json:"alone"`
	// Replicas have the keys of each that is alive.
	Replicas map[string][]string `json:"replicas"`
}

// Sealing changes the key-encryption keys of this replica. Errors of the last three wrap ErrReplicasDiffer, store.ErrKeyNeeded,
// store.ErrNoSuchKey or what the store gave.
type Sealing interface {
	Sealing(ctx context.Context) (Sealed, error)
	// AddKey makes a key, which comes first where no other replica can have the store, and else last.
	AddKey() (id string, err error)
	// Reseal seals anew what is not sealed with the first key; more says that it is to be called again.
	Reseal(ctx context.Context) (n int, more bool, err error)
	DropKey(ctx context.Context, id string) error
}

func (a *api) adminOfSealing(who Principal) *problem {
	if who.Role != RoleAdmin {
		return newProblem(http.StatusForbidden, "forbidden", "not allowed to see or change what seals secrets", "use a token of an admin")
	}
	return nil
}

func (a *api) sealed(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if p := a.adminOfSealing(who); p != nil {
		return p
	}
	out, err := a.Sealing.Sealing(r.Context())
	if err != nil {
		return a.storeProblem(err)
	}
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (a *api) addSealingKey(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if p := a.adminOfSealing(who); p != nil {
		return p
	}
	a.begins(r, "make key-encryption key")
	id, err := a.Sealing.AddKey()
	if err != nil {
		return a.sealingProblem(err)
	}
	noteOf(r.Context()).does("key " + id)
	a.Logger.Info("key-encryption key made", zap.String("id", id), zap.String("name", who.Name))
	writeJSON(w, http.StatusCreated, map[string]string{"key": id})
	return nil
}

func (a *api) reseal(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if p := a.adminOfSealing(who); p != nil {
		return p
	}
	select {
	case a.resealing <- struct{}{}:
		defer func() { <-a.resealing }()
	default:
		return newProblem(http.StatusServiceUnavailable, "busy", "secrets are being sealed anew already", "repeat it when that has ended")
	}
	a.begins(r, "seal secrets anew")
	n, more, err := a.Sealing.Reseal(r.Context())
	if err != nil {
		return a.sealingProblem(err)
	}
	noteOf(r.Context()).does(fmt.Sprintf("%d secrets", n))
	writeJSON(w, http.StatusOK, map[string]any{"resealed": n, "more": more})
	return nil
}

func (a *api) dropSealingKey(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	if p := a.adminOfSealing(who); p != nil {
		return p
	}
	id := r.PathValue("id")
	a.begins(r, "retire key-encryption key "+id)
	if err := a.Sealing.DropKey(r.Context(), id); err != nil {
		return a.sealingProblem(err)
	}
	a.Logger.Info("key-encryption key retired", zap.String("id", id), zap.String("name", who.Name))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) sealingProblem(err error) *problem {
	switch {
	case errors.Is(err, ErrReplicasDiffer):
		return newProblem(http.StatusConflict, "replicas_differ", err.Error(), "put the key first into the key file of each replica, wait some seconds, and repeat")
	case errors.Is(err, store.ErrKeyNeeded):
		return newProblem(http.StatusConflict, "key_needed", err.Error(), "`zoneforge kek status` says what needs which key")
	case errors.Is(err, store.ErrNoSuchKey):
		return newProblem(http.StatusNotFound, "not_found", err.Error(), "`zoneforge kek status` lists the keys")
	}
	return a.storeProblem(err)
}
