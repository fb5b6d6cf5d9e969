package zone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/gossip"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/sync/stream"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/replicas"
)

// Gossip is how the replicas of a zone find each other.
type Gossip struct {
	// Address is IP:port to listen on; empty for a replica that is alone, which needs nothing of all this.
	Address string
	// Advertise is the IP address under which the others reach it; that of Address, or one of this machine, when empty.
	Advertise string
	// Join has host:port of some of the others.
	Join []string
	// KeyFile holds the keys that encrypt gossip: see gossip.ReadKeys. All replicas need the same.
	KeyFile string
}

// config is what package gossip is told.
func (g Gossip) config() (gossip.Config, error) {
	host, port, err := net.SplitHostPort(g.Address)
	if err != nil {
		return gossip.Config{}, fmt.Errorf("zone: gossip-address %q is not IP:port: %w", g.Address, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || host != "" && net.ParseIP(host) == nil {
		return gossip.Config{}, fmt.Errorf("zone: gossip-address %q is not IP:port; set an address of this machine", g.Address)
	}
	return gossip.Config{BindAddress: host, BindPort: int(n), AdvertiseAddress: g.Advertise, Join: g.Join}, nil
}

// replicaName is what a replica among others may be called, as it is part of the names of what it reports.
var replicaName = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

const (
	// keysEvery is how often the file of keys is looked at.
	keysEvery = 2 * time.Second
	// meetWithin is how long a replica that starts looks for others before it connects to global, which must find them to be one zone.
	meetWithin = 2 * time.Second
)

// Keys of what replicas tell each other.
const (
	proxyPart = "proxy/" // with the proxy's ID: a replicas.Claim
	selfKey   = "replica"
)

// introduction is what a replica says of itself.
type introduction struct {
	Replica string `json:"replica"`
	// Identity is that by which it is known to global, which takes all replicas of one identity for one zone; Welcomed says that global
	// has accepted it.
	Identity string `json:"identity"`
	Welcomed bool   `json:"welcomed"`
	// Epoch and Revision are what it holds of global, and Connected says that it has a stream.
	Epoch     string `json:"epoch,omitempty"`
	Revision  uint64 `json:"revision,omitempty"`
	Connected bool   `json:"connected,omitempty"`
}

// siblings are the other replicas of the zone.
type siblings struct {
	// name is another one after each start, so that what a replica said before it died stands for the grace, whether it is back or not.
	name    string
	gossip  *gossip.Gossip
	keyFile string
	store   *disk.Store
	log     *zap.Logger
	// met closes when another replica was found, or none was within meetWithin.
	met chan struct{}

	mu   sync.Mutex
	self introduction // guarded by mu

	// at is what is held of global.
	at    atomic.Pointer[kds.Position]
	aside aside
	pulse pulse
	word  *word

	// partedLast is what was logged of replicas that are missing; for follow alone.
	partedLast string

	// roster is for the owner of the state.
	roster *replicas.Roster
}

// join makes this replica's part among the others; nil when it is alone. It starts nothing. connected tells whether there is a stream to
// global.
func (z *Zone) join(store *disk.Store, at kds.Position, connected func() bool) (*siblings, error) {
	if z.cfg.Gossip.Address == "" {
		return nil, nil
	}
	cfg, err := z.cfg.Gossip.config()
	if err != nil {
		return nil, err
	}
	if cfg.Keys, err = gossip.ReadKeys(z.cfg.Gossip.KeyFile); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	s := &siblings{
		name: z.cfg.Replica + "~" + strconv.FormatInt(time.Now().UnixNano(), 36), keyFile: z.cfg.Gossip.KeyFile, store: store, log: z.log,
		met: make(chan struct{}), self: introduction{Replica: z.cfg.Replica, Identity: store.Identity}, roster: replicas.New(), aside: aside{log: z.log},
		word: newWord(connected),
	}
	s.at.Store(&at)
	s.pulse.beat(time.Now())
	cfg.Name, cfg.Grace, cfg.Logger = s.name, z.cfg.EndpointGrace, z.log
	cfg.Gone = func(d gossip.Departed) (time.Time, bool) { return s.word.over(d, time.Now()) }
	if s.gossip, err = gossip.New(cfg); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	return s, s.introduce()
}

// introduce says what this replica is.
func (s *siblings) introduce() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := json.Marshal(s.self)
	if err != nil {
		return err
	}
	return s.gossip.Put(selfKey, b)
}

// welcomed notes whether global takes this replica for one of the zone.
func (s *siblings) welcomed(is bool) {
	s.mu.Lock()
	same := s.self.Welcomed == is
	s.self.Welcomed = is
	s.mu.Unlock()
	if same {
		return
	}
	if err := s.introduce(); err != nil {
		s.log.Error("other replicas can't be told of this one", zap.Error(err))
	}
}

// claim tells the others of a proxy that serves here, and gives the stamp of that.
func (s *siblings) claim(id string, registration []byte, now time.Time) uint64 {
	stamp := s.roster.Next(id, now)
	b, err := json.Marshal(replicas.Claim{Stamp: stamp, Registration: registration})
	if err == nil {
		err = s.gossip.Put(proxyPart+id, b)
	}
	if err != nil {
		s.log.Error("other replicas can't be told of a proxy", zap.String("proxy", id), zap.Error(err))
	}
	return stamp
}

// follow hands what other replicas say to the owner of the state, until ctx ends. While the owner is busy, what comes waits and coalesces.
func (s *siblings) follow(ctx context.Context, c *core, client *stream.Client, machine *kds.Zone) error {
	said := map[string]introduction{}
	meet := time.NewTimer(meetWithin)
	defer meet.Stop()
	meeting := meet.C
	tell := time.NewTicker(tellEvery)
	defer tell.Stop()
	for {
		members, changes, changed := s.gossip.Take()
		s.tellParted()
		claims := slices.DeleteFunc(changes, func(ch gossip.Change) bool {
			if ch.Owner != s.name && ch.Key == selfKey {
				var is introduction
				delete(said, ch.Owner)
				if !ch.Deleted && json.Unmarshal(ch.Value, &is) == nil {
					said[ch.Owner] = is
				}
			}
			return ch.Owner == s.name || !strings.HasPrefix(ch.Key, proxyPart)
		})
		if id := s.agree(members, said); id != "" {
			if err := s.store.Adopt(id); err != nil {
				return err
			}
			if meeting != nil { // the client waits, so the machine is nobody's yet
				machine.Adopt(id)
			} else if client.Do(ctx, func(z *kds.Zone) { z.Adopt(id) }) != nil {
				return nil // ctx has ended
			}
			if err := s.introduce(); err != nil {
				return err
			}
		}
		self, err := s.progress(*s.at.Load(), client.Connected())
		if err != nil {
			return err
		}
		s.aside.judge(self, members, said, time.Now())
		if len(said) > 0 && meeting != nil {
			meeting = nil
			close(s.met)
		}
		if len(claims) > 0 {
			done := make(chan struct{})
			c.inbox.post(event{run: func() {
				defer close(done)
				c.heard(claims)
			}})
			select {
			case <-done:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-changed:
		case <-tell.C:
		case <-meeting:
			meeting = nil
			close(s.met)
		case <-ctx.Done():
			return nil
		}
	}
}

// agree gives the identity under which another replica is known to global, or, while none is, the least one: replicas that begin
// with empty data directories have each made one. It is empty when this replica has it already.
func (s *siblings) agree(members []gossip.Member, said map[string]introduction) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	best := s.self
	if best.Welcomed {
		return ""
	}
	for _, m := range members {
		is, ok := said[m.Name]
		if !ok || is.Identity == "" || best.Welcomed && !is.Welcomed {
			continue
		}
		if is.Welcomed && !best.Welcomed || is.Identity < best.Identity {
			best = is
		}
	}
	if s.self.Identity == best.Identity {
		return ""
	}
	s.self.Identity = best.Identity
	s.log.Info("identity of the zone taken over", zap.String("from", best.Replica))
	return best.Identity
}

// heard takes what other replicas say of proxies.
func (c *core) heard(changes []gossip.Change) {
	touched := map[string]bool{}
	for _, ch := range changes {
		id := strings.TrimPrefix(ch.Key, proxyPart)
		touched[id] = true
		var claim replicas.Claim
		if ch.Deleted {
			c.siblings.roster.Forget(ch.Owner, id)
		} else if err := json.Unmarshal(ch.Value, &claim); err == nil {
			c.siblings.roster.Hear(ch.Owner, id, claim)
		}
	}
	for id := range touched {
		c.elsewhere(id)
	}
	c.changed = true
}

// elsewhere makes the state right about a proxy of which other replicas said something, or that has left this one. It reports whether
// another replica has it.
func (c *core) elsewhere(id string) bool {
	if c.siblings == nil {
		return false
	}
	_, claim, claimed := c.siblings.roster.Owner(id)
	var held disk.Registration
	var in restored
	if claimed {
		var err error
		held = disk.Registration{Key: id, Value: claim.Registration, Seen: time.Now()}
		if in, err = c.files.read(held); err != nil {
			c.log.Warn("proxy of another replica is not used", zap.String("proxy", id), zap.Error(err))
			claimed = false
		}
	}
	if !claimed {
		c.inbox.others(id, nil)
	} else {
		c.inbox.others(id, &admission.Proxy{ID: id, Mesh: in.Mesh, Name: in.Name, Dataplane: in.Dataplane, ZoneIngress: in.ZoneIngress})
	}
	if p := c.proxies[id]; p != nil {
		// It came from there, and listens already.
		if claimed && c.state.Serve(id) {
			c.keep(p.who)
		}
		return claimed
	}
	if r := c.restored[id]; r != nil {
		forgive(r.debts)
		delete(c.restored, id)
	}
	c.siblings.gossip.Delete(proxyPart + id) // what it said of a proxy that it doesn't have any more
	if claimed {
		c.state.Register(in.Proxy, false)
		c.files.set(id, &held)
		return true
	}
	if c.state.Unregister(id) {
		c.files.remove(id)
		c.log.Info("proxy of another replica has gone", zap.String("proxy", id))
	}
	return false
}

// check says what is wrong with a replica's part among others.
func (g Gossip) check(replica string) error {
	if g.Address == "" {
		return nil
	}
	if _, err := g.config(); err != nil {
		return err
	}
	if g.KeyFile == "" {
		return errors.New("zone: gossip-key-file is not set; replicas trust whoever has the key: make one with: head -c 32 /dev/urandom | base64")
	}
	if !replicaName.MatchString(replica) {
		return fmt.Errorf("zone: replica %q can't be part of a name; set one of letters, digits, -, _ and ., of at most 63", replica)
	}
	return nil
}
