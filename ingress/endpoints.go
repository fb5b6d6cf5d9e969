package ingress

import (
	"cmp"
	"math"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
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
	// MTLS is whether the mesh has mTLS on. Without it nothing carries a server name, so no other zone can be reached.
	MTLS bool
}

// Build makes the endpoints as a view sees them. Zones are ordered by priority and name, endpoints by address and port; a
// zone without an endpoint is left out. It fails only where mesh or service is empty.
//
// Another zone's weight is its count of matching endpoints. Each of its ingresses has the same share of it; endpoints'
// weights keep that proportion between zones too, so that it holds with and without locality-weighted balancing.
func (e Endpoints) Build(view View) (ir.Endpoints, error) {
	sni, err := e.SNI()
	if err != nil {
		return ir.Endpoints{}, err
	}
	out := ir.Endpoints{Name: EndpointsName(sni, view)}
	if own := e.local(); len(own.Endpoints) > 0 {
		out.Localities = append(out.Localities, own)
	}
	if view == ClientView && e.MTLS {
		out.Localities = append(out.Localities, e.remote()...)
	}
	return out, nil
}

func (e Endpoints) local() ir.Locality {
	l := ir.Locality{Zone: e.Zone}
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

func (e Endpoints) remote() []ir.Locality {
	ingresses := map[string][]ir.Endpoint{}
	for _, r := range e.Ingresses {
		if r.usable() && r.Zone != e.Zone {
			ingresses[r.Zone] = append(ingresses[r.Zone], ir.Endpoint{Address: r.Address, Port: r.Port})
		}
	}
	for zone, list := range ingresses {
		slices.SortFunc(list, compareEndpoints)
		ingresses[zone] = slices.Compact(list)
	}

	counts := map[string]uint64{}
	for _, a := range e.Available {
		if a.GetService() != e.Service || len(ingresses[a.GetZone()]) == 0 {
			continue
		}
		for _, set := range a.GetTagSets() {
			if e.matches(set.GetTags(), a.GetZone()) {
				counts[a.GetZone()] += uint64(set.GetCount())
			}
		}
	}
	zones := make([]string, 0, len(counts))
	for zone, n := range counts {
		if n > 0 {
			zones = append(zones, zone)
		}
	}
	slices.Sort(zones)
	return weigh(zones, counts, ingresses)
}

// maxScale bounds how far weights are multiplied for the sake of whole shares; it divides by 1 to 10.
const maxScale = 2520

// weigh turns counts into weights. All counts are multiplied by one factor, so that one endpoint behind two ingresses does
// not weigh as much as two, and shrunk where Envoy's limit of 2^32-1 for the sum of a priority would be passed.
func weigh(zones []string, counts map[string]uint64, ingresses map[string][]ir.Endpoint) []ir.Locality {
	scale, total := uint64(1), uint64(0)
	for _, zone := range zones {
		n := uint64(len(ingresses[zone]))
		scale = min(lcm(scale, n), maxScale)
		total += counts[zone]
	}
	// Each share is at least 1, whatever is divided, hence the room for all ingresses.
	var room uint64 = math.MaxUint32
	for _, zone := range zones {
		room -= min(room-1, uint64(len(ingresses[zone])))
	}
	for scale > 1 && total > room/scale {
		scale = max(scale/2, 1)
	}
	divisor := (total*scale + room - 1) / room

	out := make([]ir.Locality, 0, len(zones))
	for _, zone := range zones {
		list := ingresses[zone]
		share := max(counts[zone]*scale/max(divisor, 1)/uint64(len(list)), 1)
		l := ir.Locality{Zone: zone, Priority: 1, Weight: uint32(max(counts[zone]/max(divisor, 1), 1))}
		for _, ep := range list {
			ep.Weight = uint32(share)
			l.Endpoints = append(l.Endpoints, ep)
		}
		out = append(out, l)
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

func lcm(a, b uint64) uint64 {
	g, r := a, b
	for r != 0 {
		g, r = r, g%r
	}
	return a / g * b
}
