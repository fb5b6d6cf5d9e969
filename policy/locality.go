package policy

import (
	"cmp"
	"slices"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// Locality says which zones serve a destination, as clients of one zone see it. The zero value is what holds without a policy:
// the own zone first, then all others together, by the number of their endpoints.
type Locality struct {
	// AllAtOnce balances over all zones; Order is empty then.
	AllAtOnce bool
	// Order are the zones that are tried one after the other, before all that it leaves out.
	Order []string
	// Weights are the shares of zones that are tried at once; one that is not named has 1, and nil counts endpoints.
	Weights map[string]uint32
	// Threshold is the percentage of healthy endpoints below which the next zones are tried too; 0 keeps the default.
	Threshold uint32
}

// LocalityPolicyFor returns the most specific LocalityPolicy of the mesh for a destination; nil when none matches.
func LocalityPolicyFor(policies []*resource.Resource, mesh string, destination map[string]string) *resource.Resource {
	var best *resource.Resource
	var bestRank Rank
	for _, r := range policies {
		if r == nil || r.Mesh != mesh {
			continue
		}
		spec, ok := r.Spec.(*meshv1.LocalityPolicy)
		if !ok {
			continue
		}
		rank, ok := Best(spec.GetDestinations(), destination)
		if !ok {
			continue
		}
		if best == nil || cmp.Or(rank.Compare(bestRank), r.Key.Compare(best.Key)) < 0 {
			best, bestRank = r, rank
		}
	}
	return best
}

// LocalityFor returns what the most specific LocalityPolicy says to clients in a zone. It depends on no client, as endpoints are
// shared by all that see a destination from the same zone.
func LocalityFor(policies []*resource.Resource, mesh, zone string, destination map[string]string) Locality {
	r := LocalityPolicyFor(policies, mesh, destination)
	if r == nil {
		return Locality{}
	}
	conf := r.Spec.(*meshv1.LocalityPolicy).GetConf()
	out := Locality{AllAtOnce: !or(conf.LocalFirst, true), Threshold: conf.GetFailoverThreshold()}
	if len(conf.GetWeights()) > 0 {
		out.Weights = conf.GetWeights()
	}
	if out.AllAtOnce {
		return out
	}
	for _, f := range conf.GetFailover() {
		named := slices.Contains(f.GetFrom(), zone)
		if named || len(f.GetFrom()) == 0 && out.Order == nil {
			out.Order = f.GetTo()
		}
		if named {
			break
		}
	}
	return out
}
