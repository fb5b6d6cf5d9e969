package state

import (
	"reflect"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
)

// requiredTokens are the tokens that the routes of a proxy ask for, each once, without the claims, which routes ask for themselves.
func requiredTokens(p *ir.Proxy) []*ir.JWT {
	var out []*ir.JWT
	seen := map[*ir.JWT]bool{}
	for i := range p.Routes {
		for j := range p.Routes[i].VirtualHosts {
			for k := range p.Routes[i].VirtualHosts[j].Routes {
				jwt := p.Routes[i].VirtualHosts[j].Routes[k].Filters.JWT
				if jwt == nil || seen[jwt] {
					continue
				}
				seen[jwt] = true
				bare := &ir.JWT{Providers: jwt.Providers, Optional: jwt.Optional}
				if !slices.ContainsFunc(out, func(other *ir.JWT) bool { return reflect.DeepEqual(other, bare) }) {
					out = append(out, bare)
				}
			}
		}
	}
	return out
}
