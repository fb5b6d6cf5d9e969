package xds

import (
	"iter"
	"slices"
	"sync/atomic"
)

// Resources are all that one proxy is configured with, except endpoints and secrets, which are shared. Each slice is
// sorted by name and has no name twice.
type Resources struct {
	Listeners  []*Resource
	Routes     []*Resource
	Clusters   []*Resource
	Extensions []*Resource
	// Shared are what the proxy has beside these, and others have too, so that it is kept once; nil for nothing. It has none of its own. A
	// name may be on both sides for the same content alone.
	Shared *Resources

	// endpoints is what EndpointsNames found out.
	endpoints atomic.Pointer[[]string]
}

// Lists are the resources of a type, those that are not shared and those that are, each sorted by name. A nil Resources has none.
func (r *Resources) Lists(typeURL string) (own, shared []*Resource) {
	if r == nil {
		return nil, nil
	}
	if r.Shared != nil {
		shared, _ = r.Shared.Lists(typeURL)
	}
	switch typeURL {
	case TypeListener:
		own = r.Listeners
	case TypeRoute:
		own = r.Routes
	case TypeCluster:
		own = r.Clusters
	case TypeExtension:
		own = r.Extensions
	}
	return own, shared
}

// Each lists all resources of a type, sorted by name.
func (r *Resources) Each(typeURL string) iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		own, shared := r.Lists(typeURL)
		for len(own)+len(shared) > 0 {
			var next *Resource
			switch {
			case len(shared) == 0 || len(own) > 0 && own[0].Name < shared[0].Name:
				next, own = own[0], own[1:]
			case len(own) > 0 && own[0].Name == shared[0].Name:
				next, own, shared = shared[0], own[1:], shared[1:]
			default:
				next, shared = shared[0], shared[1:]
			}
			if !yield(next) {
				return
			}
		}
	}
}

// EndpointsNames are those of the endpoints that the clusters ask for, sorted: one slice for all where only what is shared asks for any. They
// are looked up once.
func (r *Resources) EndpointsNames() []string {
	if r == nil {
		return nil
	}
	if known := r.endpoints.Load(); known != nil {
		return *known
	}
	names := make([]string, 0, len(r.Clusters))
	for _, c := range r.Clusters {
		if name := c.EndpointsName(); name != "" {
			names = append(names, name)
		}
	}
	if shared := r.Shared.EndpointsNames(); len(names) == 0 {
		names = shared
	} else {
		names = append(names, shared...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	r.endpoints.Store(&names)
	return names
}
