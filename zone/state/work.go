package state

import "github.com/zoneforge/zoneforge/xds"

// Work is what changes took.
type Work struct {
	// Examined counts proxies that were looked at, or marked, because a change may affect them.
	Examined int
	// Resources counts those that were built for proxies, not those that were remembered; Bytes are theirs.
	Resources, Bytes int
}

// TakeWork is what was done since the last call.
func (s *State) TakeWork() Work {
	w := s.work
	s.work = Work{}
	resources, bytes := s.memo.TakeBuilt()
	w.Resources, w.Bytes = w.Resources+resources, w.Bytes+bytes
	return w
}

// Add counts resources that were built.
func (w *Work) Add(list ...*xds.Resource) {
	w.Resources += len(list)
	for _, r := range list {
		w.Bytes += r.Size()
	}
}

// built counts what was built without the memo for one proxy.
func (s *State) built(r *xds.Resources) {
	for _, list := range [][]*xds.Resource{r.Listeners, r.Routes, r.Clusters, r.Extensions} {
		s.work.Add(list...)
	}
}
