package server

import (
	"cmp"
	"slices"

	"github.com/zoneforge/zoneforge/xds"
)

// snapshot is everything one proxy should hold at one revision, but for endpoints, which all proxies share. Immutable. It
// holds no more than slices of what it was given, since there is one for each proxy.
type snapshot struct {
	revision uint64
	// lists are sorted by name, in the order of served; there is none of endpoints.
	lists [types][]*xds.Resource
	// permitted are the EDS names of this proxy, sorted.
	permitted []string
}

// newSnapshot orders resources. What is the same as in previous, which may be nil, is shared with it.
func newSnapshot(revision uint64, resources *xds.Resources, secrets []*xds.Resource, previous *snapshot) *snapshot {
	if resources == nil {
		resources = &xds.Resources{}
	}
	s := &snapshot{revision: revision}
	for _, of := range []struct {
		typeURL   string
		resources []*xds.Resource
	}{
		{xds.TypeListener, resources.Listeners}, {xds.TypeRoute, resources.Routes}, {xds.TypeCluster, resources.Clusters},
		{xds.TypeExtension, resources.Extensions}, {xds.TypeSecret, secrets},
	} {
		list := &s.lists[indexOf(of.typeURL)]
		if previous != nil && slices.Equal(of.resources, previous.list(of.typeURL)) {
			*list = previous.list(of.typeURL)
		} else {
			*list = sorted(of.resources)
		}
	}
	if previous != nil && identical(s.list(xds.TypeCluster), previous.list(xds.TypeCluster)) {
		s.permitted = previous.permitted
		return s
	}
	clusters := s.list(xds.TypeCluster)
	s.permitted = make([]string, 0, len(clusters))
	for _, cluster := range clusters {
		if name := cluster.EndpointsName(); name != "" {
			s.permitted = append(s.permitted, name)
		}
	}
	slices.Sort(s.permitted)
	s.permitted = slices.Compact(s.permitted)
	if previous != nil && slices.Equal(s.permitted, previous.permitted) {
		s.permitted = previous.permitted
	}
	return s
}

// list is all of one of the types that are served.
func (s *snapshot) list(typeURL string) []*xds.Resource { return s.lists[indexOf(typeURL)] }

func sorted(resources []*xds.Resource) []*xds.Resource {
	byName := func(a, b *xds.Resource) int { return cmp.Compare(a.Name, b.Name) }
	if slices.IsSortedFunc(resources, byName) {
		return resources
	}
	resources = slices.Clone(resources)
	slices.SortFunc(resources, byName)
	return resources
}

func (s *snapshot) find(typeURL, name string) (int, bool) {
	if s == nil {
		return 0, false
	}
	return slices.BinarySearchFunc(s.list(typeURL), name, func(r *xds.Resource, name string) int { return cmp.Compare(r.Name, name) })
}

// get returns a resource, nil when there is none.
func (s *snapshot) get(typeURL, name string) *xds.Resource {
	if at, ok := s.find(typeURL, name); ok {
		return s.list(typeURL)[at]
	}
	return nil
}

// endpointsOf returns the EDS name of a cluster, "" for none.
func (s *snapshot) endpointsOf(cluster string) string {
	if at, ok := s.find(xds.TypeCluster, cluster); ok {
		return s.list(xds.TypeCluster)[at].EndpointsName()
	}
	return ""
}

func (s *snapshot) permits(endpoints string) bool {
	_, ok := slices.BinarySearch(s.permitted, endpoints)
	return ok
}

// changed calls each for the names of which a snapshot holds another resource than the one before it, which may be nil, or
// none. Endpoints are shared, so of them only what may be asked for counts.
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
	merge(s.list(typeURL), previous.list(typeURL), func(r *xds.Resource) string { return r.Name }, same, each)
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
