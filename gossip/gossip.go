// Package gossip lets the replicas of one control plane find each other and spread small keyed records among themselves. It is the
// only user of memberlist. It never interprets a record and never stores one on disk. Every holder of a key is trusted: a replica
// could forge another's records, so the keys must stay within one control plane.
package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"
)

const (
	// rejoinEvery is how often replicas that are missing are looked for, and lostFor how long those that died are, and longer while
	// their records are kept.
	rejoinEvery = 5 * time.Second
	lostFor     = time.Hour
	// pushPullEvery is how often a replica compares what it holds with what another one does.
	pushPullEvery = 5 * time.Second
	// sendTimeout bounds a connection's handshake, and what is sent over it.
	sendTimeout = 3 * time.Second
	// sendAgain is after how long a member is tried again that took nothing.
	sendAgain = 500 * time.Millisecond
)

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
	// Gone says since when a replica that is silent is gone for good, from when on the grace counts; while ok is false it may live, as one
	// does that a partition has parted from this one, and its records stay. Silence alone decides when it is nil. It is called with a
	// lock held, so it must not call back.
	Gone func(d Departed) (since time.Time, ok bool)
	Now  func() time.Time
}

// Departed is a replica that is not alive, of which there are records.
type Departed struct {
	Name  string
	Since time.Time
	// Left says that it said goodbye.
	Left bool
}

// Member is a replica that is alive.
type Member struct{ Name, Address string }

// Snapshot is what this replica knows at one time. It is immutable and must not be changed.
type Snapshot struct {
	Members []Member // by name, this replica too
	Records []Record // by owner and key
}

// Change is a record that was written; Deleted when it has gone.
type Change struct {
	Record
	Deleted bool
}

// Stats count what a replica knows and what was mended.
type Stats struct {
	Members, Records int
	// Repairs are the times that an owner's records were not told one change after the other, but by their difference.
	Repairs uint64
}

// Gossip is one replica. Its methods are safe for concurrent use.
type Gossip struct {
	config       Config
	keyring      *memberlist.Keyring
	list         *memberlist.Memberlist // set by start
	tune         func(*memberlist.Config)
	leaveTimeout time.Duration // 0 goes without a word, as a crash does
	news         chan struct{} // holds one token when a member came or went

	mu       sync.Mutex
	state    *state
	snapshot Snapshot
	stale    bool // says that snapshot is to be made anew
	changed  chan struct{}
	outboxes map[string]*outbox // by member, self without
	// lost has the addresses of members that went without a word, with when. They may be on the other side of a partition.
	lost map[string]time.Time
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
	if config.Gone == nil {
		config.Gone = func(d Departed) (time.Time, bool) { return d.Since, true }
	}
	g := &Gossip{config: config, leaveTimeout: 2 * time.Second, news: make(chan struct{}, 1), state: newState(config.Name, config.Grace),
		changed: make(chan struct{}), outboxes: map[string]*outbox{}, lost: map[string]time.Time{}}
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
	g.state.write(key, slices.Clone(value), g.config.Now())
	g.publishLocked()
	return nil
}

// Delete removes a record of this replica. A key that isn't there is no error.
func (g *Gossip) Delete(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state.erase(key, g.config.Now()) {
		g.publishLocked()
	}
}

// Watch returns what is known now and a channel that closes when that is stale.
func (g *Gossip) Watch() (Snapshot, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stale {
		g.stale = false
		g.snapshot = Snapshot{g.membersLocked(), g.state.records()}
	}
	return g.snapshot, g.changed
}

// Take returns who is there, what changed since the last Take, ordered, and a channel that closes when there is more. Its work grows
// with what changed. It is for one caller.
func (g *Gossip) Take() ([]Member, []Change, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Change
	for at := range g.state.touched {
		c := Change{Record: Record{Owner: at.owner, Key: at.key}, Deleted: true}
		if b := g.state.books[at.owner]; b != nil {
			if i, ok := b.records[at.key]; ok {
				c.Value, c.Deleted = i.Value, false
			}
		}
		out = append(out, c)
	}
	clear(g.state.touched)
	slices.SortFunc(out, func(a, b Change) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Owner, b.Owner)) })
	return g.membersLocked(), out, g.changed
}

