package server

import (
	"crypto/sha256"
	"slices"

	"github.com/zoneforge/zoneforge/xds"
)

// audience is the streams that are told when the same endpoints change, as those of a workload's proxies are.
type audience struct {
	key [sha256.Size]byte
	// names are sorted, and never changed.
	names   []string
	streams map[*stream]struct{}
}

// watches says whether it is told of endpoints; a nil one is told of none.
func (a *audience) watches(name string) bool {
	if a == nil {
		return false
	}
	_, ok := slices.BinarySearch(a.names, name)
	return ok
}

// watchers are all audiences, by a digest of their names and by each of these. A stream watches what its proxy's clusters ask for, of the
// newest snapshot and of those that it may not have given up yet. So a change costs nothing for all other streams.
type watchers struct {
	all map[[sha256.Size]byte]*audience
	by  map[string]map[*audience]struct{}
}

func newWatchers() watchers {
	return watchers{all: map[[sha256.Size]byte]*audience{}, by: map[string]map[*audience]struct{}{}}
}

func keyOf(names []string) [sha256.Size]byte {
	text := make([]byte, 0, 2048)
	for _, name := range names {
		text = append(append(text, name...), 0)
	}
	return sha256.Sum256(text)
}

// move has a stream watch other names than before.
func (w *watchers) move(st *stream, names []string) {
	before := st.audience
	st.audience = nil
	if len(names) > 0 {
		key := keyOf(names)
		a := w.all[key]
		if a == nil {
			a = &audience{key: key, names: names, streams: map[*stream]struct{}{}}
			w.all[key] = a
			for _, name := range names {
				if w.by[name] == nil {
					w.by[name] = map[*audience]struct{}{}
				}
				w.by[name][a] = struct{}{}
			}
		}
		a.streams[st] = struct{}{}
		st.audience = a
	}
	if before == nil || before == st.audience {
		return
	}
	if delete(before.streams, st); len(before.streams) > 0 {
		return
	}
	delete(w.all, before.key)
	for _, name := range before.names {
		if delete(w.by[name], before); len(w.by[name]) == 0 {
			delete(w.by, name)
		}
	}
}

// watchLocked has a stream watch what its proxy's newest snapshot asks for, beside what it watches.
func (s *Server) watchLocked(st *stream, want *snapshot) {
	if want == nil {
		return
	}
	names := want.permitted
	if a := st.audience; a != nil {
		if identical(a.names, names) {
			return
		}
		for _, name := range a.names {
			if !want.permits(name) {
				names = append(names[:len(names):len(names)], name)
			}
		}
	}
	if len(names) > len(want.permitted) {
		slices.Sort(names)
		st.stale.Store(true)
	}
	s.watchers.move(st, names)
}

func (s *Server) unwatchLocked(st *stream) { s.watchers.move(st, nil) }

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
		if !p.want.permits(kept) {
			names = append(names[:len(names):len(names)], kept)
		}
	}
	if len(names) != len(p.want.permitted) {
		slices.Sort(names)
		names = slices.Compact(names)
	}
	var missed []string
	for _, name := range names {
		if !st.audience.watches(name) {
			missed = append(missed, name)
		}
	}
	s.watchers.move(st, names)
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
	told := map[*audience][]string{}
	for _, name := range names {
		for a := range s.watchers.by[name] {
			told[a] = append(told[a], name)
		}
	}
	for a, names := range told {
		s.tally.told.Add(uint64(len(a.streams)))
		for st := range a.streams {
			st.inbox.setEndpoints(revision, names)
			s.queue.addEndpoints(st)
		}
	}
	// Who reads the revision has what came with it in its inbox.
	s.endpointRev.Store(max(s.endpointRev.Load(), revision))
	return names
}
