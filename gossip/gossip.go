// Package gossip lets the replicas of one control plane find each other and spread small keyed records among themselves. It is the
// only user of memberlist. It never interprets a record and never stores one on disk. Every holder of a key is trusted: a replica
// could forge another's records, so the keys must stay within one control plane.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

const rejoinEvery = 5 * time.Second

// Config says who this replica is and how it finds the others.
type Config struct {
	Name             string // unique among the replicas
	BindAddress      string // an IP address; empty means all
	BindPort         int    // TCP and UDP; 0 takes a free one
	AdvertiseAddress string // an IP address; empty means that of BindAddress
	Join             []string
	Keys             [][]byte // AES keys of 16, 24 or 32 bytes: the first encrypts, all decrypt
	Insecure         bool     // allows Keys to be empty: records then travel in the clear
	Logger           *zap.Logger
	Grace            time.Duration // how long the records of a replica that went are kept
	Now              func() time.Time
}

// Member is a replica that is alive.
type Member struct{ Name, Address string }

// Snapshot is what this replica knows at one time. It is immutable and must not be changed.
type Snapshot struct {
	Members []Member // by name, this replica too
	Records []Record // by owner and key, without deleted ones
}

// Gossip is one replica. Its methods are safe for concurrent use.
type Gossip struct {
	config       Config
	keyring      *memberlist.Keyring
	list         *memberlist.Memberlist // set by start
	tune         func(*memberlist.Config)
	leaveTimeout time.Duration // 0 goes without a word, as a crash does
	wake         chan struct{} // holds one token when dirty or greet has something

	mu       sync.Mutex
	state    *state
	snapshot Snapshot
	changed  chan struct{}
	dirty    map[string]bool // own keys to be sent to all
	greet    bool            // a member came: send all own records
}

// New checks config. It starts nothing.
func New(config Config) (*Gossip, error) {
	if config.Name == "" {
		return nil, errors.New("gossip: name is empty: give each replica its own")
	}
	if config.Grace < 0 || config.BindPort < 0 || config.BindPort > 65535 {
		return nil, errors.New("gossip: grace must not be negative, bind port must be 0 to 65535")
	}
	if len(config.Keys) == 0 && !config.Insecure {
		return nil, errors.New("gossip: no keys: give an AES key of 16, 24 or 32 bytes, or set insecure")
	}
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	g := &Gossip{config: config, leaveTimeout: 2 * time.Second, wake: make(chan struct{}, 1), state: newState(config.Name, config.Grace),
		changed: make(chan struct{}), dirty: map[string]bool{}}
	if len(config.Keys) > 0 {
		ring, err := memberlist.NewKeyring(config.Keys, config.Keys[0])
		if err != nil {
			return nil, fmt.Errorf("gossip: keys: %w", err)
		}
		g.keyring = ring
	}
	return g, nil
}

// Put sets a record of this replica. The value is copied.
func (g *Gossip) Put(key string, value []byte) error {
	if key == "" {
		return errors.New("gossip: put: key is empty")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writeLocked(key, slices.Clone(value), false)
	return nil
}

// Delete removes a record of this replica. A key that isn't there is no error.
func (g *Gossip) Delete(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if held, ok := g.state.records[id{g.config.Name, key}]; ok && !held.Deleted {
		g.writeLocked(key, nil, true)
	}
}

func (g *Gossip) writeLocked(key string, value []byte, deleted bool) {
	g.state.write(key, value, deleted, g.config.Now())
	g.dirty[key] = true
	g.publishLocked()
}

// Watch returns what is known now and a channel that closes when that is stale.
func (g *Gossip) Watch() (Snapshot, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.snapshot, g.changed
}

// Rotate replaces the keys: the first encrypts, all decrypt. To rotate a running control plane, first give all replicas
// (old, new), then (new, old), then (new).
func (g *Gossip) Rotate(keys [][]byte) error {
	if g.keyring == nil || len(keys) == 0 {
		return errors.New("gossip: rotate: encryption can't be switched on or off while running: restart with other keys")
	}
	for _, key := range keys {
		if err := memberlist.ValidateKey(key); err != nil {
			return fmt.Errorf("gossip: rotate: %w", err)
		}
	}
	for _, key := range keys {
		if err := g.keyring.AddKey(key); err != nil {
			return fmt.Errorf("gossip: rotate: %w", err)
		}
	}
	if err := g.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("gossip: rotate: %w", err)
	}
	for _, old := range slices.Clone(g.keyring.GetKeys()) {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return slices.Equal(k, old) }) {
			if err := g.keyring.RemoveKey(old); err != nil {
				return fmt.Errorf("gossip: rotate: %w", err)
			}
		}
	}
	return nil
}

