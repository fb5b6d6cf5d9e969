package zones

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

const (
	// tellEvery is how long changes of streams are gathered before other replicas of global are told.
	tellEvery = 20 * time.Millisecond
	// maxTelling bounds a message in bytes, unless one stream alone is larger.
	maxTelling = 1 << 20
	// awaySpread is the longest time after which zones that are sent away come to another replica.
	awaySpread = time.Second
)

type streamKey struct{ zone, replica string }

// Tell calls send with the streams that this replica of global has, all at first and then what changes, until ctx ends or send fails.
func (r *Registry) Tell(ctx context.Context, send func(*kdsv1.Streams) error) error {
	told := map[streamKey]uint64{}
	for all := true; ; all = false {
		changed := r.Changed()
		for _, m := range r.news(told, all) {
			if err := send(m); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		gather := time.NewTimer(tellEvery)
		select {
		case <-gather.C:
		case <-ctx.Done():
			gather.Stop()
			return ctx.Err()
		}
	}
}

// news gives the streams that differ from what was told, and notes them as told.
func (r *Registry) news(told map[streamKey]uint64, all bool) []*kdsv1.Streams {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := &kdsv1.Streams{}
	out, size := []*kdsv1.Streams{last}, 0
	there := map[streamKey]bool{}
	for name, z := range r.zones {
		for _, rep := range z.replicas {
			key := streamKey{name, rep.name}
			if rep.session == nil {
				continue
			}
			if there[key] = true; told[key] == rep.touched {
				continue
			}
			told[key] = rep.touched
			s := rep.proto(name, z.repairs)
			if n := proto.Size(s); size > 0 && size+n > maxTelling {
				last, size = &kdsv1.Streams{}, 0
				out = append(out, last)
			}
			size += proto.Size(s)
			last.Open = append(last.Open, s)
		}
	}
	for key := range told {
		if !there[key] {
			delete(told, key)
			last.Closed = append(last.Closed, &kdsv1.StreamKey{Zone: key.zone, Replica: key.replica})
		}
	}
	if last.All = all; !all && len(out) == 1 && len(last.Open)+len(last.Closed) == 0 {
		return nil
	}
	return out
}

func (rep *replica) proto(zone string, repairs uint64) *kdsv1.ZoneStream {
	s := &kdsv1.ZoneStream{
		Key: &kdsv1.StreamKey{Zone: zone, Replica: rep.name}, Identity: rep.identity, Version: rep.version, Stream: rep.stream,
		Since: timestamppb.New(rep.since), Held: rep.held.Proto(), Status: rep.status, Took: timestamppb.New(rep.took), Rejected: rep.rejected,
		Problem: rep.problem, Repairs: repairs,
	}
	for _, l := range rep.live {
		s.Live = append(s.Live, &kdsv1.Status_Live{Revision: l.revision, Since: timestamppb.New(l.since)})
	}
	return s
}

// Heard takes what another replica of global tells of its streams.
type Heard struct {
	r     *Registry
	peer  string
	first map[streamKey]bool // those told so far, until all are; nil after
}

// Hear begins to follow another replica of global by its name. Not safe for concurrent use.
func (r *Registry) Hear(peer string) *Heard {
	return &Heard{r: r, peer: peer, first: map[streamKey]bool{}}
}

// Streams takes a message.
func (h *Heard) Streams(m *kdsv1.Streams) error {
	r := h.r
	var duplicates []string
	err := func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, s := range m.GetOpen() {
			held, err := kds.PositionFrom(s.GetHeld())
			if err != nil {
				return fmt.Errorf("replica %s of global: zone %s: %w", h.peer, s.GetKey().GetZone(), err)
			}
			if h.first != nil {
				h.first[streamKey{s.GetKey().GetZone(), s.GetKey().GetReplica()}] = true
			}
			if !r.takeLocked(h.peer, s, held) {
				duplicates = append(duplicates, s.GetKey().GetZone())
			}
		}
		for _, k := range m.GetClosed() {
			if z := r.zones[k.GetZone()]; z != nil {
				r.wentLocked(z, z.replicas[k.GetReplica()], h.peer)
			}
		}
		if m.GetAll() && h.first != nil {
			r.eachOf(h.peer, func(name string, z *zone, rep *replica) {
				if !h.first[streamKey{name, rep.name}] {
					r.wentLocked(z, rep, h.peer)
				}
			})
			h.first = nil
		}
		if h.first == nil {
			delete(r.unsure, h.peer)
		}
		r.notifyLocked()
		return nil
	}()
	for _, zone := range duplicates {
		r.server.Refuse(zone, kds.Verdict{Code: kdsv1.Refusal_CODE_DUPLICATE_ZONE, RetryAfter: askAgain, Reason: fmt.Sprintf(
			"another cluster is zone %s already, at replica %s of global: give this one a name and a token of its own, or stop the other", zone, h.peer)})
	}
	return err
}

