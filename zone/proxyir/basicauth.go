package proxyir

import (
	"fmt"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func (b *builder) basicAuth(a *meshv1.BasicAuth, r *ir.Route) error {
	data, err := b.secretData(a.GetSecret())
	if err != nil {
		return fmt.Errorf("basicAuth: %w", err)
	}
	users, err := resource.Htpasswd(data)
	if err != nil {
		return fmt.Errorf("basicAuth: Secret %s/%s: %w", b.MeshName, a.GetSecret(), err)
	}
	r.Filters.BasicAuth = &ir.BasicAuth{Users: users, UserHeader: a.GetUsernameHeader(), Realm: a.GetRealm(),
		Hide: a.HideCredentials == nil || a.GetHideCredentials()}
	return nil
}
