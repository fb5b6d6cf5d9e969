package zones

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// What is kept of a zone's words at most.
const (
	maxNacks    = 100
	maxRejected = 1000
	maxLive     = 512
	maxText     = 4096
	maxTrust    = 1000 // meshes
	maxNames    = 16   // roots or proxies of one
)

// replica is what is known of one replica of a zone. It outlives its streams. Guarded by the registry's mu.
type replica struct {
	name, identity, version string
	// session is nil when it is not connected here, and peer names the replica of global that it is connected to instead; empty for
	// none. since is the time since which it is connected, or is not.
	session *session
	peer    string
	since   time.Time
	seen    time.Time // when session is nil
	// stream is its number of the stream, and touched grows with each change of what is told to other replicas of global.
	stream, touched uint64
	// held is what it has on its disk.
	held kds.Position
	// status is its newest summary; nil before the first. Its nacks bear the revision at which each was first seen. took is when its
	// revision last changed.
	status *kdsv1.Status
	took   time.Time
	// rejected has the records that it can't use, as it said when it took them.
	rejected []*kdsv1.Rejection
	// problem is why it could not take the newest state; empty when it could.
	problem string
	// live says since when revisions are on all proxies, ordered by revision.
	live []live
}

type live struct {
	revision uint64
	since    time.Time
}

func (rep *replica) connected() bool { return rep.session != nil || rep.peer != "" }

func (z *zone) sorted() []*replica {
	if len(z.replicas) == 1 {
		for _, rep := range z.replicas {
			return []*replica{rep}
		}
	}
	return slices.SortedFunc(maps.Values(z.replicas), func(a, b *replica) int { return cmp.Compare(a.name, b.name) })
}

// session is one stream. Once the replica has another, it changes nothing any more.
type session struct {
	r    *Registry
	zone string
	z    *zone
	rep  *replica
	seen atomic.Int64 // Unix nanoseconds
	// claim lets this stream write what the zone offers, until a later stream claims it. It belongs to the caller of Report, and to
	// Close after that.
	claim store.Claim
}

// update changes what is known of the replica.
func (s *session) update(fn func(rep *replica)) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if s.rep.session == s {
		fn(s.rep)
		s.r.touched++
		s.rep.touched = s.r.touched
		s.r.notifyLocked()
	}
}

// Seen tells that a frame came.
func (s *session) Seen(at time.Time) { s.seen.Store(at.UnixNano()) }

// Confirmed takes what the zone has on its disk.
func (s *session) Confirmed(p kds.Position, rejected []*kdsv1.Rejection) {
	s.update(func(rep *replica) {
		if rep.held.Epoch != p.Epoch && rep.held.Epoch != "" {
			// Revisions of another epoch say nothing about this one's. A zone that had none may have said how its proxies are
			// before it said that it has the first.
			rep.live, rep.status = nil, nil
		}
		rep.held, rep.rejected, rep.problem = p, bound(rejected, maxRejected), ""
	})
}

// Nacked takes why the zone could not apply a delta.
func (s *session) Nacked(n kds.Nacked) {
	s.update(func(rep *replica) { rep.problem = text(n.Reason) })
}

// Repaired counts that the zone differed from what it had confirmed.
func (s *session) Repaired([]string) {
	s.update(func(*replica) { s.z.repairs++ })
}

// Status takes a summary of the zone's proxies.
func (s *session) Status(st *kdsv1.Status) {
	now := s.r.cfg.Now()
	st.Nacks, st.Rejected, st.Trust = bound(st.GetNacks(), maxNacks), bound(st.GetRejected(), maxRejected), boundTrust(st.GetTrust())
	s.update(func(rep *replica) {
		if rep.status == nil || rep.status.GetRevision() != st.GetRevision() {
			rep.took = now
		}
		date(rep.status, st)
		rep.status = st
		for _, l := range bound(kds.LiveOf(st), maxLive) {
			rep.lives(l.Revision, within(l.Since, now), true)
		}
		st.Live, st.Times = nil, nil // all of it is in rep.live
		if st.GetAcked() == st.GetProxies() && len(st.GetNacks()) == 0 {
			rep.lives(st.GetRevision(), now, false)
		}
	})
}

