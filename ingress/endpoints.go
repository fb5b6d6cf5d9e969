package ingress

import (
	"cmp"
	"math"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// View says who looks at a service.
type View string

// Views.
const (
	// ClientView is that of gateways and sidecars: endpoints of their own zone first, ingresses of other zones after.
	ClientView View = "client"
	// IngressView is that of the zone ingress: its own zone only, so that no connection is handed on in circles.
	IngressView View = "ingress"
)

// EndpointsName is the name of the ir.Endpoints of a server name in a view.
func EndpointsName(sni string, view View) string { return sni + "/" + string(view) }

// Local is an endpoint of the service in the own zone.
type Local struct {
	Address string
	Port    uint32
	Tags    map[string]string
}

// Remote is a zone ingress as it is reached from other zones.
type Remote struct {
	Zone    string
	Address string
	Port    uint32
}

// RemoteOf takes the advertised address and port of a zone ingress, or those it listens on. It is false where the zone,
// an address or a port is missing or out of range.
func RemoteOf(zi *meshv1.ZoneIngress) (Remote, bool) {
	n := zi.GetNetworking()
	r := Remote{
		Zone:    zi.GetZone(),
		Address: cmp.Or(n.GetAdvertisedAddress(), n.GetAddress()),
		Port:    cmp.Or(n.GetAdvertisedPort(), n.GetPort()),
	}
	return r, r.usable()
}

func (r Remote) usable() bool {
	return r.Zone != "" && r.Address != "" && r.Port > 0 && r.Port <= math.MaxUint16
}

// Endpoints is all that the endpoints of one destination are built from. The order of its lists does not matter.
type Endpoints struct {
	Destination
	// Zone is the own zone.
	Zone string
	// Local are the service's healthy endpoints in the own zone.
	Local []Local
	// Available is what zones report for the service in this mesh; other services and the own zone are passed over.
	Available []*federationv1.ServiceAvailability
	// Ingresses of other zones; those that are not usable are passed over.
	Ingresses []Remote
	// Locality orders and weighs zones for clients.
	Locality policy.Locality
	// MTLS is whether the mesh has mTLS on. Without it nothing carries a server name, so no other zone can be reached.
	MTLS bool
}

// Build makes the endpoints as a view sees them. Zones are ordered by priority and name, endpoints by address and port; a
// zone without an endpoint is left out. It fails only where mesh or service is empty.
//
// Without weights of its own, another zone's weight is its count of matching endpoints. Each of its ingresses has the same share
// of it; endpoints' weights keep that proportion between zones too, so that it holds with and without locality-weighted balancing.
func (e Endpoints) Build(view View) (ir.Endpoints, error) {
	sni, err := e.SNI()
	if err != nil {
		return ir.Endpoints{}, err
	}
	out := ir.Endpoints{Name: EndpointsName(sni, view)}
	own := e.local()
	if view != ClientView {
		if len(own.Endpoints) > 0 {
			out.Localities = append(out.Localities, own)
		}
		return out, nil
	}
	if t := e.Locality.Threshold; t > 0 {
		out.Overprovisioning = (10_000 + t - 1) / t
	}
	var zones map[string]zone
	if e.MTLS {
		zones = e.remote()
	}
	out.Localities = e.arrange(own, zones)
	return out, nil
}

func (e Endpoints) local() ir.Locality {
	l := ir.Locality{Zone: e.Zone, Endpoints: make([]ir.Endpoint, 0, len(e.Local))}
	for _, ep := range e.Local {
		if e.matches(ep.Tags, e.Zone) {
			l.Endpoints = append(l.Endpoints, ir.Endpoint{Address: ep.Address, Port: ep.Port, Weight: 1})
		}
	}
	slices.SortFunc(l.Endpoints, compareEndpoints)
	l.Endpoints = slices.Compact(l.Endpoints)
	l.Weight = uint32(len(l.Endpoints))
	return l
}

// zone is another zone as the destination is reached there.
type zone struct {
	// count is how many endpoints are behind the ingresses.
	count     uint64
	ingresses []ir.Endpoint
}

func (e Endpoints) remote() map[string]zone {
	out := map[string]zone{}
	for _, r := range e.Ingresses {
		if r.usable() && r.Zone != e.Zone {
			z := out[r.Zone]
			z.ingresses = append(z.ingresses, ir.Endpoint{Address: r.Address, Port: r.Port})
			out[r.Zone] = z
		}
	}
	for _, a := range e.Available {
		z, reached := out[a.GetZone()]
		if a.GetService() != e.Service || !reached {
			continue
		}
		for _, set := range a.GetTagSets() {
			if e.matches(set.GetTags(), a.GetZone()) {
				z.count += uint64(set.GetCount())
			}
		}
		out[a.GetZone()] = z
	}
	for name, z := range out {
		if z.count == 0 {
			delete(out, name)
			continue
		}
		slices.SortFunc(z.ingresses, compareEndpoints)
		z.ingresses = slices.Compact(z.ingresses)
		out[name] = z
	}
	return out
}

// matches tells whether tags contain the subset. The zone is a fact of where the endpoint is, whatever its tags claim.
func (e Endpoints) matches(tags map[string]string, zone string) bool {
	for tag, want := range e.Subset {
		got, ok := tags[tag]
		switch tag {
		case resource.TagService:
			continue
		case resource.TagZone:
			got, ok = zone, true
		}
		if !ok || want != resource.AnyValue && got != want {
			return false
		}
	}
	return true
}

func compareEndpoints(a, b ir.Endpoint) int {
	return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
}
