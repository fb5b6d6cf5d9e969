package server

import (
	"slices"

	"github.com/zoneforge/zoneforge/xds"
)

// watchers are, by the name of endpoints, the streams that are told when they change. A stream watches what its proxy's clusters ask for,
// of the newest snapshot and of those that it may not have given up yet. So a change costs nothing for all other streams.
type watchers map[string]map[*stream]struct{}

func (w watchers) add(st *stream, names []string) {
	for _, name := range names {
		of := w[name]
		if of == nil {
			of = map[*stream]struct{}{}
			w[name] = of
		}
		of[st] = struct{}{}
	}
}

func (w watchers) remove(st *stream, names []string) {
	for _, name := range names {
		if delete(w[name], st); len(w[name]) == 0 {
			delete(w, name)
		}
	}
}

// watchLocked has a stream watch what its proxy's newest snapshot asks for, beside what it watches.
func (s *Server) watchLocked(st *stream, want *snapshot) {
	if want == nil || identical(st.watched, want.permitted) {
		return
	}
	if len(st.watched) == 0 {
		s.watchers.add(st, want.permitted)
		st.watched = want.permitted
		return
	}
	var more []string
	for _, name := range want.permitted {
		if _, known := slices.BinarySearch(st.watched, name); !known {
			more = append(more, name)
		}
	}
	s.watchers.add(st, more)
	if all := len(st.watched) + len(more); all == len(want.permitted) {
		st.watched = want.permitted
		return
	}
	st.watched = slices.Concat(st.watched, more)
	slices.Sort(st.watched)
	st.stale.Store(true)
}

func (s *Server) unwatchLocked(st *stream) {
	s.watchers.remove(st, st.watched)
	st.watched = nil
}

// rewatch makes what a stream watches what its session still has a use for. Nothing changes while the session has not seen the newest
// snapshot: it may yet have to keep what that leaves out.
func (s *Server) rewatch(id ProxyID, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxies[id]
	if p == nil || p.stream != st || p.want != st.session.want || p.want == nil {
		return
	}
	names := p.want.permitted
	for _, kept := range st.session.kept {
		if _, known := slices.BinarySearch(p.want.permitted, kept); !known {
			names = append(names[:len(names):len(names)], kept)
		}
	}
	if len(names) != len(p.want.permitted) {
		slices.Sort(names)
		names = slices.Compact(names)
	}
	var missed []string
	gone := slices.Clone(st.watched)
	for _, name := range names {
		if at, known := slices.BinarySearch(gone, name); known {
			gone = slices.Delete(gone, at, at+1)
		} else {
			missed = append(missed, name)
		}
	}
	s.watchers.remove(st, gone)
	s.watchers.add(st, missed)
	st.watched = names
	st.stale.Store(len(names) != len(p.want.permitted))
	if len(missed) > 0 {
		st.inbox.setEndpoints(s.endpointRev.Load(), missed) // they may have changed meanwhile
		s.queue.add(st)
	}
}

// SetEndpoints changes the endpoint resources that all proxies share; nil removes one. It returns the names of those that are others
// now, sorted; only proxies whose clusters ask for them are told. Endpoints must be set before the clusters that name them: a name that
// has none is answered as one that does not exist.
func (s *Server) SetEndpoints(revision uint64, changed map[string]*xds.Resource) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	s.endpointsMu.Lock()
	for _, name := range sortedKeys(changed) {
		if versionOf(s.endpoints[name].resource) == versionOf(changed[name]) {
			continue
		}
		names = append(names, name)
		if r := changed[name]; r != nil {
			s.endpoints[name] = newEndpoints(revision, r)
		} else {
			delete(s.endpoints, name)
		}
	}
	s.endpointsMu.Unlock()
	if len(names) == 1 {
		s.tally.told.Add(uint64(len(s.watchers[names[0]])))
		for st := range s.watchers[names[0]] {
			st.inbox.setEndpoints(revision, names)
			s.queue.addEndpoints(st)
		}
	} else {
		told := map[*stream][]string{}
		for _, name := range names {
			for st := range s.watchers[name] {
				told[st] = append(told[st], name)
			}
		}
		s.tally.told.Add(uint64(len(told)))
		for st, names := range told {
			st.inbox.setEndpoints(revision, names)
			s.queue.addEndpoints(st)
		}
	}
	// Who reads the revision has what came with it in its inbox.
	s.endpointRev.Store(max(s.endpointRev.Load(), revision))
	return names
}
