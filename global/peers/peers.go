// Package peers joins the replicas of global: who is there and which of them has a zone's stream (by gossip), what they know of those
// streams, and questions to a zone that another one has (by gRPC).
//
// Replicas prove themselves to each other by certificates that live as long as the process; their fingerprints travel by gossip, which
// is encrypted with a key that only they have. The package knows nothing of etcd, decides nothing about zones (package zones), and keeps
// nothing on disk. A replica that is alone needs none of it.
package peers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/zones"
	"github.com/zoneforge/zoneforge/gossip"
	"github.com/zoneforge/zoneforge/sync/stream"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Registry is what peers need of the registry of zones; *zones.Registry is one.
type Registry interface {
	// Tell and Hear are the two ends of what replicas tell each other of their streams.
	Tell(ctx context.Context, send func(*kdsv1.Streams) error) error
	Hear(peer string) *zones.Heard
	// Ask asks a zone whose stream is here.
	Ask(ctx context.Context, zone string, q *kdsv1.Query) ([]byte, error)
	// SendAway and Stay end the streams of zones for which others are better.
	SendAway(why string)
	Stay()
	// Left is told of another replica that said that it goes.
	Left(peer string)
}

// Config of a replica's part. All but KeysFile and Logger is needed.
type Config struct {
	// Name of this replica.
	Name string
	// Gossip has everything but the name, the keys and what is kept; KeysFile is read again when it changes.
	Gossip   gossip.Config
	KeysFile string
	// Listener is where other replicas ask this one.
	Listener net.Listener
	Registry Registry
	// Away says that this replica's store does not answer.
	Away func() bool
	// Keys name those that seal and open secrets here, the one that seals first.
	Keys   func() []string
	Logger *zap.Logger
}

const (
	// keysEvery is how often the file of keys is looked at.
	keysEvery = 5 * time.Second
	// forgotten is how long gossip keeps what a replica said that has gone.
	forgotten = 10 * time.Second
	// awayEvery is how often the store's state is looked at, and awayFor how long it must be away before zones are sent to others.
	awayEvery = 250 * time.Millisecond
	awayFor   = time.Second
)

// Keys of records, with the name of the zone and of its replica below.
const (
	replicaKey = "replica"
	zonePart   = "zone/"
)

// record is what a replica says of itself.
type record struct {
	Port int    `json:"port"`
	Pin  []byte `json:"pin"`
	Away bool   `json:"away,omitempty"`
	// Keys are as in Config.
	Keys []string `json:"keys,omitempty"`
}

// Replica is one of global's, in the JSON of the REST API.
type Replica struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	// Self says that it is the one that was asked.
	Self bool `json:"self,omitempty"`
	// Away says that its store does not answer.
	Away bool `json:"away"`
	// Keys name those of its key file, the one that seals first.
	Keys []string `json:"keys,omitempty"`
	// Zones whose streams it has.
	Zones []string `json:"zones"`
}

// Peers is one replica's part.
type Peers struct {
	cfg      Config
	log      *zap.Logger
	gossip   *gossip.Gossip
	identity tls.Certificate
	pin      []byte

	mu    sync.Mutex
	links map[string]*link // to the others, by name; guarded by mu
}

// New checks the configuration and makes the replica's certificate; it starts nothing.
func New(cfg Config) (*Peers, error) {
	if cfg.Name == "" || cfg.Listener == nil || cfg.Registry == nil || cfg.Away == nil || cfg.Keys == nil {
		return nil, errors.New("peers: name, listener, registry, the state of the store and its keys are all needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	identity, pin, err := newIdentity(cfg.Name)
	if err != nil {
		return nil, err
	}
	keys, err := gossip.ReadKeys(cfg.KeysFile)
	if err != nil {
		return nil, err
	}
	cfg.Gossip.Name, cfg.Gossip.Keys, cfg.Gossip.Grace, cfg.Gossip.Logger = cfg.Name, keys, forgotten, cfg.Logger
	g, err := gossip.New(cfg.Gossip)
	if err != nil {
		return nil, err
	}
	return &Peers{cfg: cfg, log: cfg.Logger, gossip: g, identity: identity, pin: pin, links: map[string]*link{}}, nil
}

// Run joins the others until ctx ends; then it says goodbye and returns nil.
func (p *Peers) Run(ctx context.Context) error {
	if err := p.say(false, p.cfg.Keys()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	part := func(what string, run func() error) {
		wg.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("peers: %s: %w", what, err))
			}
		})
	}
	part("gossip", func() error { return p.gossip.Run(ctx) })
	part("keys", func() error { p.gossip.FollowKeys(ctx, p.cfg.KeysFile, keysEvery); return nil })
	part("server", func() error { return p.serve(ctx) })
	part("streams", func() error { return p.announce(ctx) })
	part("store", func() error { return p.heed(ctx) })
	part("replicas", func() error { p.follow(ctx); return nil })
	<-ctx.Done()
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// say tells the others where this replica is asked, and how it is.
func (p *Peers) say(away bool, keys []string) error {
	_, port, err := net.SplitHostPort(p.cfg.Listener.Addr().String())
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	b, err := json.Marshal(record{Port: n, Pin: p.pin, Away: away, Keys: keys})
	if err != nil {
		return err
	}
	return p.gossip.Put(replicaKey, b)
}

