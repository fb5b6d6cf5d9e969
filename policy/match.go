// Package policy decides which policies hold for one proxy or one connection, in which order, and what they add up to.
//
// It owns the matching of selectors, the ranks by which the most specific policy wins, and the merging of policies with
// their defaults into plain values. It never does I/O, starts no goroutine, reads no clock, and knows neither Envoy nor
// where resources are kept. All functions are pure: they change none of their arguments, their results don't depend on
// the order of the policies given, and they may be called concurrently.
//
// # Ranks
//
// A selector matches when each of its tags is present with the same value; the value "*" matches any value of a tag that
// is present, and a selector without tags matches everything. Among policies that match, the order is:
//
//  1. more exact tags first,
//  2. then more wildcard tags,
//  3. for connections, where these count both ends together: more exact, then more wildcard tags of the destination,
//  4. then the lexicographically smallest name.
//
// A policy with several selectors that match counts with its best one. The destination decides between equal sums because
// it belongs to those who are answerable for the service, while sources are what they let in.
//
// A mesh is a tenant: every function takes the mesh it works for and passes over resources of any other.
package policy

import (
	"cmp"
	"slices"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Rank is the specificity of a selector.
type Rank struct {
	// Exact counts tags with a value.
	Exact int
	// Wildcard counts tags with the value "*".
	Wildcard int
}

// Compare is negative when r is more specific than o, and so comes first.
func (r Rank) Compare(o Rank) int {
	return cmp.Or(cmp.Compare(o.Exact, r.Exact), cmp.Compare(o.Wildcard, r.Wildcard))
}

func (r Rank) plus(o Rank) Rank {
	return Rank{Exact: r.Exact + o.Exact, Wildcard: r.Wildcard + o.Wildcard}
}

// ConnectionRank is the specificity of a pair of selectors.
type ConnectionRank struct {
	Source      Rank
	Destination Rank
}

// Compare is negative when r is more specific than o, and so comes first.
func (r ConnectionRank) Compare(o ConnectionRank) int {
	return cmp.Or(r.Source.plus(r.Destination).Compare(o.Source.plus(o.Destination)), r.Destination.Compare(o.Destination))
}

// DataplanePolicy is the spec of a kind that selects proxies, such as MeshGateway.
type DataplanePolicy interface {
	GetSelectors() []*meshv1.Selector
}

// ConnectionPolicy is the spec of a kind that selects connections by both ends, such as Timeout.
type ConnectionPolicy interface {
	GetSources() []*meshv1.Selector
	GetDestinations() []*meshv1.Selector
}

// Matches tells whether a selector matches tags.
func Matches(selector *meshv1.Selector, tags map[string]string) bool {
	for tag, want := range selector.GetMatch() {
		if have, ok := tags[tag]; !ok || want != resource.AnyValue && want != have {
			return false
		}
	}
	return true
}

// Best returns the rank of the most specific selector that matches tags; ok is false when none does.
func Best(selectors []*meshv1.Selector, tags map[string]string) (best Rank, ok bool) {
	for _, s := range selectors {
		if !Matches(s, tags) {
			continue
		}
		if rank := rankOf(s); !ok || rank.Compare(best) < 0 {
			best, ok = rank, true
		}
	}
	return best, ok
}

func rankOf(s *meshv1.Selector) (r Rank) {
	for _, want := range s.GetMatch() {
		if want == resource.AnyValue {
			r.Wildcard++
		} else {
			r.Exact++
		}
	}
	return r
}

// MostSpecific returns the policy of the mesh that is the most specific for a proxy's tags, as one MeshGateway holds for a
// gateway; nil when none matches. Resources that don't select proxies are passed over.
func MostSpecific(policies []*resource.Resource, mesh string, tags map[string]string) *resource.Resource {
	return MostSpecificForAny(policies, mesh, []map[string]string{tags})
}

// MostSpecificForAny is MostSpecific for a proxy that is known by several sets of tags, such as those of its inbounds: a policy
// counts with the set that it matches best.
func MostSpecificForAny(policies []*resource.Resource, mesh string, sets []map[string]string) *resource.Resource {
	var best *resource.Resource
	var bestRank Rank
	for _, tags := range sets {
		for _, r := range policies {
			rank, ok := rankForProxy(r, mesh, tags)
			if !ok {
				continue
			}
			if best == nil || cmp.Or(rank.Compare(bestRank), r.Key.Compare(best.Key)) < 0 {
				best, bestRank = r, rank
			}
		}
	}
	return best
}

// AllMatching returns all policies of the mesh that match a proxy's tags, the most specific first, as every
// MeshGatewayRoute that matches holds for a gateway. Routes that select listeners are found with the tags of both.
func AllMatching(policies []*resource.Resource, mesh string, tags map[string]string) []*resource.Resource {
	type ranked struct {
		Rank
		r *resource.Resource
	}
	var found []ranked
	for _, r := range policies {
		if rank, ok := rankForProxy(r, mesh, tags); ok {
			found = append(found, ranked{rank, r})
		}
	}
	slices.SortFunc(found, func(a, b ranked) int { return cmp.Or(a.Compare(b.Rank), a.r.Key.Compare(b.r.Key)) })
	out := make([]*resource.Resource, len(found))
	for i := range found {
		out[i] = found[i].r
	}
	return out
}

func rankForProxy(r *resource.Resource, mesh string, tags map[string]string) (Rank, bool) {
	if r == nil || r.Mesh != mesh {
		return Rank{}, false
	}
	spec, ok := r.Spec.(DataplanePolicy)
	if !ok {
		return Rank{}, false
	}
	return Best(spec.GetSelectors(), tags)
}

// MostSpecificForConnection returns the policy of the mesh that is the most specific for a connection from a proxy with
// the tags of source to a destination with the tags of destination; nil when none matches. Resources that don't select
// connections are passed over. Policies of different kinds must not be mixed: one would hide the other.
func MostSpecificForConnection(policies []*resource.Resource, mesh string, source, destination map[string]string) *resource.Resource {
	var best *resource.Resource
	var bestRank ConnectionRank
	for _, r := range policies {
		if r == nil || r.Mesh != mesh {
			continue
		}
		spec, ok := r.Spec.(ConnectionPolicy)
		if !ok {
			continue
		}
		var rank ConnectionRank
		// The sum is largest where each end is at its best, so the ends need not be tried in pairs.
		if rank.Destination, ok = Best(spec.GetDestinations(), destination); !ok {
			continue
		}
		if rank.Source, ok = Best(spec.GetSources(), source); !ok {
			continue
		}
		if best == nil || cmp.Or(rank.Compare(bestRank), r.Key.Compare(best.Key)) < 0 {
			best, bestRank = r, rank
		}
	}
	return best
}
