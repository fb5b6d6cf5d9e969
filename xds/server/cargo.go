package server

import (
	"cmp"
	"slices"
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// cargo is what a response carries, sorted by name; most carry one thing.
type cargo []item

// item is one resource, nil for one that is removed.
type item struct {
	name     string
	resource *xds.Resource
}

func newCargo(upserts []*xds.Resource, removed []string) cargo {
	c := make(cargo, 0, len(upserts)+len(removed))
	for _, r := range upserts {
		c = append(c, item{r.Name, r})
	}
	for _, name := range removed {
		c = append(c, item{name, nil})
	}
	byName := func(a, b item) int { return cmp.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(c, byName) {
		slices.SortFunc(c, byName)
	}
	return c
}

func (c cargo) get(name string) (_ *xds.Resource, ok bool) {
	at, ok := slices.BinarySearchFunc(c, name, func(i item, name string) int { return cmp.Compare(i.name, name) })
	if !ok {
		return nil, false
	}
	return c[at].resource, true
}

func (c cargo) names() []string {
	out := make([]string, 0, len(c))
	for _, i := range c {
		out = append(out, i.name)
	}
	return out
}

// alone says whether a response of incremental ADS is nothing but the endpoints of one service, as nearly all are that are sent while
// endpoints come and go. Those are the same message for all proxies, and their nonce is the version: it is unique as long as one is on
// its way.
func (r *response) alone() bool {
	return r.typeURL == xds.TypeEndpoint && len(r.upserts) == 1 && len(r.removed) == 0 && r.nonce == r.upserts[0].Version
}

// newMessage is the message of a response that is alone.
func newMessage(revision uint64, r *xds.Resource) *discoveryv3.DeltaDiscoveryResponse {
	return &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: r.TypeURL, Nonce: r.Version, SystemVersionInfo: strconv.FormatUint(revision, 10),
		Resources: []*discoveryv3.Resource{{Name: r.Name, Version: r.Version, Resource: r.Any()}},
	}
}

// message is what is sent for a response of incremental ADS.
func (s *Server) message(r *response) *discoveryv3.DeltaDiscoveryResponse {
	if r.alone() {
		s.endpointsMu.RLock()
		e := s.endpoints[r.upserts[0].Name]
		s.endpointsMu.RUnlock()
		if e.resource == r.upserts[0] {
			return e.message
		}
	}
	return r.delta()
}