// Others are the members and those that have departed, both by name.
func (g *Gossip) Others() ([]Member, []Departed) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.membersLocked(), g.state.gone()
}

// Left says whether a replica said goodbye of which there are records.
func (g *Gossip) Left(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state.departed[name].Left
}

// Stats are the counts now.
func (g *Gossip) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Stats{Members: len(g.state.alive), Repairs: g.state.repairs}
	for _, b := range g.state.books {
		s.Records += len(b.records)
	}
	return s
}

func (g *Gossip) membersLocked() []Member {
	members := make([]Member, 0, len(g.state.alive))
	for name, address := range g.state.alive {
		members = append(members, Member{name, address})
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return members
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

// publishLocked says that what is known changed, to those who watch and to the other members.
func (g *Gossip) publishLocked() {
	g.stale = true
	close(g.changed)
	g.changed = make(chan struct{})
	for _, o := range g.outboxes {
		o.signal()
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
	// What goes with push/pull is small, and frames pack themselves.
	c.PushPullInterval, c.TCPTimeout, c.EnableCompression = pushPullEvery, sendTimeout, false
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
// those that are missing are asked again and again.
func (g *Gossip) Run(ctx context.Context) error {
	if err := g.start(); err != nil {
		return err
	}
	tick := time.NewTicker(min(max(g.config.Grace/10, 10*time.Millisecond), time.Second))
	defer tick.Stop()
	sending, stop := context.WithCancel(ctx)
	defer stop()
	var senders sync.WaitGroup
	defer senders.Wait()
	senders.Go(func() { g.rejoin(sending) })
	running := map[*outbox]context.CancelFunc{}
	for {
		select {
		case <-ctx.Done():
			stop()
			if g.leaveTimeout > 0 {
				g.bye()
				if err := g.list.Leave(g.leaveTimeout); err != nil {
					g.config.Logger.Debug("nobody heard the goodbye", zap.String("replica", g.config.Name), zap.Error(err)) // they will notice
				}
			}
			if err := g.list.Shutdown(); err != nil {
				return fmt.Errorf("gossip: leave: %w", err)
			}
			return nil
		case <-g.news:
			g.mu.Lock()
			for _, o := range g.outboxes {
				if running[o] == nil {
					ctx, cancel := context.WithCancel(sending)
					running[o] = cancel
					senders.Go(func() { o.run(ctx) })
				}
			}
			for o, cancel := range running {
				if g.outboxes[o.node.Name] != o { // a member that went and came has another one
					cancel()
					delete(running, o)
				}
			}
			g.mu.Unlock()
		case <-tick.C:
			g.mu.Lock()
			if g.state.expire(g.config.Now(), g.config.Gone) {
				g.publishLocked()
			}
			g.mu.Unlock()
		}
	}
}

// bye tells the others that this replica goes, as far as they hear it within the time for that.
func (g *Gossip) bye() {
	b, err := encode(frame{From: g.config.Name, Bye: true})
	if err != nil {
		g.config.Logger.Error("goodbye can't be encoded", zap.Error(err))
		return
	}
	g.mu.Lock()
	var told sync.WaitGroup
	for _, o := range g.outboxes {
		node := o.node
		told.Go(func() {
			if err := g.list.SendReliable(node, b); err != nil {
				g.config.Logger.Debug("goodbye not sent", zap.String("replica", node.Name), zap.Error(err))
			}
		})
	}
	g.mu.Unlock()
	told.Wait()
}

// rejoin looks for replicas that are missing until ctx ends: at the start, and when a partition has parted those that there are.
func (g *Gossip) rejoin(ctx context.Context) {
	tick := time.NewTicker(rejoinEvery)
	defer tick.Stop()
	for {
		if missing := g.missing(ctx); len(missing) > 0 && ctx.Err() == nil {
			if _, err := g.list.Join(missing); err != nil {
				g.config.Logger.Debug("replicas not found", zap.Strings("replica", missing), zap.Error(err))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// missing are the addresses at which there was a replica, or should be one, and none is known to live.
func (g *Gossip) missing(ctx context.Context) (out []string) {
	var wanted []string
	for _, address := range g.config.Join {
		host, port, err := net.SplitHostPort(address)
		if err != nil || net.ParseIP(host) != nil {
			wanted = append(wanted, address)
			continue
		}
		hosts, _ := net.DefaultResolver.LookupHost(ctx, host) // a name that leads nowhere yet is asked again
		for _, h := range hosts {
			wanted = append(wanted, net.JoinHostPort(h, port))
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for address, since := range g.lost {
		if g.config.Now().Sub(since) > lostFor && len(g.state.departed) == 0 {
			delete(g.lost, address)
			continue
		}
		wanted = append(wanted, address)
	}
	alive := map[string]bool{}
	for _, address := range g.state.alive {
		alive[address] = true
	}
	for _, address := range wanted {
		if !alive[address] {
			out = append(out, address)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// delegate is what memberlist calls, some of it with its own locks held: so it takes g.mu briefly and never calls memberlist.
type delegate struct{ g *Gossip }

func (d delegate) NodeMeta(int) []byte             { return nil }
func (d delegate) GetBroadcasts(_, _ int) [][]byte { return nil }

func (d delegate) LocalState(bool) []byte {
	d.g.mu.Lock()
	f := frame{From: d.g.config.Name, Summaries: d.g.state.summaries()}
	d.g.mu.Unlock()
	b, err := encode(f)
	if err != nil {
		d.g.config.Logger.Error("state can't be encoded", zap.Error(err))
	}
	return b
}

func (d delegate) MergeRemoteState(b []byte, _ bool) { d.NotifyMsg(b) }

func (d delegate) NotifyMsg(b []byte) {
	f, err := decode(b)
	if err != nil {
		d.g.config.Logger.Warn("gossip frame refused", zap.Error(err))
		return
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.receiveLocked(f)
}

// receiveLocked takes a frame. What is missing for it is asked of who sent it.
func (g *Gossip) receiveLocked(f frame) {
	now, o := g.config.Now(), g.outboxes[f.From]
	if f.Bye {
		g.state.bye(f.From)
	}
	changed := false
	ask := func(w *want) {
		if w != nil && o != nil {
			o.asks[w.Owner] = true
			o.signal()
		}
	}
	if f.Delta != nil {
		c, missing := g.state.change(*f.Delta, now)
		changed = changed || c
		ask(missing)
	}
	for _, c := range f.Contents {
		changed = g.state.take(c, now) || changed
	}
	for _, s := range f.Summaries {
		ask(g.state.compare(f.From, s))
	}
	for _, w := range f.Wants {
		if o != nil {
			o.owed[w.Owner] = w
			o.signal()
		}
	}
	if changed {
		g.publishLocked()
	}
}

func (d delegate) NotifyJoin(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.state.join(n.Name, n.Address())
	if n.Name != d.g.config.Name {
		d.g.outboxes[n.Name] = newOutbox(d.g, n)
		delete(d.g.lost, n.Address())
		d.g.tellLocked()
	}
	d.g.publishLocked()
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	bye := d.g.state.byes[n.Name]
	d.g.state.leave(n.Name, d.g.config.Now())
	delete(d.g.outboxes, n.Name)
	if !bye {
		d.g.lost[n.Address()] = d.g.config.Now()
	}
	d.g.tellLocked()
	d.g.publishLocked()
}

func (g *Gossip) tellLocked() {
	select {
	case g.news <- struct{}{}:
	default:
	}
}

func (d delegate) NotifyUpdate(n *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.state.join(n.Name, n.Address())
	if o := d.g.outboxes[n.Name]; o != nil {
		o.node = copyOf(n)
	}
	d.g.publishLocked()
}
