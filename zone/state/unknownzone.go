package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// unknownZones says, by LocalityPolicy, which zones it sends requests to that nobody knows. Such a policy is in force: what it says of
// other zones holds, and the zone may still come. A zone that an order is for may serve nothing, so those are not looked at.
func (s *State) unknownZones() map[resource.Key]string {
	if s.astray != nil {
		return s.astray
	}
	known := map[string]bool{s.zone: true}
	for _, r := range s.remotes {
		known[r.Zone] = true
	}
	for zone := range s.reaches {
		known[zone] = true
	}
	s.astray = map[resource.Key]string{}
	for _, m := range s.meshes {
		for _, r := range m.policies["LocalityPolicy"].All() {
			unknown := map[string]bool{}
			conf := spec[*meshv1.LocalityPolicy](r).GetConf()
			for zone := range conf.GetWeights() {
				unknown[zone] = !known[zone]
			}
			for _, f := range conf.GetFailover() {
				for _, zone := range f.GetTo() {
					unknown[zone] = !known[zone]
				}
			}
			maps.DeleteFunc(unknown, func(_ string, is bool) bool { return !is })
			if len(unknown) > 0 {
				s.astray[r.Key] = fmt.Sprintf("zone %s knows of no ingress and no service in %s, so nothing goes there: mend the name, or start the zone with its ingress",
					s.zone, strings.Join(slices.Sorted(maps.Keys(unknown)), ", "))
			}
		}
	}
	return s.astray
}
