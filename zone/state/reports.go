package state

import (
	"maps"
	"slices"

	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
)

// report takes what one replica of a zone reports of the service, nil for nothing any more, and gives what is taken to be there: nil when
// no replica reports anything. Each replica reports all endpoints that it knows, so of each tag set the highest count is right:
// the others haven't heard of all of them, or of those that went.
func (v *service) report(zone, record string, a *federationv1.ServiceAvailability) *federationv1.ServiceAvailability {
	all := v.reports[zone]
	if a == nil {
		delete(all, record)
	} else if all == nil {
		all = map[string]*federationv1.ServiceAvailability{record: a}
		v.reports[zone] = all
	} else {
		all[record] = a
	}
	names := slices.Sorted(maps.Keys(all))
	switch len(names) {
	case 0:
		delete(v.reports, zone)
		return nil
	case 1:
		return all[names[0]]
	}
	most := map[string]*federationv1.TagSet{}
	for _, name := range names {
		for _, t := range all[name].GetTagSets() {
			if key := tagsKey(t.GetTags()); most[key].GetCount() < t.GetCount() {
				most[key] = t
			}
		}
	}
	out := &federationv1.ServiceAvailability{Zone: zone, Service: all[names[0]].GetService()}
	for _, key := range slices.Sorted(maps.Keys(most)) {
		out.TagSets = append(out.TagSets, most[key])
	}
	return out
}
