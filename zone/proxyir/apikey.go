package proxyir

import (
	"fmt"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// apiKey asks for a key of one of the Secrets. None of a Secret that can't be read is taken, as it isn't known whom it shuts out.
func (b *builder) apiKey(k *meshv1.ApiKey, r *ir.Route) error {
	out := &ir.APIKey{Allowed: k.GetAllowedClients(), ClientHeader: k.GetClientHeader(), Hide: k.HideCredentials == nil || k.GetHideCredentials()}
	type owner struct{ secret, client string }
	owners := map[string]owner{}
	for _, c := range k.GetCredentials() {
		data, err := b.secretData(c.GetSecret())
		if err != nil {
			return fmt.Errorf("apiKey: %w", err)
		}
		keys, err := resource.APIKeys(data)
		if err != nil {
			return fmt.Errorf("apiKey: Secret %s/%s: %w", b.MeshName, c.GetSecret(), err)
		}
		for _, key := range keys {
			if other, taken := owners[key.Key]; taken {
				return fmt.Errorf("apiKey: client %s of Secret %s/%s has the key of client %s of Secret %s/%s: give each its own",
					key.Client, b.MeshName, c.GetSecret(), other.client, b.MeshName, other.secret)
			}
			owners[key.Key] = owner{c.GetSecret(), key.Client}
			out.Keys = append(out.Keys, ir.ClientKey{Client: key.Client, Key: key.Key})
		}
	}
	for _, source := range k.GetKeySources() {
		out.Places = append(out.Places, ir.KeyPlace{Header: source.GetHeader(), Query: source.GetQuery(), Cookie: source.GetCookie()})
	}
	if len(out.Places) == 0 {
		out.Places = []ir.KeyPlace{{Header: "x-api-key"}}
	}
	r.Filters.APIKey = out
	return nil
}
