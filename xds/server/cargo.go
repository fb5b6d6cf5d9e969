package server

import (
	"cmp"
	"slices"

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
