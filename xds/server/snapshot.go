package server

import (
	"cmp"
	"iter"
	"slices"

	"github.com/zoneforge/zoneforge/xds"
)

// snapshot is everything one proxy should hold at one revision, but for endpoints, which all proxies share. Immutable. It
// holds no more than it was given, since there is one for each proxy.
type snapshot struct {
	revision  uint64
	resources *xds.Resources
	// secrets are sorted by name.
	secrets []*xds.Resource
	// permitted are the EDS names of this proxy, sorted.
	permitted []string
}

// newSnapshot takes resources, nil for none. The names that it permits are those of previous, which may be nil, where they are the same.
func newSnapshot(revision uint64, resources *xds.Resources, secrets []*xds.Resource, previous *snapshot) *snapshot {
	resources = inOrder(resources)
	s := &snapshot{revision: revision, resources: resources, secrets: sorted(secrets), permitted: resources.EndpointsNames()}
	if previous != nil && slices.Equal(s.permitted, previous.permitted) {
		s.permitted = previous.permitted
	}
	return s
}

// each lists all of one of the types that are served but endpoints, sorted by name.
func (s *snapshot) each(typeURL string) iter.Seq[*xds.Resource] {
	if typeURL == xds.TypeSecret {
		return slices.Values(s.secrets)
	}
	return s.resources.Each(typeURL)
}

// lists are what each lists in the order of names.
func (s *snapshot) lists(typeURL string) [2][]*xds.Resource {
	if typeURL == xds.TypeSecret {
		return [2][]*xds.Resource{s.secrets}
	}
	own, shared := s.resources.Lists(typeURL)
	return [2][]*xds.Resource{own, shared}
}

// has says whether there is anything of a type.
func (s *snapshot) has(typeURL string) bool {
	lists := s.lists(typeURL)
	return len(lists[0])+len(lists[1]) > 0
}

// same says whether a snapshot has all of a type as another has it.
func (s *snapshot) same(typeURL string, other *snapshot) bool {
	a, b := s.lists(typeURL), other.lists(typeURL)
	return slices.Equal(a[0], b[0]) && (identical(a[1], b[1]) || slices.Equal(a[1], b[1]))
}

// inOrder are resources by name, the given ones where they are so already.
func inOrder(r *xds.Resources) *xds.Resources {
	if r == nil {
		return nil
	}
	out := &xds.Resources{Listeners: sorted(r.Listeners), Routes: sorted(r.Routes), Clusters: sorted(r.Clusters), Extensions: sorted(r.Extensions), Shared: inOrder(r.Shared)}
	if out.Shared == r.Shared && identical(out.Listeners, r.Listeners) && identical(out.Routes, r.Routes) && identical(out.Clusters, r.Clusters) && identical(out.Extensions, r.Extensions) {
		return r
	}
	return out
}

func sorted(resources []*xds.Resource) []*xds.Resource {
	byName := func(a, b *xds.Resource) int { return cmp.Compare(a.Name, b.Name) }
	if slices.IsSortedFunc(resources, byName) {
		return resources
	}
	resources = slices.Clone(resources)
	slices.SortFunc(resources, byName)
	return resources
}

// get returns a resource, nil when there is none.
func (s *snapshot) get(typeURL, name string) *xds.Resource {
	if s == nil {
		return nil
	}
	lists := s.lists(typeURL)
	for _, list := range [...][]*xds.Resource{lists[1], lists[0]} {
		if at, ok := place(list, name); ok {
			return list[at]
		}
	}
	return nil
}

// place is where a name is in a list that is sorted by name, or would be.
func place(list []*xds.Resource, name string) (_ int, ok bool) {
	from, to := 0, len(list)
	for from < to {
		if at := int(uint(from+to) / 2); list[at].Name < name {
			from = at + 1
		} else {
			to = at
		}
	}
	return from, from < len(list) && list[from].Name == name
}

// endpointsOf returns the EDS name of a cluster, "" for none.
func (s *snapshot) endpointsOf(cluster string) string {
	if r := s.get(xds.TypeCluster, cluster); r != nil {
		return r.EndpointsName()
	}
	return ""
}

func (s *snapshot) permits(endpoints string) bool {
	_, ok := slices.BinarySearch(s.permitted, endpoints)
	return ok
}

// changed calls each for the names of which a snapshot holds another resource than the one before it, which may be nil, or
// none; it may call it for what is merely kept in another way. Endpoints are shared, so of them only what may be asked for counts.
func (s *snapshot) changed(typeURL string, previous *snapshot, each func(name string)) {
	if previous == nil {
		previous = &snapshot{}
	}
	if typeURL == xds.TypeEndpoint {
		same := func(string, string) bool { return true }
		merge(s.permitted, previous.permitted, func(name string) string { return name }, same, each)
		return
	}
	same := func(a, b *xds.Resource) bool { return a == b }
	now, before := s.lists(typeURL), previous.lists(typeURL)
	for i := range now {
		merge(now[i], before[i], func(r *xds.Resource) string { return r.Name }, same, each)
	}
}

// merge calls each for the names that are in one of two sorted lists alone, or in both but not the same.
func merge[T any](a, b []T, name func(T) string, same func(T, T) bool, each func(string)) {
	if identical(a, b) {
		return
	}
	for len(a)+len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && name(a[0]) < name(b[0]):
			each(name(a[0]))
			a = a[1:]
		case len(a) == 0 || name(b[0]) < name(a[0]):
			each(name(b[0]))
			b = b[1:]
		default:
			if !same(a[0], b[0]) {
				each(name(a[0]))
			}
			a, b = a[1:], b[1:]
		}
	}
}

// identical says whether two slices are one.
func identical[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