// Lost says that the other replica is no longer followed: whether its streams live is not known, and they count as gone.
func (h *Heard) Lost() {
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	h.r.unsureLocked(h.peer)
	h.r.eachOf(h.peer, func(_ string, z *zone, rep *replica) { h.r.wentLocked(z, rep, h.peer) })
	h.r.notifyLocked()
}

// takeLocked takes over what another replica knows of a stream, unless this one has a newer stream of the same. It gives false when
// streams of two clusters were opened under one name and the one here is to end; the other one may not be told of again.
func (r *Registry) takeLocked(peer string, s *kdsv1.ZoneStream, held kds.Position) (stays bool) {
	stays = true
	name := s.GetKey().GetZone()
	z := r.zones[name]
	if z == nil {
		z = newZone()
		r.zones[name] = z
	}
	for _, rep := range z.sorted() {
		switch {
		case rep.peer != "" && rep.peer != peer && rep.name == s.GetKey().GetReplica() && rep.stream > s.GetStream():
			return stays // a third one has a newer stream of the same
		case rep.session == nil:
		case rep.identity != s.GetIdentity():
			// Both replicas come to the same verdict.
			if since := s.GetSince().AsTime(); rep.since.After(since) || rep.since.Equal(since) && r.cfg.Machine.Replica > peer {
				stays = false
				continue
			}
			return stays
		case rep.name == s.GetKey().GetReplica() && rep.stream >= s.GetStream():
			return stays // the other is what a lost connection left there
		case rep.name == s.GetKey().GetReplica():
			r.server.Drop(name, rep.name)
		}
	}
	rep := &replica{
		name: s.GetKey().GetReplica(), identity: s.GetIdentity(), version: s.GetVersion(), stream: s.GetStream(), peer: peer, since: s.GetSince().AsTime(),
		seen: r.cfg.Now(), held: held, status: s.GetStatus(), took: s.GetTook().AsTime(), rejected: s.GetRejected(), problem: s.GetProblem(),
	}
	for _, l := range s.GetLive() {
		rep.live = append(rep.live, live{l.GetRevision(), l.GetSince().AsTime()})
	}
	if z.forget(rep, r.cfg.Now()) {
		if was := z.replicas[rep.name]; was == nil || !was.connected() {
			r.movedLocked(z)
		}
		z.replicas[rep.name] = rep
		z.elsewhere[peer] = s.GetRepairs()
	}
	return stays
}

// wentLocked notes that a stream that another replica had has ended.
func (r *Registry) wentLocked(z *zone, rep *replica, peer string) {
	if rep != nil && rep.peer == peer {
		rep.peer, rep.since, rep.seen = "", r.cfg.Now(), r.cfg.Now()
		r.movedLocked(z)
	}
}

// eachOf visits the streams that another replica has.
func (r *Registry) eachOf(peer string, do func(name string, z *zone, rep *replica)) {
	for name, z := range r.zones {
		for _, rep := range z.replicas {
			if rep.peer == peer {
				do(name, z, rep)
			}
		}
	}
}

// SendAway ends the streams of zones with the advice to connect to another replica of global, of each zone once until Stay: one that
// comes back has found no other, and is served what there is.
func (r *Registry) SendAway(why string) {
	r.mu.Lock()
	var names []string
	for name, z := range r.zones {
		for _, rep := range z.replicas {
			if rep.session != nil && !r.away[name] {
				r.away[name] = true
				names = append(names, name)
			}
		}
	}
	r.sentAway += uint64(len(names))
	r.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		r.cfg.Logger.Info("zone is sent to another replica of global", zap.String("zone", name), zap.String("reason", why))
		r.server.Refuse(name, kds.Verdict{Code: kdsv1.Refusal_CODE_UNAVAILABLE, Reason: why, RetryAfter: rand.N(awaySpread)})
	}
}

// Stay ends what SendAway began.
func (r *Registry) Stay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.away)
}

// Counts says how many streams of zones' replicas this replica of global has, and how often it sent a zone away.
func (r *Registry) Counts() (streams int, sentAway uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, z := range r.zones {
		for _, rep := range z.replicas {
			if rep.session != nil {
				streams++
			}
		}
	}
	return streams, r.sentAway
}

// Here lists, ordered, the zones whose streams this replica of global has.
func (r *Registry) Here() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []string{}
	for name, z := range r.zones {
		for _, rep := range z.replicas {
			if rep.session != nil && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}
