package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func TestClients(t *testing.T) {
	fault := func(mesh, name string, destination map[string]string, sources ...map[string]string) *resource.Resource {
		spec := &meshv1.FaultInjection{Destinations: []*meshv1.Selector{{Match: destination}}}
		for _, s := range sources {
			spec.Sources = append(spec.Sources, &meshv1.Selector{Match: s})
		}
		return &resource.Resource{Key: resource.Key{Kind: "FaultInjection", Mesh: mesh, Name: name}, Spec: spec}
	}
	echo, all := map[string]string{"kuma.io/service": "echo"}, map[string]string{"kuma.io/service": "*"}
	v1 := map[string]string{"kuma.io/service": "echo", "version": "v1"}
	list := []*resource.Resource{
		fault("m", "everyone", all, all),
		fault("m", "edge", echo, map[string]string{"kuma.io/service": "edge"}),
		fault("m", "edge-to-v1", v1, map[string]string{"kuma.io/service": "edge"}),
		fault("m", "edge-of-west", echo, map[string]string{"kuma.io/service": "edge", "kuma.io/zone": "west"}, map[string]string{"kuma.io/service": "shop"}),
		fault("m", "from-east", echo, map[string]string{"kuma.io/zone": "east"}),
		fault("m", "to-v2", map[string]string{"version": "v2"}, all),
		fault("m", "of-team-a", echo, map[string]string{"kuma.io/service": "edge", "team": "a"}),
		fault("m", "of-a-team", echo, map[string]string{"team": "*"}),
		fault("other", "of-another-mesh", all, all),
	}
	want := `spiffe://west.m.example.com/edge: edge-to-v1 edge-of-west edge everyone
^spiffe://[^./]+\.m\.example\.com/edge$ &team=a&: edge-to-v1 of-team-a edge of-a-team everyone
^spiffe://[^./]+\.m\.example\.com/edge$: edge-to-v1 edge everyone
^spiffe://[^./]+\.m\.example\.com/shop$: edge-of-west everyone
^spiffe://east\.m\.example\.com/[^/]+$: from-east everyone
^spiffe://[^./]+\.m\.example\.com/[^/]+$ &team=*&: of-a-team everyone
any: everyone
`
	for range 2 {
		var got strings.Builder
		for _, c := range Clients(list, Identities{Mesh: "m", Domain: "example.com"}, v1) {
			id := c.ID.Value
			if c.Any {
				id = "any"
			}
			if len(c.Tags) > 0 {
				id += " " + TagsText(c.Tags)
			}
			fmt.Fprintf(&got, "%s:", id)
			for _, r := range c.Policies {
				fmt.Fprintf(&got, " %s", r.Name)
			}
			got.WriteByte('\n')
		}
		if got.String() != want {
			t.Errorf("got\n%swant\n%s", got.String(), want)
		}
		slices.Reverse(list)
	}
}
