// Package simzone owns simulated zones: clients of KDS as a zone's control plane is one, as many in a process as a measurement
// needs. Each has a TLS connection, a token and a stream of its own, holds digests and a revision, checks every record and every
// digest, acknowledges, offers services, sums up proxies that don't exist, and comes back by what it holds, after the same waits as
// the product's.
//
// What zones hold is shared between those that hold the same, so that a thousand of them cost about as much memory as one. They
// have no disk, no proxies and no certificates, and never judge what a record means. The package measures, and decides no goal.
package simzone

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config of a fleet.
type Config struct {
	// Target is host:port of global's KDS, and Roots prove it.
	Target string
	Roots  *x509.CertPool
	// Proxies are how many each zone says it has, and Services how many of the mesh's it offers.
	Proxies, Services int
	Mesh              string
	// StatusHold is how long a zone waits after a delta before it tells of its proxies.
	StatusHold time.Duration
	// MinBackoff and MaxBackoff bound the wait before the next stream; those of the product when 0.
	MinBackoff, MaxBackoff time.Duration
}

// Fleet is zones of one global.
type Fleet struct {
	cfg     Config
	tls     *tls.Config
	states  *states
	proxies atomic.Int64
	wg      sync.WaitGroup
	cancel  context.CancelFunc
	ctx     context.Context

	mu      sync.Mutex
	zones   []*Zone
	watches map[*Watch]bool
	changed chan struct{} // closed and replaced when a zone came online or went
	online  int
	err     error
}

// New makes a fleet without zones.
func New(cfg Config) (*Fleet, error) {
	if cfg.Target == "" || cfg.Roots == nil {
		return nil, errors.New("simulated zones: target and roots are needed")
	}
	cfg.MinBackoff, cfg.MaxBackoff = cmp.Or(cfg.MinBackoff, minBackoff), cmp.Or(cfg.MaxBackoff, maxBackoff)
	f := &Fleet{
		cfg: cfg, tls: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12}, states: newStates(),
		watches: map[*Watch]bool{}, changed: make(chan struct{}),
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.proxies.Store(int64(cfg.Proxies))
	return f, nil
}

// Add starts a zone. It holds what like holds, as if it had been away for a moment; nil for nothing.
func (f *Fleet) Add(name, token string, like *Zone) *Zone {
	z := newZone(f, name, token)
	if like != nil {
		like.mu.Lock()
		z.state, z.epoch, z.revision = like.state, like.epoch, like.revision
		like.mu.Unlock()
	}
	f.mu.Lock()
	f.zones = append(f.zones, z)
	f.mu.Unlock()
	f.wg.Go(func() { z.run(f.ctx) })
	return z
}

// Stop ends all zones.
func (f *Fleet) Stop() {
	f.cancel()
	f.wg.Wait()
}

// SetProxies changes how many proxies each zone has; each tells of it at once.
func (f *Fleet) SetProxies(n int) {
	f.proxies.Store(int64(n))
	for _, z := range f.all() {
		z.sendStatus()
	}
}

func (f *Fleet) all() []*Zone {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.zones[:len(f.zones):len(f.zones)]
}

// fail notes what must never happen; the first is told by all that waits.
func (f *Fleet) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *Fleet) count(delta int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.online += delta
	close(f.changed)
	f.changed = make(chan struct{})
}

// Online waits until so many zones are welcomed and have acknowledged a revision or more.
func (f *Fleet) Online(ctx context.Context, zones int, revision uint64) error {
	w := f.Watch(revision)
	defer w.Close()
	for {
		f.mu.Lock()
		online, changed, err := f.online, f.changed, f.err
		f.mu.Unlock()
		switch {
		case err != nil:
			return err
		case online >= zones:
			_, err := w.Wait(ctx)
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d simulated zones are welcomed: %w", online, zones, ctx.Err())
		}
	}
}

