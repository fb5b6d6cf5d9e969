package server

import (
	"slices"

	"github.com/zoneforge/zoneforge/xds"
)

// cargo is what a response carries, both sorted by name; most carry one thing.
type cargo struct {
	upserts []*xds.Resource
	removed []string
}

func newCargo(upserts []*xds.Resource, removed []string) cargo {
	if !slices.IsSorted(removed) {
		removed = slices.Sorted(slices.Values(removed))
	}
	return cargo{sorted(upserts), removed}
}

// get gives a resource, nil for one that is removed.
func (c cargo) get(name string) (_ *xds.Resource, ok bool) {
	if at, ok := place(c.upserts, name); ok {
		return c.upserts[at], true
	}
	_, ok = slices.BinarySearch(c.removed, name)
	return nil, ok
}

// names are those of both, sorted.
func (c cargo) names() []string {
	out := make([]string, 0, len(c.upserts)+len(c.removed))
	for _, r := range c.upserts {
		out = append(out, r.Name)
	}
	if len(c.removed) > 0 {
		out = append(out, c.removed...)
		slices.Sort(out)
	}
	return out
}
