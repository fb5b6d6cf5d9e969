package server

import (
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// delta is the response of incremental ADS. It refers to the resources' bytes and copies none.
func (r *response) delta() *discoveryv3.DeltaDiscoveryResponse {
	out := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: r.typeURL, Nonce: r.nonce, RemovedResources: r.removed,
		SystemVersionInfo: strconv.FormatUint(r.revision, 10),
	}
	if len(r.upserts) == 0 {
		return out
	}
	wrapped := make([]discoveryv3.Resource, len(r.upserts))
	out.Resources = make([]*discoveryv3.Resource, len(r.upserts))
	for i, u := range r.upserts {
		wrapped[i].Name, wrapped[i].Version, wrapped[i].Resource = u.Name, u.Version, u.Any()
		out.Resources[i] = &wrapped[i]
	}
	return out
}
