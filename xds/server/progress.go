package server

import (
	"slices"

	"github.com/zoneforge/zoneforge/xds"
)

// Progress is how far a proxy came.
type Progress struct {
	// Sent is the newest revision of which something, or nothing because nothing differed, was sent.
	Sent uint64
	// Acked is the newest revision that the proxy acknowledged completely. What it should hold no more may remain where
	// something that it refused to give up, or a listener that drains, still refers to it.
	Acked uint64
	// EndpointsAcked is the newest endpoint revision with nothing outstanding for this proxy.
	EndpointsAcked uint64
	// Nacks are the refusals that still stand, by type, then in the order they came.
	Nacks []Nack
}

// Progress returns how far the proxy came.
func (s *session) Progress() Progress {
	return Progress{Sent: s.sent, Acked: s.acked, EndpointsAcked: s.endpAcked, Nacks: slices.Clone(s.nacks)}
}

// complete says whether the proxy confirmed all wanted resources of the type.
func (s *session) complete(typeURL string) bool {
	sub := s.sub(typeURL)
	if c := s.diff(typeURL); len(c.upserts)+len(c.answers)+len(sub.due) > 0 {
		return false
	}
	if sub.all && len(sub.rejected) == 0 || sub.table.rests(s.want) && len(s.tails) == 0 {
		return true
	}
	sub.table.own()
	// Both are sorted, so one look at each does.
	next := 0
	for r := range s.want.each(typeURL) {
		if t := s.tails[r.Name]; t != nil && typeURL == xds.TypeRoute {
			r = t.whole
		}
		for next < len(sub.table.is) && sub.table.is[next].Name < r.Name {
			next++
		}
		if next == len(sub.table.is) || sub.table.is[next].Name != r.Name {
			return false
		}
		if known := sub.table.at(next); versionOf(known.has()) != r.Version {
			return false
		}
	}
	return true
}

// updateProgress drops refusals whose content changed and raises the acknowledged revisions.
func (s *session) updateProgress() {
	s.nacks = slices.DeleteFunc(s.nacks, func(n Nack) bool {
		for i, name := range n.Names {
			if s.sub(n.TypeURL).refuses(name, n.Versions[i], s.desired) {
				return false
			}
		}
		return true
	})
	s.updateEndpointProgress()
	if s.acked == s.want.revision || len(s.nacks) > 0 || !s.sub(xds.TypeCluster).requested || !s.sub(xds.TypeListener).requested {
		return
	}
	// Endpoints move all the time and don't hold the revision up, but the other types must be quiet.
	if s.sub(xds.TypeListener).firstDue || !s.idle(xds.TypeCluster, xds.TypeSecret) || !s.idle(second...) || !s.firstStageSettled() {
		return
	}
	for _, t := range []string{xds.TypeCluster, xds.TypeListener, xds.TypeExtension, xds.TypeRoute} {
		if !s.complete(t) {
			return
		}
	}
	secrets := s.diff(xds.TypeSecret)
	if len(secrets.upserts)+len(secrets.answers)+len(s.removable(xds.TypeSecret))+len(s.removable(xds.TypeCluster))+
		len(s.diff(xds.TypeListener).removals) > 0 {
		return
	}
	s.sent, s.acked = s.want.revision, s.want.revision
}

func (s *session) updateEndpointProgress() {
	sub := s.sub(xds.TypeEndpoint)
	if s.want == nil || sub.inflight != nil || len(sub.rejected) > 0 {
		return
	}
	if c := s.diff(xds.TypeEndpoint); len(c.upserts)+len(c.answers) > 0 || len(c.removals) > 0 && len(s.removable(xds.TypeEndpoint)) > 0 {
		return
	}
	s.endpAcked = s.endpRev
}

// rests says whether there is nothing to do but for endpoints.
func (s *session) rests() bool {
	if s.state || !s.settled || s.acked != s.want.revision || len(s.nacks)+len(s.kept)+len(s.tails) > 0 {
		return false
	}
	for i := range s.subs {
		sub := &s.subs[i]
		if len(sub.rejected)+len(sub.retrying)+len(sub.maybe) > 0 || sub.firstDue {
			return false
		}
		if sub.typeURL() != xds.TypeEndpoint && (sub.inflight != nil || len(sub.open)+len(sub.due) > 0) {
			return false
		}
	}
	return true
}