// publishLocked makes a new snapshot, closes the old one's channel and wakes the sender.
func (g *Gossip) publishLocked() {
	var members []Member
	for name, address := range g.state.alive {
		members = append(members, Member{name, address})
	}
	slices.SortFunc(members, func(a, b Member) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	g.snapshot = Snapshot{members, g.state.sorted(func(r Record) bool { return !r.Deleted })}
	close(g.changed)
	g.changed = make(chan struct{})
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *Gossip) start() error {
	c := memberlist.DefaultLANConfig()
	c.Name, c.BindPort, c.AdvertisePort = g.config.Name, g.config.BindPort, g.config.BindPort
	if g.config.BindAddress != "" {
		c.BindAddr = g.config.BindAddress
	}
	c.AdvertiseAddr = g.config.AdvertiseAddress
	c.Keyring = g.keyring
	c.Delegate, c.Events = delegate{g}, delegate{g}
	logger, err := zap.NewStdLogAt(g.config.Logger, zap.DebugLevel)
	if err != nil {
		return fmt.Errorf("gossip: logger: %w", err)
	}
	c.Logger = logger
	if g.tune != nil {
		g.tune(c)
	}
	if g.list, err = memberlist.Create(c); err != nil {
		return fmt.Errorf("gossip: listen on %s:%d: %w", c.BindAddr, c.BindPort, err)
	}
	return nil
}

// Run listens, joins and blocks until ctx ends; then it says goodbye. It may be called once. That no peer answers is no error:
// it is asked again while this replica is alone.
func (g *Gossip) Run(ctx context.Context) error {
	if err := g.start(); err != nil {
		return err
	}
	tick := time.NewTicker(min(max(g.config.Grace/10, 10*time.Millisecond), time.Second))
	defer tick.Stop()
	rejoin := time.NewTicker(rejoinEvery)
	defer rejoin.Stop()
	g.join()
	for {
		select {
		case <-ctx.Done():
			if g.leaveTimeout > 0 {
				if err := g.list.Leave(g.leaveTimeout); err != nil {
					g.config.Logger.Debug("nobody heard the goodbye", zap.String("replica", g.config.Name), zap.Error(err)) // they will notice
				}
			}
			if err := g.list.Shutdown(); err != nil {
				return fmt.Errorf("gossip: leave: %w", err)
			}
			return nil
		case <-g.wake:
			g.spread()
		case <-rejoin.C:
			g.join()
		case <-tick.C:
			g.mu.Lock()
			if g.state.expire(g.config.Now()) {
				g.publishLocked()
			}
			g.mu.Unlock()
		}
	}
}

func (g *Gossip) join() {
	if len(g.config.Join) == 0 || g.list.NumMembers() > 1 {
		return
	}
	if _, err := g.list.Join(g.config.Join); err != nil {
		g.config.Logger.Debug("no replica to join yet", zap.String("replica", g.config.Name), zap.Error(err))
	}
}

// spread sends the own records that changed to all members at once. What fails is left to push/pull.
func (g *Gossip) spread() {
	g.mu.Lock()
	records := g.state.sorted(func(r Record) bool { return r.Owner == g.config.Name && (g.greet || g.dirty[r.Key]) })
	g.greet = false
	clear(g.dirty)
	g.mu.Unlock()
	if len(records) == 0 {
		return
	}
	b, err := encode(records)
	if err != nil {
		g.config.Logger.Error("records can't be encoded", zap.Error(err))
		return
	}
	var sends sync.WaitGroup
	for _, node := range g.list.Members() {
		if node.Name != g.config.Name {
			sends.Go(func() {
				if err := g.list.SendReliable(node, b); err != nil {
					g.config.Logger.Debug("delta not sent", zap.String("replica", node.Name), zap.Error(err))
				}
			})
		}
	}
	sends.Wait()
}

// delegate is what memberlist calls, some of it with its own locks held: so it takes g.mu briefly and never calls memberlist.
type delegate struct{ g *Gossip }

func (d delegate) NodeMeta(int) []byte             { return nil }
func (d delegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (d delegate) NotifyMsg(b []byte)              { d.MergeRemoteState(b, false) }

func (d delegate) LocalState(bool) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	b, err := encode(d.g.state.sorted(func(Record) bool { return true }))
	if err != nil {
		d.g.config.Logger.Error("state can't be encoded", zap.Error(err))
	}
	return b
}

func (d delegate) MergeRemoteState(b []byte, _ bool) {
	records, err := decode(b)
	if err != nil {
		d.g.config.Logger.Warn("gossip frame refused", zap.Error(err))
		return
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	changed, overruled := d.g.state.merge(records, d.g.config.Now())
	for _, key := range overruled {
		d.g.dirty[key] = true
	}
	if changed {
		d.g.publishLocked()
	}
}

func (d delegate) NotifyJoin(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.state.join(n.Name, n.Address())
	d.g.greet = true
	d.g.publishLocked()
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.state.leave(n.Name, d.g.config.Now())
	d.g.publishLocked()
}

func (d delegate) NotifyUpdate(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.state.join(n.Name, n.Address())
	d.g.publishLocked()
}