// announce tells the others by gossip which zones' streams this replica has.
func (p *Peers) announce(ctx context.Context) error {
	said := map[string]uint64{}
	err := p.cfg.Registry.Tell(ctx, func(m *kdsv1.Streams) error {
		for _, k := range m.GetClosed() {
			delete(said, zoneKey(k))
			p.gossip.Delete(zoneKey(k))
		}
		for _, s := range m.GetOpen() {
			key := zoneKey(s.GetKey())
			if said[key] == s.GetStream() {
				continue
			}
			said[key] = s.GetStream()
			if err := p.gossip.Put(key, []byte(strconv.FormatUint(s.GetStream(), 10))); err != nil {
				return err
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func zoneKey(k *kdsv1.StreamKey) string {
	return zonePart + url.PathEscape(k.GetZone()) + "/" + url.PathEscape(k.GetReplica())
}

// heed sends zones to others while the store is away from this replica and not from all of them.
func (p *Peers) heed(ctx context.Context) error {
	tick := time.NewTicker(awayEvery)
	defer tick.Stop()
	var since time.Time // when it went; zero while it is there
	keys := p.cfg.Keys()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			away := p.cfg.Away()
			if now := p.cfg.Keys(); !slices.Equal(now, keys) {
				keys = now
				if err := p.say(away, keys); err != nil {
					return err
				}
			}
			if away != !since.IsZero() {
				if err := p.say(away, keys); err != nil {
					return err
				}
				if since = now; !away {
					since = time.Time{}
					p.cfg.Registry.Stay()
				}
			}
			if away && now.Sub(since) >= awayFor && p.betterThere() {
				p.cfg.Registry.SendAway("this replica of global is cut off from its store: connect to another one")
			}
		}
	}
}

// betterThere says whether another replica reaches the store.
func (p *Peers) betterThere() bool {
	return slices.ContainsFunc(p.Replicas(), func(r Replica) bool { return !r.Self && !r.Away })
}

// known are the replicas that are alive and have said how they are reached.
func (p *Peers) known() (map[string]target, gossip.Snapshot, <-chan struct{}) {
	snap, changed := p.gossip.Watch()
	hosts := map[string]string{}
	for _, m := range snap.Members {
		if host, _, err := net.SplitHostPort(m.Address); err == nil {
			hosts[m.Name] = host
		}
	}
	out := map[string]target{}
	for _, r := range snap.Records {
		var said record
		host, alive := hosts[r.Owner]
		if r.Key == replicaKey && alive && json.Unmarshal(r.Value, &said) == nil {
			out[r.Owner] = target{address: net.JoinHostPort(host, strconv.Itoa(said.Port)), pin: string(said.Pin), away: said.Away}
		}
	}
	return out, snap, changed
}

// Replicas are those that are alive, ordered by name.
func (p *Peers) Replicas() []Replica {
	known, snap, _ := p.known()
	out := []Replica{}
	for _, m := range snap.Members {
		t, said := known[m.Name]
		r := Replica{Name: m.Name, Address: t.address, Self: m.Name == p.cfg.Name, Away: !said || t.away, Zones: []string{}}
		for _, rec := range snap.Records {
			if rec.Key == replicaKey && rec.Owner == m.Name {
				var is record
				if json.Unmarshal(rec.Value, &is) == nil {
					r.Keys = is.Keys
				}
			}
			if zone, _, ok := parseZoneKey(rec.Key); ok && rec.Owner == m.Name && !slices.Contains(r.Zones, zone) {
				r.Zones = append(r.Zones, zone)
			}
		}
		out = append(out, r)
	}
	return out
}

func parseZoneKey(key string) (zone, replica string, ok bool) {
	rest, ok := strings.CutPrefix(key, zonePart)
	zone, replica, found := strings.Cut(rest, "/")
	zone, err := url.PathUnescape(zone)
	return zone, replica, ok && found && err == nil
}

// holders are links to the replicas that have streams of a zone, that with the newest first.
func (p *Peers) holders(zone string) []*link {
	_, snap, _ := p.known()
	newest := map[string]uint64{}
	for _, r := range snap.Records {
		name, _, ok := parseZoneKey(r.Key)
		if n, err := strconv.ParseUint(string(r.Value), 10, 64); ok && err == nil && name == zone && r.Owner != p.cfg.Name {
			newest[r.Owner] = max(newest[r.Owner], n)
		}
	}
	holders := make([]string, 0, len(newest))
	for name := range newest {
		holders = append(holders, name)
	}
	slices.SortFunc(holders, func(a, b string) int {
		if newest[a] != newest[b] && newest[a] > newest[b] {
			return -1
		}
		return strings.Compare(a, b)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*link
	for _, name := range holders {
		if l := p.links[name]; l != nil {
			out = append(out, l)
		}
	}
	return out
}

// AskAll asks a zone through all other replicas that have streams of its replicas, and gives the answers that came, by the names of those.
func (p *Peers) AskAll(ctx context.Context, zone string, q *kdsv1.Query) map[string][]byte {
	answers := map[string][]byte{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, l := range p.holders(zone) {
		wg.Go(func() {
			if body, err := l.ask(ctx, zone, q); err == nil {
				mu.Lock()
				defer mu.Unlock()
				answers[l.name] = body
			}
		})
	}
	wg.Wait()
	return answers
}

// Ask asks a zone through the replica that has its newest stream, or else through another one. Errors are those of stream.Server.Ask.
func (p *Peers) Ask(ctx context.Context, zone string, q *kdsv1.Query) ([]byte, error) {
	err := fmt.Errorf("zone %s: %w: no replica of it has a stream to any replica of global", zone, stream.ErrNotConnected)
	for _, l := range p.holders(zone) {
		var body []byte
		if body, err = l.ask(ctx, zone, q); !errors.Is(err, stream.ErrNotConnected) && !errors.Is(err, stream.ErrAnswer) {
			return body, err
		}
	}
	return nil, err
}