// Watch collects when each zone acknowledged a revision, or a later one. Begin it before the change is made.
type Watch struct {
	fleet    *Fleet
	at       map[*Zone]time.Time // guarded by the fleet's mu
	missing  int
	revision atomic.Uint64
	done     chan struct{}
}

// Watch begins one; revision 0 waits for Expect.
func (f *Fleet) Watch(revision uint64) *Watch {
	w := &Watch{fleet: f, done: make(chan struct{})}
	if revision > 0 {
		w.Expect(revision)
	}
	return w
}

// Expect says which revision is waited for. Zones that have it already count by the time at which they took it.
func (w *Watch) Expect(revision uint64) {
	f := w.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	w.at = make(map[*Zone]time.Time, len(f.zones))
	w.revision.Store(revision)
	for _, z := range f.zones {
		if t := z.taken.Load(); t != nil && t.revision >= revision {
			w.at[z] = t.at
		}
	}
	if w.missing = len(f.zones) - len(w.at); w.missing == 0 {
		close(w.done)
		return
	}
	f.watches[w] = true
}

// Wait gives the times, in order, once all zones have the revision.
func (w *Watch) Wait(ctx context.Context) ([]time.Time, error) {
	select {
	case <-w.done:
	case <-ctx.Done():
		w.fleet.mu.Lock()
		defer w.fleet.mu.Unlock()
		if w.fleet.err != nil {
			return nil, w.fleet.err
		}
		return nil, fmt.Errorf("%d zones have not acknowledged revision %d: %w", w.missing, w.revision.Load(), ctx.Err())
	}
	w.fleet.mu.Lock()
	defer w.fleet.mu.Unlock()
	out := make([]time.Time, 0, len(w.at))
	for _, t := range w.at {
		out = append(out, t)
	}
	slices.SortFunc(out, time.Time.Compare)
	return out, w.fleet.err
}

// Close ends the wait.
func (w *Watch) Close() {
	w.fleet.mu.Lock()
	defer w.fleet.mu.Unlock()
	delete(w.fleet.watches, w)
}

// took notes that a zone acknowledged a revision.
func (f *Fleet) took(z *Zone, t *taken) {
	f.mu.Lock()
	defer f.mu.Unlock()
	z.taken.Store(t)
	for w := range f.watches {
		if _, known := w.at[z]; known || t.revision < w.revision.Load() {
			continue
		}
		w.at[z] = t.at
		if w.missing--; w.missing == 0 {
			delete(f.watches, w)
			close(w.done)
		}
	}
}

// Traffic is what zones sent and were given.
type Traffic struct {
	// Down and Up are bytes of HTTP/2, frames and headers included; TLSDown and TLSUp are those of the socket. BeatsDown and
	// BeatsUp are those of Down and Up that are heartbeats.
	Down, Up, TLSDown, TLSUp, BeatsDown, BeatsUp int64
	// Streams were opened, Reports sent, Snapshots taken whole, and Deltas acknowledged, with so many Records, whose keys and
	// payloads have so many Bytes.
	Streams, Reports, Snapshots, Deltas, Records, Bytes int64
}

func (t *Traffic) fields() []*int64 {
	return []*int64{&t.Down, &t.Up, &t.TLSDown, &t.TLSUp, &t.BeatsDown, &t.BeatsUp, &t.Streams, &t.Reports, &t.Snapshots, &t.Deltas, &t.Records, &t.Bytes}
}

// Sub is what came since an earlier one.
func (t Traffic) Sub(o Traffic) Traffic {
	for i, f := range t.fields() {
		*f -= *o.fields()[i]
	}
	return t
}

// Traffic is that of all zones together.
func (f *Fleet) Traffic() (sum Traffic) {
	for _, t := range f.TrafficOfEach() {
		for i, n := range sum.fields() {
			*n += *t.fields()[i]
		}
	}
	return sum
}

// TrafficOfEach is that of each zone, in the order in which they were added.
func (f *Fleet) TrafficOfEach() []Traffic {
	var out []Traffic
	for _, z := range f.all() {
		out = append(out, z.Traffic())
	}
	return out
}
