package state

import (
	"reflect"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
)

// former are the tokens that a proxy's routes asked for before those of now.
func (p *proxy) former(now []*ir.JWT) []*ir.JWT {
	if reflect.DeepEqual(now, p.jwt) {
		return p.formerJWT
	}
	return p.jwt
}

// asked notes the tokens that the routes of what was built ask for.
func (p *proxy) asked(halves []*half) {
	var now []*ir.JWT
	for _, h := range halves {
		now = append(now, h.tokens...)
	}
	p.formerJWT = p.former(now)
	p.jwt = now
}

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
