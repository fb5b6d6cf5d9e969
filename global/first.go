package global

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/ca"
	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/pki/certfile"
	"github.com/zoneforge/zoneforge/pki/token"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// adminTokenTTL is how long the token in the data directory lives; a start in its last third renews it.
const adminTokenTTL = 8760 * time.Hour

// checkDomain refuses another domain than that of the trust bundles in the store, as all identities would change.
func checkDomain(snap *store.Snapshot, domain string) error {
	for e := range snap.Each("TrustBundle", "") {
		if was := resource.Spec[*federationv1.TrustBundle](e.Resource).GetDomain(); was != domain {
			return fmt.Errorf("global: the federation in the store has the domain %q, not %q; set domain to %q, as all identities end in it", was, domain, was)
		}
	}
	return nil
}

// defaultMesh puts the mesh named default into a store that nothing was ever written to.
func defaultMesh(ctx context.Context, s *store.Store) (made bool, err error) {
	if s.Snapshot().Revision() != 0 {
		return false, nil
	}
	var absent int64
	key := resource.Key{Kind: "Mesh", Name: resource.DefaultMesh}
	done, err := s.Commit(ctx, store.Change{
		Author: "zoneforge", Message: "the default mesh: mutual TLS is on, and nothing is permitted yet",
		Ops: []store.Op{{Key: key, IfRevision: &absent, Put: &resource.Resource{Key: key, Spec: &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{
			EnabledBackend: "ca-1",
			Backends:       []*meshv1.Mesh_CertificateAuthority{{Name: "ca-1", Type: "builtin", Mode: meshv1.Mesh_MODE_STRICT}},
		}}}}},
	})
	if errors.Is(err, store.ErrConflict) { // another replica was faster
		return false, nil
	}
	if err == nil {
		_, err = s.Wait(ctx, done.Revision)
	}
	if err != nil {
		return false, fmt.Errorf("global: make the default mesh: %w", err)
	}
	return true, nil
}

// adminToken writes a token of an admin into a new data directory, and replaces one that has no long life any more. One that
// was deleted stays away: an empty file asks for a new one.
func (g *Global) adminToken(ctx context.Context, a *ca.Authorities, fresh bool) error {
	path := filepath.Join(g.cfg.DataDir, adminTokenName)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !fresh {
			return nil
		}
	case err != nil:
		return fmt.Errorf("global: admin token: %w", err)
	default:
		v, err := a.Verifier(token.User)
		if err != nil {
			return fmt.Errorf("global: admin token: %w", err)
		}
		claims, err := v.Verify(strings.TrimSpace(string(text)))
		if err == nil && time.Until(claims.ExpiresAt) > adminTokenTTL/3 {
			return nil
		}
	}
	t, claims, err := a.IssueToken(ctx, token.Claims{Purpose: token.User, Subject: "admin", Role: token.Admin}, adminTokenTTL)
	if err == nil {
		err = certfile.Write(path, []byte(t.Reveal()+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("global: admin token: %w", err)
	}
	g.log.Info("admin token written", zap.String("path", path), zap.Time("expires", claims.ExpiresAt))
	return nil
}
