package policy

import (
	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Defaults of slow start.
const (
	defaultAggression = 1
	defaultMinShare   = 10
)

// LoadBalancerOf returns how an endpoint is picked, and by what of a request where its hash decides; nil for round robin
// without anything beside.
func LoadBalancerOf(l *meshv1.LoadBalancer) (*ir.LoadBalancer, []ir.HashPolicy) {
	if l == nil {
		return nil, nil
	}
	out := &ir.LoadBalancer{Algorithm: ir.RoundRobin}
	switch a := l.GetAlgorithm().(type) {
	case *meshv1.LoadBalancer_LeastRequest_:
		out.Algorithm, out.Choices = ir.LeastRequest, a.LeastRequest.GetChoiceCount()
	case *meshv1.LoadBalancer_Random_:
		out.Algorithm = ir.RandomPick
	case *meshv1.LoadBalancer_RingHash_:
		out.Algorithm, out.MinRing, out.MaxRing = ir.RingHash, a.RingHash.GetMinRingSize(), a.RingHash.GetMaxRingSize()
		out.Murmur = a.RingHash.GetHashFunction() == meshv1.LoadBalancer_HASH_FUNCTION_MURMUR_HASH_2
	case *meshv1.LoadBalancer_Maglev_:
		out.Algorithm, out.Table = ir.Maglev, a.Maglev.GetTableSize()
	}
	if w := l.GetSlowStart(); w != nil {
		out.SlowStart = &ir.SlowStart{Window: bound(w.GetWindow(), 0), Aggression: or(w.Aggression, defaultAggression),
			MinShare: or(w.MinWeightPercent, defaultMinShare)}
	}
	if !out.Hashes() {
		if out.Algorithm == ir.RoundRobin && out.SlowStart == nil {
			return nil, nil
		}
		return out, nil
	}
	var hash []ir.HashPolicy
	for _, p := range l.GetHashPolicies() {
		h := ir.HashPolicy{Terminal: p.GetTerminal()}
		switch v := p.GetPolicy().(type) {
		case *meshv1.LoadBalancer_HashPolicy_Header:
			h.Header = v.Header.GetName()
		case *meshv1.LoadBalancer_HashPolicy_Cookie:
			h.Cookie = &ir.HashCookie{Name: v.Cookie.GetName(), TTL: bound(v.Cookie.GetTtl(), 0), Path: v.Cookie.GetPath()}
		case *meshv1.LoadBalancer_HashPolicy_QueryParameter:
			h.Query = v.QueryParameter.GetName()
		default:
			h.Source = true
		}
		hash = append(hash, h)
	}
	if len(hash) == 0 {
		hash = []ir.HashPolicy{{Source: true}}
	}
	return out, hash
}
