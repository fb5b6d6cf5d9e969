package resource

import (
	"maps"
	"slices"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// maxZoneWeight bounds the weight of a zone, so that sums stay within what proxies add up.
const maxZoneWeight = 1_000_000

// maxFailoverZones leaves room below the number of priorities that proxies know, which is 129.
const maxFailoverZones = 100

func validateLocalityPolicy(s scope, r *Resource) {
	t := Spec[*meshv1.LocalityPolicy](r)
	checkSelectors(s, "destinations", t.GetDestinations())
	c, conf := t.GetConf(), s.at("conf")
	if c == nil {
		s.errorf("add conf with failover, weights or localFirst: false", "needs conf")
		return
	}
	if c.LocalFirst != nil && !c.GetLocalFirst() && len(c.GetFailover()) > 0 {
		conf.at("failover").errorf("remove it, or localFirst: false", "nothing fails over where all zones serve at once")
	}
	if p := c.FailoverThreshold; p != nil && (*p < 1 || *p > 100) {
		conf.at("failoverThreshold").errorf("", "a percentage from 1 to 100")
	}
	ordered := map[string]int{}
	for i, f := range c.GetFailover() {
		at := conf.at("failover").index(i)
		if len(f.GetTo()) == 0 {
			at.errorf("", "needs to with a zone")
		}
		if len(f.GetTo()) > maxFailoverZones {
			at.at("to").errorf("those that are left out come last, together", "an order has at most %d zones", maxFailoverZones)
		}
		from := f.GetFrom()
		if len(from) == 0 {
			from = []string{""}
		}
		for n, zone := range from {
			place := at
			if zone != "" {
				place = at.at("from").index(n)
				checkZone(place, zone)
			}
			if first, twice := ordered[zone]; twice {
				place.errorf("keep one of them", "the order for this zone is given already, by failover[%d]", first)
			} else {
				ordered[zone] = i
			}
		}
		for n, zone := range f.GetTo() {
			checkZone(at.at("to").index(n), zone)
			if slices.Contains(f.GetTo()[:n], zone) {
				at.at("to").index(n).errorf("remove one of them", "zone %s is there twice", zone)
			}
		}
	}
	for _, zone := range slices.Sorted(maps.Keys(c.GetWeights())) {
		at := conf.at("weights").key(zone)
		checkZone(at, zone)
		if c.GetWeights()[zone] > maxZoneWeight {
			at.errorf("", "a weight is at most %d", maxZoneWeight)
		}
	}
}

func checkZone(s scope, zone string) {
	if !isDNSLabel(zone) {
		s.errorf("", "%q is no name for a zone", zone)
	}
}
