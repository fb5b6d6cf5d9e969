package zones

import (
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// unsureFor is how long a replica of global that went without a word may be on the other side of a partition, with zones' replicas that
// are connected to it.
const unsureFor = time.Hour

// Siblings is stream.Zones's. Whoever went is gone only where this replica of global would know if it had come to another one: it hears of
// all of them, and is not cut off from the store, as whoever is may be cut off from anything. Of those that it never saw it knows once it
// has run for long enough for zones to find it.
func (r *Registry) Siblings(zone, replica string) *kdsv1.Siblings {
	now, away := r.cfg.Now(), r.cfg.Store.Away()
	r.mu.Lock()
	defer r.mu.Unlock()
	for peer, since := range r.unsure {
		if now.Sub(since) >= unsureFor {
			delete(r.unsure, peer)
		}
	}
	sure := !away && len(r.unsure) == 0
	s := &kdsv1.Siblings{All: sure && now.Sub(r.began) >= retireAfter}
	if z := r.zones[zone]; z != nil {
		for _, rep := range z.sorted() {
			switch {
			case rep.name == replica:
			case rep.connected():
				s.Connected = append(s.Connected, rep.name)
			case sure:
				s.Gone = append(s.Gone, rep.name)
			}
		}
	}
	return s
}

// tellSiblings tells zones of one of whose replicas a stream began or ended, or all where all is set.
func (r *Registry) tellSiblings(all bool) {
	r.mu.Lock()
	var names []string
	for name, z := range r.zones {
		if all || z.moved {
			z.moved = false
			names = append(names, name)
		}
	}
	r.mu.Unlock()
	for _, name := range names {
		r.server.TellSiblings(name)
	}
}

// movedLocked notes that a stream of a zone began or ended.
func (r *Registry) movedLocked(z *zone) {
	z.moved = true
	select {
	case r.moves <- struct{}{}:
	default:
	}
}

// unsureLocked notes that another replica of global is no longer heard of.
func (r *Registry) unsureLocked(peer string) { r.unsure[peer] = r.cfg.Now() }

// Left says that another replica of global has stopped, and sent its zones away before.
func (r *Registry) Left(peer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.unsure, peer)
}
