package server

import (
	"cmp"
	"slices"

	"github.com/zoneforge/zoneforge/xds"
)

// table is what one stream asked for by name and confirmed to have, of one type. It is a sorted slice, since there are several for each
// of thousands of proxies, and nearly all that a proxy's stream holds is in them.
type table []row

type row struct {
	name string
	// has is what the proxy confirmed to have, nil when it confirmed nothing: a resource, none, or a version of one that isn't known here.
	has *xds.Resource
	// asked says that the proxy asked for it by name.
	asked bool
}

// none stands for a resource of which the proxy knows that it does not exist.
var none = &xds.Resource{Version: absent}

// ofVersion stands for a resource that the proxy has from another stream, of which only the version is known.
func ofVersion(version string) *xds.Resource {
	if version == absent {
		return none
	}
	return &xds.Resource{Version: version}
}

// contentOf is what a proxy has, nil where it has nothing, and where only the version is known.
func contentOf(has *xds.Resource) *xds.Resource {
	if has == nil || has.TypeURL == "" {
		return nil
	}
	return has
}

func (t table) find(name string) (int, bool) {
	return slices.BinarySearchFunc(t, name, func(r row, name string) int { return cmp.Compare(r.name, name) })
}

// of is the row of a name, an empty one where there is none.
func (t table) of(name string) row {
	if at, ok := t.find(name); ok {
		return t[at]
	}
	return row{}
}

func (t table) asked(name string) bool { return t.of(name).asked }

// asks lists the names that were asked for, sorted.
func (t table) asks() []string {
	var out []string
	for _, r := range t {
		if r.asked {
			out = append(out, r.name)
		}
	}
	return out
}

// change merges rows into the table: each is made by the row of its name, which is an empty one where there was none. Names must be
// sorted, and none may be twice. Rows that say nothing go.
func (t *table) change(names []string, to func(*row)) {
	if len(names) == 0 {
		return
	}
	old := *t
	fresh, empty := 0, false
	for _, name := range names {
		at, ok := old.find(name)
		if !ok {
			fresh++
			continue
		}
		to(&old[at])
		empty = empty || !old[at].says()
	}
	if fresh > 0 {
		merged := make(table, 0, len(old)+fresh)
		for _, name := range names {
			for len(old) > 0 && old[0].name < name {
				merged, old = append(merged, old[0]), old[1:]
			}
			if len(old) > 0 && old[0].name == name {
				continue // it was changed in its place
			}
			r := row{name: name}
			to(&r)
			merged = append(merged, r)
			empty = empty || !r.says()
		}
		*t = append(merged, old...)
	}
	if empty {
		*t = slices.DeleteFunc(*t, func(r row) bool { return !r.says() })
	}
}

func (r *row) says() bool { return r.has != nil || r.asked }

// confirm notes what the proxy has under a name.
func (t *table) confirm(name string, has *xds.Resource) {
	t.change([]string{name}, func(r *row) { r.set(has) })
}

// set keeps the name that resources share in place of one that came with a request.
func (r *row) set(has *xds.Resource) {
	r.has = has
	if has != nil && has.Name == r.name {
		r.name = has.Name
	}
}

// mark puts a name into a set, which is nil while it is empty.
func mark(set *map[string]bool, name string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	(*set)[name] = true
}
