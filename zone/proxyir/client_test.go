package proxyir

import (
	"regexp"
	"testing"

	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// TestClientMatchTakesThePeerAlone holds that nothing a peer passes on makes it another client.
func TestClientMatchTakesThePeerAlone(t *testing.T) {
	const own = "By=spiffe://east.m.example.com/echo;Hash=00ff;URI="
	edge, shop, west := own+"spiffe://east.m.example.com/edge", own+"spiffe://east.m.example.com/shop", own+"spiffe://west.m.example.com/edge"
	for _, c := range []struct {
		source map[string]string
		value  string
		want   bool
	}{
		{map[string]string{"kuma.io/service": "edge"}, edge, true},
		{map[string]string{"kuma.io/service": "edge"}, west, true},
		{map[string]string{"kuma.io/service": "edge"}, shop + "," + edge, true},
		{map[string]string{"kuma.io/service": "edge"}, edge + "," + shop, false},
		{map[string]string{"kuma.io/service": "edge"}, `Subject="a,URI=spiffe://east.m.example.com/edge",` + shop, false},
		{map[string]string{"kuma.io/service": "edge"}, shop + "/edge", false},
		{map[string]string{"kuma.io/zone": "east"}, edge, true},
		{map[string]string{"kuma.io/zone": "east"}, edge + "," + west, false},
		{map[string]string{"kuma.io/zone": "west", "kuma.io/service": "edge"}, west, true},
		{map[string]string{"kuma.io/zone": "west", "kuma.io/service": "edge"}, edge, false},
		{map[string]string{"kuma.io/zone": "west", "kuma.io/service": "edge"}, west + "," + edge, false},
		{map[string]string{"kuma.io/service": "edge"}, "", false},
	} {
		list := []*resource.Resource{{Key: resource.Key{Kind: "FaultInjection", Mesh: "m", Name: "f"}, Spec: &meshv1.FaultInjection{
			Sources: []*meshv1.Selector{{Match: c.source}}, Destinations: []*meshv1.Selector{{Match: map[string]string{"kuma.io/service": "*"}}},
		}}}
		clients := policy.Clients(list, policy.Identities{Mesh: "m", Domain: "example.com"}, map[string]string{"kuma.io/service": "echo"})
		match := clientMatch(clients[0].ID)
		if got := regexp.MustCompile(`^(?:` + match.Value + `)$`).MatchString(c.value); got != c.want {
			t.Errorf("%v and %q: %v, want %v (%s)", c.source, c.value, got, c.want, match.Value)
		}
	}
}
