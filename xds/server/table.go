package server

import "github.com/zoneforge/zoneforge/xds"

// table is what one stream asked for by name and confirmed to have, of one type, sorted by name. There are several for each of thousands of
// proxies, and nearly all that a proxy's stream holds is in them, so one that says what a snapshot does refers to that.
type table struct {
	is []*xds.Resource
	// asked goes with is; nil where nothing was asked for by name.
	asked []bool
	// like is a snapshot of which the proxy has all; then is and asked are empty, and everything was asked for by name, or nothing was.
	like *snapshot
	all  bool
	// kind is the type's place in served.
	kind uint8
}

func (t *table) typeURL() string { return served[t.kind] }

// row is one name of a table.
type row struct {
	// is what the proxy confirmed to have: a resource, or one without content that stands for none, for a version of it that isn't known
	// here, or for that nothing was confirmed. Its name is the row's.
	is *xds.Resource
	// asked says that the proxy asked for it by name.
	asked bool
}

func (t *table) at(i int) row { return row{t.is[i], t.asked != nil && t.asked[i]} }

// put replaces the row at a place.
func (t *table) put(i int, r row) {
	t.is[i] = r.is
	if r.asked && t.asked == nil {
		t.asked = make([]bool, len(t.is), cap(t.is))
	}
	if t.asked != nil {
		t.asked[i] = r.asked
	}
}

func (t *table) add(r row) {
	t.is = append(t.is, nil)
	if t.asked != nil {
		t.asked = append(t.asked, false)
	}
	t.put(len(t.is)-1, r)
}

// own makes the table independent of a snapshot, before it is changed.
func (t *table) own() {
	if t.like == nil {
		return
	}
	like := t.like
	t.is, t.like = make([]*xds.Resource, 0, t.len()), nil
	for r := range like.each(t.typeURL()) {
		t.add(row{r, t.all})
	}
}

// rest lets the table refer to a snapshot where that says the same.
func (t *table) rest(want *snapshot) {
	if !t.rests(want) {
		t.own()
		asked := len(t.is) > 0 && t.at(0).asked
		next := 0
		for r := range want.each(t.typeURL()) {
			if next == len(t.is) || t.is[next].Name != r.Name || t.is[next].TypeURL == "" || t.is[next].Version != r.Version || t.at(next).asked != asked {
				return
			}
			next++
		}
		if next < len(t.is) {
			return
		}
		t.all = asked
	}
	t.is, t.asked, t.like = nil, nil, want
}

// rests says whether the table refers to a snapshot, or to another that has the same of its type.
func (t *table) rests(want *snapshot) bool {
	return t.like != nil && (t.like == want || want.same(t.typeURL(), t.like))
}

// rows are those of all names, in order.
func (t *table) rows(each func(row) bool) {
	if t.like != nil {
		for r := range t.like.each(t.typeURL()) {
			if !each(row{r, t.all}) {
				return
			}
		}
	}
	for i := range t.is {
		if !each(t.at(i)) {
			return
		}
	}
}

// len is how many rows there are, and never less.
func (t *table) len() int {
	if t.like == nil {
		return len(t.is)
	}
	lists := t.like.lists(t.typeURL())
	return len(lists[0]) + len(lists[1])
}

// keep leaves out the rows of which it says no.
func (t *table) keep(is func(row) bool) {
	t.own()
	kept := 0
	for i := range t.is {
		if r := t.at(i); is(r) {
			t.put(kept, r)
			kept++
		}
	}
	clear(t.is[kept:])
	t.is = t.is[:kept]
	if t.asked != nil {
		t.asked = t.asked[:kept]
	}
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

// find is the place of a name in a table that refers to no snapshot.
func (t *table) find(name string) (int, bool) { return place(t.is, name) }

// of is the row of a name, an empty one where there is none.
func (t *table) of(name string) row {
	if t.like != nil {
		if r := t.like.get(t.typeURL(), name); r != nil {
			return row{r, t.all}
		}
	}
	if i, ok := t.find(name); ok {
		return t.at(i)
	}
	return row{}
}

// has is what was confirmed of a name, nil for nothing.
func (t *table) has(name string) *xds.Resource {
	r := t.of(name)
	return r.has()
}

func (t *table) asksFor(name string) bool { return t.of(name).asked }

// asks lists the names that were asked for, sorted.
func (t *table) asks() []string {
	var out []string
	for r := range t.rows {
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
	t.own()
	fresh, empty := 0, false
	for _, name := range names {
		i, ok := t.find(name)
		if !ok {
			fresh++
			continue
		}
		r := t.at(i)
		to(&r)
		t.put(i, r)
		empty = empty || !r.says()
	}
	if fresh > 0 {
		merged := table{kind: t.kind, is: make([]*xds.Resource, 0, len(t.is)+fresh)}
		next := 0
		blank := ofVersion("", unheard) // for one row after the other, as most are set at once
		for _, name := range names {
			for ; next < len(t.is) && t.is[next].Name < name; next++ {
				merged.add(t.at(next))
			}
			if next < len(t.is) && t.is[next].Name == name {
				continue // it was changed in its place
			}
			blank.Name = name
			r := row{is: blank}
			if to(&r); r.is == blank {
				r.is = ofVersion(name, unheard)
			}
			merged.add(r)
			empty = empty || !r.says()
		}
		for ; next < len(t.is); next++ {
			merged.add(t.at(next))
		}
		*t = merged
	}
	if empty {
		t.keep(func(r row) bool { return r.says() })
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
