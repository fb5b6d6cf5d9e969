package server

import "slices"

// nameSet is a set of names, sorted. There are few in it as a rule, so it takes less than a map, and what has to be in order is.
type nameSet []string

func (n nameSet) has(name string) bool {
	_, ok := slices.BinarySearch(n, name)
	return ok
}

func (n *nameSet) add(name string) {
	if at, ok := slices.BinarySearch(*n, name); !ok {
		*n = slices.Insert(*n, at, name)
	}
}

// addAll adds names that are sorted, each once; there may be any number of them.
func (n *nameSet) addAll(names []string) {
	if !slices.ContainsFunc(names, func(name string) bool { return !n.has(name) }) {
		return
	}
	all := slices.Concat(*n, names)
	slices.Sort(all)
	*n = slices.Compact(all)
}