// refusal tells one rejection by a proxy from another.
type refusal struct {
	mesh, proxy, typeURL, words string
	at                          int64
}

func refusalOf(n *kdsv1.Status_ProxyNack) refusal {
	return refusal{n.GetMesh(), n.GetProxy(), n.GetTypeUrl(), n.GetError(), n.GetTime().AsTime().UnixNano()}
}

// date gives nacks the revision at which they were first seen: one that stood already when a change came is not of that change,
// which may be the one that mends it.
func date(before, now *kdsv1.Status) {
	known := map[refusal]uint64{}
	for _, n := range before.GetNacks() {
		known[refusalOf(n)] = n.GetRevision()
	}
	for _, n := range now.GetNacks() {
		if n.Revision == 0 || n.Revision > now.GetRevision() {
			n.Revision = now.GetRevision()
		}
		if first, ok := known[refusalOf(n)]; ok {
			n.Revision = min(n.Revision, first)
		}
	}
}

// within takes a zone's time, whose clock may be ahead, or have said nothing.
func within(at, now time.Time) time.Time {
	if at.Unix() > 0 && at.Before(now) {
		return at
	}
	return now
}

// lives notes since when a revision is on all proxies. What the zone says goes before what is concluded here; what is known stays
// when the zone's own list no longer reaches there.
func (rep *replica) lives(revision uint64, since time.Time, said bool) {
	i, known := slices.BinarySearchFunc(rep.live, revision, func(l live, r uint64) int { return cmp.Compare(l.revision, r) })
	switch {
	case known && said:
		rep.live[i].since = since
	case known:
	default:
		if len(rep.live) >= maxLive {
			// Many at once, as each moves all others.
			rep.live = slices.Delete(rep.live, 0, maxLive/8)
			i = max(0, i-maxLive/8)
		}
		rep.live = slices.Insert(rep.live, i, live{revision, since})
	}
}

// liveSince says since when a revision, or one after it, is on all proxies. Revisions above what is on the disk are not believed.
func (rep *replica) liveSince(revision uint64) (time.Time, bool) {
	i, _ := slices.BinarySearchFunc(rep.live, revision, func(l live, r uint64) int { return cmp.Compare(l.revision, r) })
	if i == len(rep.live) || rep.live[i].revision > rep.held.Revision {
		return time.Time{}, false
	}
	return rep.live[i].since, true
}

// Certificate has the zone's intermediate signed.
func (s *session) Certificate(ctx context.Context, q *kdsv1.CertificateRequest) *kdsv1.Certificate {
	out := &kdsv1.Certificate{Mesh: q.GetMesh()}
	if s.r.cfg.Signer == nil {
		out.Error = "this global signs no certificates"
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	chain, err := s.r.cfg.Signer.SignIntermediate(ctx, s.zone, q.GetMesh(), q.GetCsr())
	if err != nil {
		out.Error = text(err.Error())
		if ctx.Err() == nil {
			s.r.cfg.Logger.Warn("intermediate not signed", zap.String("zone", s.zone), zap.String("mesh", q.GetMesh()), zap.Error(err))
		}
		return out
	}
	s.r.cfg.Logger.Info("intermediate signed", zap.String("zone", s.zone), zap.String("mesh", q.GetMesh()))
	out.Chain = string(chain)
	return out
}

// Close notes that the replica is gone. What it offers stays.
func (s *session) Close() {
	now := s.r.cfg.Now()
	if s.claim != (store.Claim{}) {
		select {
		case s.r.releases <- s.claim:
		default: // it stays, and harms nothing
		}
	}
	s.update(func(rep *replica) {
		rep.session, rep.since, rep.seen = nil, now, time.Unix(0, s.seen.Load())
		s.r.movedLocked(s.z)
		s.r.cfg.Logger.Info("zone disconnected", zap.String("zone", s.zone), zap.String("replica", rep.name))
	})
}

func bound[T any](in []T, most int) []T { return in[:min(len(in), most)] }

// text keeps words within bounds, and such that they can be sent.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.ToValidUTF8(s, "")
}
