package server

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// snapshot is everything one proxy should hold at one revision, but for endpoints, which all proxies share. Immutable.
type snapshot struct {
	revision uint64
	byType   map[string]map[string]*xds.Resource
	names    map[string][]string
	// endpointOf maps a cluster that takes its endpoints by EDS to the name that it asks for.
	endpointOf map[string]string
	// permitted are the EDS names of this proxy.
	permitted map[string]bool
}

// newSnapshot indexes resources. previous, which may be nil, spares decoding clusters that did not change.
func newSnapshot(revision uint64, resources *xds.Resources, secrets []*xds.Resource, previous *snapshot) *snapshot {
	s := &snapshot{
		revision: revision, byType: map[string]map[string]*xds.Resource{}, names: map[string][]string{},
		endpointOf: map[string]string{}, permitted: map[string]bool{},
	}
	if resources == nil {
		resources = &xds.Resources{}
	}
	s.index(xds.TypeListener, resources.Listeners)
	s.index(xds.TypeRoute, resources.Routes)
	s.index(xds.TypeCluster, resources.Clusters)
	s.index(xds.TypeExtension, resources.Extensions)
	s.index(xds.TypeSecret, secrets)
	for _, cluster := range resources.Clusters {
		name := ""
		if previous != nil && previous.byType[xds.TypeCluster][cluster.Name] == cluster {
			name = previous.endpointOf[cluster.Name]
		} else {
			name = endpointName(cluster)
		}
		if name != "" {
			s.endpointOf[cluster.Name] = name
			s.permitted[name] = true
		}
	}
	s.names[xds.TypeEndpoint] = sortedKeys(s.permitted)
	return s
}

func (s *snapshot) index(typeURL string, resources []*xds.Resource) {
	m := make(map[string]*xds.Resource, len(resources))
	for _, r := range resources {
		m[r.Name] = r
	}
	s.byType[typeURL] = m
	s.names[typeURL] = sortedKeys(m)
}

// endpointName returns the EDS name of a cluster, "" when it takes its endpoints from elsewhere. A cluster that does not
// decode has none: Envoy is the one to refuse it, in its own words.
func endpointName(cluster *xds.Resource) string {
	var c clusterv3.Cluster
	if cluster.Any.UnmarshalTo(&c) != nil || c.GetType() != clusterv3.Cluster_EDS {
		return ""
	}
	if name := c.GetEdsClusterConfig().GetServiceName(); name != "" {
		return name
	}
	return c.GetName()
}

// changed are the names of which a snapshot holds another resource than the one before it, which may be nil, or none.
// Endpoints are shared, so of them only what may be asked for counts.
func (s *snapshot) changed(typeURL string, previous *snapshot) []string {
	var out []string
	if typeURL == xds.TypeEndpoint {
		for _, name := range s.names[typeURL] {
			if previous == nil || !previous.permitted[name] {
				out = append(out, name)
			}
		}
		if previous != nil {
			for _, name := range previous.names[typeURL] {
				if !s.permitted[name] {
					out = append(out, name)
				}
			}
		}
		return out
	}
	for name, r := range s.byType[typeURL] {
		if previous == nil || previous.byType[typeURL][name] != r {
			out = append(out, name)
		}
	}
	if previous != nil {
		for name := range previous.byType[typeURL] {
			if s.byType[typeURL][name] == nil {
				out = append(out, name)
			}
		}
	}
	return out
}
