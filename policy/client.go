package policy

import (
	"cmp"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/resource"
)

// Client is a kind of client of an inbound, with the policies that hold for it.
type Client struct {
	// Any says that it is every client, also one that proves nothing.
	Any bool
	// ID compares SPIFFE IDs; unless Any.
	ID ir.TextMatch
	// Policies are the most specific first.
	Policies []*resource.Resource
}

// Clients tells the clients of an inbound with these tags apart as far as policies of a kind that select connections do. They
// are ordered: the first that a client is decides for it. Each client's policies are all whose sources select it, as far as its
// certificate proves what they ask for: sources that ask for more match nobody. A client that none selects is not listed.
func Clients(policies []*resource.Resource, in Identities, inbound map[string]string) []Client {
	type source struct {
		rank   ConnectionRank
		peer   peer
		policy *resource.Resource
	}
	var sources []source
	for _, r := range policies {
		if r == nil || r.Mesh != in.Mesh {
			continue
		}
		spec, ok := r.Spec.(ConnectionPolicy)
		if !ok {
			continue
		}
		destination, ok := Best(spec.GetDestinations(), inbound)
		if !ok {
			continue
		}
		for _, s := range spec.GetSources() {
			if p, proven, possible := peerOf(s); proven && possible {
				sources = append(sources, source{ConnectionRank{Source: rankOf(s), Destination: destination}, p, r})
			}
		}
	}
	slices.SortFunc(sources, func(a, b source) int {
		return cmp.Or(a.rank.Compare(b.rank), a.policy.Key.Compare(b.policy.Key), a.peer.compare(b.peer))
	})
	// The more a peer asks for the earlier it is tried, whatever the destinations' part in the ranks.
	var peers []peer
	for _, s := range sources {
		if !slices.Contains(peers, s.peer) {
			peers = append(peers, s.peer)
		}
	}
	slices.SortStableFunc(peers, func(a, b peer) int { return cmp.Compare(b.asks(), a.asks()) })
	var out []Client
	for _, p := range peers {
		c := Client{Any: p == peer{}}
		if !c.Any {
			c.ID = p.match(in)
		}
		for _, s := range sources {
			if s.peer.covers(p) && !slices.Contains(c.Policies, s.policy) {
				c.Policies = append(c.Policies, s.policy)
			}
		}
		out = append(out, c)
	}
	return out
}

// asks counts what a peer must prove.
func (p peer) asks() (n int) {
	for _, v := range []string{p.zone, p.service} {
		if v != "" {
			n++
		}
	}
	return n
}

// covers tells whether each client that o matches is matched by p too.
func (p peer) covers(o peer) bool {
	return (p.zone == "" || p.zone == o.zone) && (p.service == "" || p.service == o.service)
}
