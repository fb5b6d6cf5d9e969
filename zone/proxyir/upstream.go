package proxyir

import (
	"maps"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// endpointPolicies gives a cluster what policies say about its endpoints: how one is picked, how much may be under way, and which
// are left out. All are found by the cluster's own destination, so that it is the same whichever listener or route leads to it.
func (b *builder) endpointPolicies(c *ir.Cluster, tags map[string]string) {
	route := b.connection("TrafficRoute", tags)
	if c.LoadBalancer, _ = loadBalancer(route); c.LoadBalancer != nil {
		b.use(route, "load balancing over %s", tagsText(tags))
	}
	breaker := connectionSpec[*meshv1.CircuitBreaker](b, "CircuitBreaker", tags)
	c.Limits = policy.LimitsOf(breaker, b.retry(tags))
	c.Outlier = policy.OutlierOf(breaker)
	check := connectionSpec[*meshv1.HealthCheck](b, "HealthCheck", tags)
	c.HealthCheck = policy.HealthCheckOf(check, c.Protocol, b.Protocols[tags[resource.TagService]] == "grpc")
	b.use(policy.LocalityPolicyFor(b.Policies["LocalityPolicy"].To(tags), b.MeshName, tags), "endpoints of %s", tagsText(tags))
}

// connectionSpec is the policy of a kind for the connections to a destination, which is noted; the zero value when there is none.
func connectionSpec[M any](b *builder, kind string, tags map[string]string) (none M) {
	r := b.connection(kind, tags)
	if r == nil {
		return none
	}
	b.use(r, "connections to %s", tagsText(tags))
	spec, _ := r.Spec.(M)
	return spec
}

// loadBalancer is that of a TrafficRoute, which may be nil, and what of a request it hashes.
func loadBalancer(r *resource.Resource) (*ir.LoadBalancer, []ir.HashPolicy) {
	if r == nil {
		return nil, nil
	}
	spec, _ := r.Spec.(*meshv1.TrafficRoute)
	return policy.LoadBalancerOf(spec.GetConf().GetLoadBalancer())
}

// hash is what of a request picks its endpoint: as one request has one hash, that of the first destination that hashes.
func (b *builder) hash(clusters []ir.WeightedCluster) []ir.HashPolicy {
	for _, c := range clusters {
		tags, external := b.external[c.Cluster]
		if !external {
			tags = tagsOf(b.destinations[c.Cluster])
		}
		if _, hash := loadBalancer(b.connection("TrafficRoute", tags)); hash != nil {
			return hash
		}
	}
	return nil
}

// tagsOf are the tags that a destination is asked for by.
func tagsOf(d ingress.Destination) map[string]string {
	tags := make(map[string]string, len(d.Subset)+1)
	maps.Copy(tags, d.Subset)
	tags[resource.TagService] = d.Service
	return tags
}
