package rest

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/ca"
)

// Roots are those of meshes and their rotation; *ca.Rotator is one.
type Roots interface {
	Rotations() []ca.Rotation
	Rotation(mesh string) (ca.Rotation, error)
	Begin(ctx context.Context, mesh string) error
	GoOnWithout(ctx context.Context, mesh string, zones []string) error
}

func (a *api) roots(w http.ResponseWriter, _ *http.Request, _ Principal) *problem {
	writeJSON(w, http.StatusOK, map[string]any{"items": a.Roots.Rotations()})
	return nil
}

func (a *api) root(w http.ResponseWriter, r *http.Request, _ Principal) *problem {
	is, err := a.Roots.Rotation(r.PathValue("mesh"))
	if err != nil {
		return a.rootProblem(err)
	}
	writeJSON(w, http.StatusOK, is)
	return nil
}

// rotateRoot begins the rotation of a mesh's builtin root.
func (a *api) rotateRoot(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	mesh := r.PathValue("mesh")
	return a.turnRoot(w, r, who, mesh, "rotate the root of mesh "+mesh, func(ctx context.Context) error { return a.Roots.Begin(ctx, mesh) })
}

// rotateWithout has a rotation go on without some zones.
func (a *api) rotateWithout(w http.ResponseWriter, r *http.Request, who Principal) *problem {
	mesh := r.PathValue("mesh")
	var in struct{ Zones []string }
	if who.Role == RoleAdmin { // others learn nothing of what is wrong with the request
		if p := readJSON(w, r, &in, `{"zones": ["east"]}`); p != nil {
			return p
		}
		if len(in.Zones) == 0 {
			return newProblem(http.StatusUnprocessableEntity, "invalid", "no zones are named", "name the zones that the rotation is not to wait for")
		}
	}
	return a.turnRoot(w, r, who, mesh, "rotate the root of mesh "+mesh+" without zones "+strings.Join(in.Zones, ", "), func(ctx context.Context) error {
		return a.Roots.GoOnWithout(ctx, mesh, in.Zones)
	})
}

func (a *api) turnRoot(w http.ResponseWriter, r *http.Request, who Principal, mesh, what string, turn func(context.Context) error) *problem {
	if who.Role != RoleAdmin {
		return newProblem(http.StatusForbidden, "forbidden", "not allowed to rotate roots", "use a token of an admin")
	}
	a.begins(r, what)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), commitTimeout)
	defer cancel()
	if err := turn(ctx); err != nil {
		return a.rootProblem(err)
	}
	a.Logger.Info("rotation of a root was asked for", zap.String("mesh", mesh), zap.String("name", who.Name))
	is, err := a.Roots.Rotation(mesh)
	if err != nil {
		return a.rootProblem(err)
	}
	writeJSON(w, http.StatusAccepted, is)
	return nil
}

func (a *api) rootProblem(err error) *problem {
	switch {
	case errors.Is(err, ca.ErrNoMesh):
		return newProblem(http.StatusNotFound, "not_found", "there is no such mesh", "list the meshes to see their names")
	case errors.Is(err, ca.ErrNoMTLS):
		return newProblem(http.StatusConflict, "no_mtls", "the mesh has no mutual TLS, and so no root", "set mtls.enabledBackend in the Mesh")
	case errors.Is(err, ca.ErrProvided):
		return newProblem(http.StatusConflict, "provided_root", "the mesh uses a root of your own",
			"apply its Mesh with another backend, which names the new root's Secrets, in mtls.backends and mtls.enabledBackend")
	case errors.Is(err, ca.ErrRotating):
		return newProblem(http.StatusConflict, "rotating", "a rotation of this root is under way", "`zoneforge ca status` says what it waits for")
	case errors.Is(err, ca.ErrNotRotating):
		return newProblem(http.StatusConflict, "not_rotating", "no rotation of this root is under way", "`zoneforge ca status` says how its root stands")
	case errors.Is(err, ca.ErrNoZone):
		return newProblem(http.StatusNotFound, "not_found", "there is no such Zone", "list the zones to see their names")
	}
	return a.storeProblem(err)
}
