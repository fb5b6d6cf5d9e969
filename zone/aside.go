package zone

import (
	"net"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/gossip"
	"github.com/zoneforge/zoneforge/sync/kds"
)

const (
	// tellEvery is how often a replica tells the others how far it has come, where that changed.
	tellEvery = time.Second
	// behindFor is how long a replica is behind others before it steps aside.
	behindFor = 3 * time.Second
)

// aside is whether a replica that is cut off from global sends proxies to others that are not, and hold what it doesn't: a proxy that
// came to it would be given older policies than it has. Those that it has stay, and so does everything when no other replica is better off.
type aside struct {
	log   *zap.Logger
	on    atomic.Bool
	since time.Time // when it fell behind, zero while it is not; for follow alone
}

// judge looks at what this replica and those that are alive have.
func (a *aside) judge(self introduction, members []gossip.Member, said map[string]introduction, now time.Time) {
	behind := ""
	for _, m := range members {
		is, ok := said[m.Name]
		if ok && !self.Connected && is.Connected && is.Epoch != "" && (is.Epoch != self.Epoch || is.Revision > self.Revision) {
			behind = is.Replica
		}
	}
	switch {
	case behind == "":
		a.since = time.Time{}
		if a.on.Swap(false) {
			a.log.Info("proxies are welcome again")
		}
	case a.since.IsZero():
		a.since = now
	case now.Sub(a.since) >= behindFor && !a.on.Swap(true):
		a.log.Warn("this replica is cut off from global and behind others; proxies that come are sent to those", zap.String("from", behind), zap.Uint64("revision", self.Revision))
	}
}

// progress notes how far this replica has come, and tells the others where that is news.
func (s *siblings) progress(at kds.Position, connected bool) (introduction, error) {
	s.mu.Lock()
	news := s.self.Epoch != at.Epoch || s.self.Revision != at.Revision || s.self.Connected != connected
	s.self.Epoch, s.self.Revision, s.self.Connected = at.Epoch, at.Revision, connected
	self := s.self
	s.mu.Unlock()
	if !news {
		return self, nil
	}
	return self, s.introduce()
}

// asideListener lets nobody in while the replica steps aside: a connection that is closed at once has the proxy try the next replica.
type asideListener struct {
	net.Listener
	aside *aside
}

// Accept is net.Listener's.
func (l asideListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !l.aside.on.Load() {
			return conn, err
		}
		_ = conn.Close() // nothing was sent over it
	}
}
