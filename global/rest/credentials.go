package rest

import (
	"fmt"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// credentials checks that Secrets hold the keys or users that a resource takes from them. One that isn't there may be about to
// be applied, so it is only noted.
func (c *checker) credentials(r *resource.Resource, touched func(resource.Key) bool) {
	for _, use := range resource.CredentialUses(r) {
		key := resource.Key{Kind: "Secret", Mesh: r.Mesh, Name: use.Secret}
		if !touched(key) {
			continue
		}
		secret, ok := c.get(key)
		if !ok {
			c.note("%s: %s: %s does not exist; requests are answered with 503 until it is applied", r.Key, use.Path, key)
			continue
		}
		if err := use.Check(resource.Spec[*meshv1.Secret](secret).GetData()); err != nil {
			c.wrong(use.Path, fmt.Sprintf("%s: %s can't be used: %s", r.Key, key, err), "put it into the secret's data, in base64")
		}
	}
}
