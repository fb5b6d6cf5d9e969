// Package simproxy owns proxies without Envoy, cheap enough for ten thousand in one process: over delta ADS each asks for what
// Envoy asks for, acknowledges all that it is given, at once, and connects again when its stream ends, saying what it has.
//
// They are real clients: a connection each, TLS, a token, go-control-plane's generated API. What makes them cheap is that a resource
// is decoded once for all that are given it, as equal versions are equal bytes: of the others name and version are read. It never judges what a proxy is given beyond
// counting what should not be: resources that were emptied or taken away, and streams that ended.
package simproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"hash/maphash"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/grpc"
)

// Item is one version of one resource, shared by all proxies that hold it. It must not be changed.
type Item struct {
	Type, Name, Version string
	// Endpoints of an EDS resource as host:port, sorted.
	Endpoints []string

	references References
}

// Seen is called for each resource that a proxy was given, after it was acknowledged; nil stands in for the item of a resource that
// the proxy has lost. It is called on the goroutines of proxies, many at a time.
type Seen func(p *Proxy, typeURL, name string, item *Item, at time.Time)

// Config of a fleet.
type Config struct {
	// Address is host:port of the zone's xDS, and TLS proves it.
	Address string
	TLS     *tls.Config
	// Keepalive is how often a proxy pings the zone when all is silent; gRPC allows 10 s and longer. It waits twice as long for an
	// answer, as all proxies share a machine with the zone.
	Keepalive time.Duration
	// Pause bounds the wait before a proxy connects again; it begins with a tenth of it.
	Pause time.Duration
}

// Fleet is many proxies of one zone. It is safe for concurrent use.
type Fleet struct {
	cfg   Config
	items items
	seen  atomic.Pointer[Seen]
	wg    sync.WaitGroup

	connected, complete          atomic.Int64
	emptied, removed, reconnects atomic.Int64
	bytes                        atomic.Int64

	mu   sync.Mutex
	last error // guarded by mu: why a stream ended
}

// Counts are sums over all proxies, since the beginning where they are not of this moment.
type Counts struct {
	// Connected proxies have a stream, and Complete ones hold all that they should.
	Connected, Complete int64
	// Emptied counts endpoints of a service that were there and are none, Removed clusters, listeners and endpoints that were taken
	// from a proxy.
	Emptied, Removed int64
	// Reconnects counts streams that ended unasked.
	Reconnects int64
	// Bytes of the resources that came.
	Bytes int64
}

// New makes a fleet without proxies.
func New(cfg Config) *Fleet { return &Fleet{cfg: cfg, items: items{seed: maphash.MakeSeed()}} }

// Counts gives the sums.
func (f *Fleet) Counts() Counts {
	return Counts{Connected: f.connected.Load(), Complete: f.complete.Load(), Emptied: f.emptied.Load(), Removed: f.removed.Load(),
		Reconnects: f.reconnects.Load(), Bytes: f.bytes.Load()}
}

// Watch has each resource that comes from now on told; nil ends it.
func (f *Fleet) Watch(seen Seen) {
	if seen == nil {
		f.seen.Store(nil)
		return
	}
	f.seen.Store(&seen)
}

// Await returns when ok says yes, which is asked every few milliseconds.
func (f *Fleet) Await(ctx context.Context, what string, limit time.Duration, ok func(Counts) bool) error {
	over := time.NewTimer(limit)
	defer over.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok(f.Counts()) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-over.C:
			return fmt.Errorf("%s: not within %s: %+v; the last stream that ended: %w", what, limit, f.Counts(), f.why())
		case <-tick.C:
		}
	}
	return nil
}

// Wait returns when all proxies have ended.
func (f *Fleet) Wait() { f.wg.Wait() }

func (f *Fleet) ended(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = err
}

func (f *Fleet) why() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

// Forget lets go of the items that were seen till now; proxies keep theirs.
func (f *Fleet) Forget() { f.items.clear() }

func addresses(e *endpointv3.ClusterLoadAssignment) []string {
	var out []string
	for _, locality := range e.GetEndpoints() {
		for _, one := range locality.GetLbEndpoints() {
			a := one.GetEndpoint().GetAddress().GetSocketAddress()
			out = append(out, net.JoinHostPort(a.GetAddress(), strconv.Itoa(int(a.GetPortValue()))))
		}
	}
	slices.Sort(out)
	return out
}

// Link is a connection that several streams use one after another.
type Link struct{ conn *grpc.ClientConn }

// Dial makes a connection of its own for proxies that come and go often; it connects with the first of them.
func (f *Fleet) Dial(token string) (*Link, error) {
	conn, err := f.dial(token)
	return &Link{conn}, err
}

// Close ends the connection, after the proxies that use it.
func (l *Link) Close() error { return l.conn.Close() }

// Add begins a proxy with a connection of its own. It lives until ctx ends or Stop is called.
func (f *Fleet) Add(ctx context.Context, node *corev3.Node, token string) *Proxy {
	return f.begin(ctx, node, func(ctx context.Context, p *Proxy) {
		conn, err := f.dial(token)
		if err != nil {
			f.ended(err)
			return
		}
		defer conn.Close()
		p.run(ctx, conn)
	})
}

// AddOver is Add over a connection that others may use, too: what ends with the proxy is its stream.
func (f *Fleet) AddOver(ctx context.Context, link *Link, node *corev3.Node) *Proxy {
	return f.begin(ctx, node, func(ctx context.Context, p *Proxy) { p.run(ctx, link.conn) })
}

func (f *Fleet) begin(ctx context.Context, node *corev3.Node, run func(context.Context, *Proxy)) *Proxy {
	ctx, cancel := context.WithCancel(ctx)
	p := &Proxy{fleet: f, node: node, cancel: cancel, done: make(chan struct{}), held: map[string]map[string]*Item{}, wanted: map[string]map[string]bool{}}
	f.wg.Go(func() {
		defer close(p.done)
		defer cancel()
		run(ctx, p)
	})
	return p
}
