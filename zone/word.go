package zone

import (
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/gossip"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	"github.com/zoneforge/zoneforge/zone/replicas"
)

// partedEvery is how often a replica that is parted from others looks whether it still is.
const partedEvery = time.Second

// word is what there is to know of replicas that gossip has lost: what global says, and which others there are. It is safe for concurrent
// use, and takes no other lock, as gossip asks it with its own held.
type word struct {
	// connected tells whether there is a stream to global. Set once.
	connected func() bool

	mu sync.Mutex
	// Guarded by mu. mute says that this global doesn't say; told is nil until it said something.
	mute bool
	told *kdsv1.Siblings
	// gone are the replicas that global says are not connected, with since when, of those that were asked for.
	gone map[string]time.Time
	// alive are the members of gossip, with since when.
	alive map[string]time.Time
}

func newWord(connected func() bool) *word {
	return &word{connected: connected, gone: map[string]time.Time{}, alive: map[string]time.Time{}}
}

// welcomed begins a stream to a global that says who is connected, or doesn't.
func (w *word) welcomed(s *kdsv1.Siblings) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mute = s == nil
	w.hearLocked(s)
}

// hear takes what global says on a stream.
func (w *word) hear(s *kdsv1.Siblings) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hearLocked(s)
}

func (w *word) hearLocked(s *kdsv1.Siblings) {
	w.told = s
	for name := range w.gone {
		if !saysGone(s, name) {
			delete(w.gone, name)
		}
	}
}

func saysGone(s *kdsv1.Siblings, name string) bool {
	return !slices.Contains(s.GetConnected(), name) && (s.GetAll() || slices.Contains(s.GetGone(), name))
}

// meet takes who is there by gossip.
func (w *word) meet(members []gossip.Member, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	met := map[string]time.Time{}
	for _, m := range members {
		if met[m.Name] = w.alive[m.Name]; met[m.Name].IsZero() {
			met[m.Name] = now
		}
	}
	w.alive = met
}

// over is gossip.Config's Gone.
func (w *word) over(d gossip.Departed, now time.Time) (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := replicas.Silence{Since: d.Since, Left: d.Left}
	name := replicaOf(d.Name)
	for run, since := range w.alive {
		if run != d.Name && replicaOf(run) == name && (s.Back.IsZero() || since.Before(s.Back)) {
			s.Back = since
		}
	}
	s.Word, s.GoneSince = w.ofLocked(name, now)
	return s.Over()
}

// ofLocked is what global says of a replica.
func (w *word) ofLocked(name string, now time.Time) (replicas.Word, time.Time) {
	switch {
	case !w.connected():
		clear(w.gone) // it may come and go unheard
	case w.mute:
		return replicas.Mute, time.Time{}
	case slices.Contains(w.told.GetConnected(), name):
		return replicas.Connected, time.Time{}
	case saysGone(w.told, name):
		if w.gone[name].IsZero() {
			w.gone[name] = now
		}
		return replicas.Gone, w.gone[name]
	}
	return replicas.Unknown, time.Time{}
}

// parted are the replicas, by name, that may live and are not in touch. One that is in touch with none can't know of all while global
// does not tell: alone is set then.
func (w *word) parted(self string, departed []gossip.Departed, now time.Time) (names []string, alone bool) {
	for _, d := range departed {
		if _, gone := w.over(d, now); !gone {
			names = append(names, replicaOf(d.Name))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	in := map[string]bool{self: true}
	for run := range w.alive {
		in[replicaOf(run)] = true
	}
	said := w.connected() && !w.mute && w.told != nil
	if said {
		for _, name := range w.told.GetConnected() {
			if !in[name] {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	alone = len(in) == 1 && !(w.connected() && w.mute) && !(said && w.told.GetAll())
	return slices.Compact(names), alone
}

// replicaOf is the name of a replica, of which its name in gossip is one run.
func replicaOf(run string) string {
	name, _, _ := strings.Cut(run, "~")
	return name
}

// parted says whether proxies that this replica doesn't know, or no longer knows of, may serve at another one.
func (s *siblings) parted(now time.Time) bool {
	if s == nil {
		return false
	}
	names, alone := s.partedFrom(now)
	return len(names) > 0 || alone
}

func (s *siblings) partedFrom(now time.Time) (names []string, alone bool) {
	members, departed := s.gossip.Others()
	s.word.meet(members, now)
	return s.word.parted(replicaOf(s.name), departed, now)
}

// tellParted logs from which replicas this one is parted, when that changes.
func (s *siblings) tellParted() {
	names, _ := s.partedFrom(time.Now())
	if now := strings.Join(names, ", "); now != s.partedLast {
		if s.partedLast = now; now != "" {
			s.log.Warn("other replicas that may live don't answer; the endpoints that they had stay", zap.Strings("replica", names))
		} else {
			s.log.Info("no replica is missing that may live")
		}
	}
}

// outdate forgets what replicas that are not in touch said of a proxy before it came to this one.
func (s *siblings) outdate(id string, stamp uint64) {
	_, departed := s.gossip.Others()
	s.roster.Outdate(id, stamp, func(run string) bool {
		return slices.ContainsFunc(departed, func(d gossip.Departed) bool { return d.Name == run })
	})
}
