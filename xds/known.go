package xds

import (
	"slices"

	"github.com/zoneforge/zoneforge/ir"
)

// nameKind is what a name is of.
type nameKind int

const (
	aCluster nameKind = iota
	someRoutes
	anAuthorization
	// bareRoutes are those whose listener has no filters.
	bareRoutes
	kindsOfNames
)

// known are the names that parts of a proxy may refer to.
type known struct {
	names [kindsOfNames]map[string]bool
	// own are the proxy's own texts, nil for none.
	own *[]string
	// certificates is what certificate gave last.
	certificates *[]string
	// asked is what the part that is being built wanted to know of the others, with the answers.
	asked []answer
}

type answer struct {
	kind nameKind
	name string
	is   bool
}

func namesOf(p *ir.Proxy) *known {
	out := &known{}
	if len(p.Own) > 0 {
		own := slices.Clone(p.Own)
		out.own = &own
	}
	for kind, n := range [kindsOfNames]int{aCluster: len(p.Clusters), someRoutes: len(p.Routes), bareRoutes: len(p.Listeners), anAuthorization: len(p.Authorizations)} {
		out.names[kind] = make(map[string]bool, n)
	}
	for i := range p.Routes {
		out.names[someRoutes][p.Routes[i].Name] = true
	}
	for i := range p.Clusters {
		out.names[aCluster][p.Clusters[i].Name] = true
	}
	for i := range p.Authorizations {
		out.names[anAuthorization][p.Authorizations[i].Name] = true
	}
	for i := range p.Listeners {
		for n := range p.Listeners[i].Chains {
			if http := p.Listeners[i].Chains[n].HTTP; http != nil && http.Bare {
				out.names[bareRoutes][http.RouteConfig] = true
			}
		}
	}
	return out
}

// certificate is the name of that which a cluster shows, as texts that may be cut out of it: the same for all clusters that show it, nil
// for none.
func (k *known) certificate(c *ir.Cluster) *[]string {
	if c.TLS == nil || c.TLS.Certificate == "" {
		return nil
	}
	if k.certificates == nil || (*k.certificates)[0] != c.TLS.Certificate {
		k.certificates = &[]string{c.TLS.Certificate}
	}
	return k.certificates
}

// has tells whether there is something of a name.
func (k *known) has(kind nameKind, name string) bool {
	is := k.names[kind][name]
	k.asked = append(k.asked, answer{kind, name, is})
	return is
}

// same tells whether answers are still true.
func (k *known) same(answers []answer) bool {
	for _, a := range answers {
		if k.names[a.kind][a.name] != a.is {
			return false
		}
	}
	return true
}
