package ingress

import (
	"maps"
	"math"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
)

// arrange puts zones into priorities: the own zone first, then those of the order one by one, then the others together; or all
// into one. The own zone keeps priority 0 for itself while it has no endpoint, so that others don't move when one comes.
func (e Endpoints) arrange(own ir.Locality, zones map[string]zone) []ir.Locality {
	var out []ir.Locality
	takes := func(name string) bool { w, named := e.Locality.Weights[name]; return !named || w > 0 }
	if len(own.Endpoints) > 0 && takes(e.Zone) {
		if e.Locality.AllAtOnce {
			zones = maps.Clone(zones)
			if zones == nil {
				zones = map[string]zone{}
			}
			zones[e.Zone] = zone{count: uint64(own.Weight), ingresses: own.Endpoints}
		} else {
			out = append(out, own)
		}
	}
	var rest []string
	for _, name := range slices.Sorted(maps.Keys(zones)) {
		if takes(name) && !slices.Contains(e.Locality.Order, name) {
			rest = append(rest, name)
		}
	}
	if e.Locality.AllAtOnce {
		return e.weigh(0, rest, zones)
	}
	priority := uint32(1)
	for _, name := range e.Locality.Order {
		if _, reached := zones[name]; reached && takes(name) {
			out = append(out, e.weigh(priority, []string{name}, zones)...)
			priority++
		}
	}
	return append(out, e.weigh(priority, rest, zones)...)
}

// weight is the share of a zone among those of its priority.
func (e Endpoints) weight(name string, z zone) uint64 {
	if e.Locality.Weights == nil {
		return z.count
	}
	if w, named := e.Locality.Weights[name]; named {
		return uint64(w)
	}
	return 1
}

// maxScale bounds how far weights are multiplied for the sake of whole shares; it divides by 1 to 10.
const maxScale = 2520

// weigh makes the localities of one priority. All weights are multiplied by one factor, so that one endpoint behind two ingresses
// does not weigh as much as two, and shrunk where Envoy's limit of 2^32-1 for the sum of a priority would be passed.
func (e Endpoints) weigh(priority uint32, names []string, zones map[string]zone) []ir.Locality {
	scale, total := uint64(1), uint64(0)
	for _, name := range names {
		scale = min(lcm(scale, uint64(len(zones[name].ingresses))), maxScale)
		total += e.weight(name, zones[name])
	}
	// Each share is at least 1, whatever is divided, hence the room for all ingresses.
	var room uint64 = math.MaxUint32
	for _, name := range names {
		room -= min(room-1, uint64(len(zones[name].ingresses)))
	}
	for scale > 1 && total > room/scale {
		scale = max(scale/2, 1)
	}
	divisor := max((total*scale+room-1)/room, 1)

	out := make([]ir.Locality, 0, len(names))
	for _, name := range names {
		list, weight := zones[name].ingresses, e.weight(name, zones[name])
		share := max(weight*scale/divisor/uint64(len(list)), 1)
		l := ir.Locality{Zone: name, Priority: priority, Weight: uint32(max(weight/divisor, 1))}
		for _, ep := range list {
			ep.Weight = uint32(share)
			l.Endpoints = append(l.Endpoints, ep)
		}
		out = append(out, l)
	}
	return out
}

func lcm(a, b uint64) uint64 {
	g, r := a, b
	for r != 0 {
		g, r = r, g%r
	}
	return a / g * b
}
