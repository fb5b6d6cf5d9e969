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
	// is what the proxy confirmed to have: a resource, or one without content that stands for none, for a version of it that isn't known
	// here, or for that nothing was confirmed. Its name is the row's.
	is *xds.Resource
	// asked says that the proxy asked for it by name.
	asked bool
}

// unheard is the version in a row of which nothing was confirmed.
const unheard = "unheard"

// ofVersion stands for a resource that the proxy has from another stream, of which only the version is known; without one, for a
// resource of which the proxy knows that it does not exist.
func ofVersion(name, version string) *xds.Resource {
	return &xds.Resource{Name: name, Version: version}
}

func (r *row) name() string { return r.is.Name }

// has is nil when nothing was confirmed.
func (r *row) has() *xds.Resource {
	if r.is == nil || r.is.TypeURL == "" && r.is.Version == unheard {
		return nil
	}
	return r.is
}

// set notes what the proxy has, nil for nothing.
func (r *row) set(has *xds.Resource) {
	if has == nil {
		has = ofVersion(r.name(), unheard)
	}
	r.is = has
}

// contentOf is what a proxy has, nil where it has nothing, and where only the version is known.
func contentOf(has *xds.Resource) *xds.Resource {
	if has == nil || has.TypeURL == "" {
		return nil
	}
	return has
}

func (t table) find(name string) (int, bool) {
	return slices.BinarySearchFunc(t, name, func(r row, name string) int { return cmp.Compare(r.is.Name, name) })
}

// of is the row of a name, an empty one where there is none.
func (t table) of(name string) row {
	if at, ok := t.find(name); ok {
		return t[at]
	}
	return row{}
}

// has is what was confirmed of a name, nil for nothing.
func (t table) has(name string) *xds.Resource {
	r := t.of(name)
	return r.has()
}

func (t table) asked(name string) bool { return t.of(name).asked }

// asks lists the names that were asked for, sorted.
func (t table) asks() []string {
	var out []string
	for _, r := range t {
		if r.asked {
			out = append(out, r.name())
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
		blank := ofVersion("", unheard) // for one row after the other, as most are set at once
		for _, name := range names {
			for len(old) > 0 && old[0].name() < name {
				merged, old = append(merged, old[0]), old[1:]
			}
			if len(old) > 0 && old[0].name() == name {
				continue // it was changed in its place
			}
			blank.Name = name
			r := row{is: blank}
			if to(&r); r.is == blank {
				r.is = ofVersion(name, unheard)
			}
			merged = append(merged, r)
			empty = empty || !r.says()
		}
		*t = append(merged, old...)
	}
	if empty {
		*t = slices.DeleteFunc(*t, func(r row) bool { return !r.says() })
	}
}

func (r *row) says() bool { return r.asked || r.has() != nil }

// confirm notes what the proxy has under a name.
func (t *table) confirm(name string, has *xds.Resource) {
	t.change([]string{name}, func(r *row) { r.set(has) })
}

// mark puts a name into a set, which is nil while it is empty.
func mark(set *map[string]bool, name string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	(*set)[name] = true
}
