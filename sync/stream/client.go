package stream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// Applier puts a delta on disk and into force: see kds.Zone.Applied. It is called for one delta at a time and must return when
// ctx ends.
type Applier interface {
	Apply(ctx context.Context, a *kds.Apply) ([]*kdsv1.Rejection, error)
}

// ClientConfig is of one replica of a zone.
type ClientConfig struct {
	// Targets are the addresses of global's replicas as gRPC names them. One is taken at random, and with each stream that fails or
	// ends the next.
	Targets []string
	// TLS is how global is trusted; with nil, DialOptions must hold the credentials.
	TLS         *tls.Config
	DialOptions []grpc.DialOption
	// Token gives the zone's bearer token; it is asked before each stream, so that a renewed one is used.
	Token   func() (string, error)
	Applier Applier
	// Event, if set, gets every event on the client's loop, so it must not block nor call Do.
	Event func(kds.ZoneEvent)
	Log   *zap.Logger
	// MinBackoff and MaxBackoff bound the wait before the next stream: 500 ms and 10 s.
	MinBackoff, MaxBackoff time.Duration
}

// Client keeps one zone's stream to global.
type Client struct {
	cfg  ClientConfig
	zone *kds.Zone // only on Run's goroutine
	do   chan func(*kds.Zone)

	// at is the target of the stream, and asked counts those that were tried since the last Welcome. Only on Run's goroutine.
	at, asked int

	up atomic.Bool
}

// NewClient makes a client that drives a machine, which it takes over.
func NewClient(cfg ClientConfig, zone *kds.Zone) (*Client, error) {
	if len(cfg.Targets) == 0 || cfg.Token == nil || cfg.Applier == nil || zone == nil {
		return nil, errors.New("stream client: targets, token, applier and zone are all needed")
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	cfg.MinBackoff = cmp.Or(cfg.MinBackoff, 500*time.Millisecond)
	cfg.MaxBackoff = max(cmp.Or(cfg.MaxBackoff, 10*time.Second), cfg.MinBackoff)
	return &Client{cfg: cfg, zone: zone, do: make(chan func(*kds.Zone)), at: rand.N(len(cfg.Targets))}, nil
}

// Connected tells whether global has welcomed the stream that is open.
func (c *Client) Connected() bool { return c.up.Load() }

// Do runs fn with the machine on the loop, as to report or to ask for a certificate. fn must not block nor keep the machine. The
// error is ctx's, when Run didn't take fn before.
func (c *Client) Do(ctx context.Context, fn func(*kds.Zone)) error {
	done := make(chan struct{})
	select {
	case c.do <- func(z *kds.Zone) { defer close(done); fn(z) }:
		<-done
		return nil
	case <-ctx.Done():
		return fmt.Errorf("zone's loop: %w", ctx.Err())
	}
}

// link is one stream; its goroutines end with its context.
type link struct {
	cancel context.CancelFunc
	in     chan *kdsv1.GlobalFrame
	out    chan *kdsv1.ZoneFrame
	failed chan error // holds two, so that neither goroutine waits to tell
}

type applied struct {
	nonce    uint64
	rejected []*kdsv1.Rejection
	err      error
}

// connectTimeout bounds a connection's TCP, TLS and HTTP/2 handshakes, so that a replica that was stopped holds a zone no longer.
const connectTimeout = 5 * time.Second

// numbers, such as those of ports, differ between errors of one cause.
var numbers = regexp.MustCompile(`[0-9]+`)

// Run keeps a stream until ctx ends, and then joins all goroutines and returns nil. It fails only when a target or credentials
// can't be used. Call it once.
func (c *Client) Run(ctx context.Context) error {
	opts := append(DialOptions(), c.cfg.DialOptions...)
	if c.cfg.TLS != nil {
		opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(c.cfg.TLS)))
	}
	if err := c.usable(opts); err != nil {
		return err
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer wg.Wait()
	defer cancel()

	var (
		l       *link
		opens   = make(chan opened, 1)
		queue   []*kdsv1.ZoneFrame
		results = make(chan applied, 1)
		backoff = c.cfg.MinBackoff
		atLeast time.Duration
		refused string
		// failing is why there is no stream, without numbers; it is told once, as every attempt may fail in the same way.
		failing string
		// withheld is set once that was told.
		withheld bool
		retry    = time.NewTimer(0)
		tick     = time.NewTimer(time.Hour)
	)
	defer retry.Stop()
	defer tick.Stop()
	hangUp := func(why error) {
		c.up.Store(false)
		if l != nil {
			l.cancel()
		}
		l, queue = nil, nil
		c.zone.Disconnect()
		wait := max(atLeast, backoff/2+rand.N(backoff/2+1))
		atLeast = 0
		// Others are asked before anyone is asked more slowly.
		c.at = (c.at + 1) % len(c.cfg.Targets)
		if c.asked++; c.asked%len(c.cfg.Targets) == 0 {
			backoff = min(2*backoff, c.cfg.MaxBackoff)
		}
		if s := numbers.ReplaceAllString(why.Error(), "#"); s != failing && refused == "" {
			failing = s
			c.cfg.Log.Warn("no stream to global", zap.Error(why), zap.Duration("retry", wait))
		} else {
			c.cfg.Log.Debug("no stream to global", zap.Error(why), zap.Duration("retry", wait))
		}
		retry.Reset(wait)
	}
	for {
		r := c.zone.Ready()
		for _, e := range r.Events {
			if e.Welcome != nil {
				c.up.Store(true)
				backoff, c.asked, refused, failing = c.cfg.MinBackoff, 0, "", ""
				c.cfg.Log.Info("connected to global", zap.String("replica", e.Welcome.GetReplica()))
			}
			if f := e.Refusal; f != nil {
				atLeast = time.Duration(f.GetRetryAfterMillis()) * time.Millisecond
				// Every attempt gets the same answer until somebody mends it, so only a new one is worth a line.
				if s := f.GetCode().String() + ": " + f.GetReason(); s != refused {
					refused = s
					c.cfg.Log.Warn("global refused the zone", zap.Stringer("code", f.GetCode()), zap.String("reason", f.GetReason()))
				}
			}
			if n := len(e.Withheld); n > 0 && !withheld {
				withheld = true
				c.cfg.Log.Error("more is offered than fits into a report; the rest is withheld from other zones: split the zone",
					zap.Stringer("name", e.Withheld[0]), zap.Int("count", n))
			}
			if c.cfg.Event != nil {
				c.cfg.Event(e)
			}
		}
		if a := r.Apply; a != nil {
			wg.Go(func() {
				rejected, err := c.cfg.Applier.Apply(ctx, a)
				results <- applied{a.Nonce, rejected, err} // the machine has one Apply at a time, so there is room
			})
		}
		if r.Closed != nil {
			hangUp(r.Closed)
		} else if l != nil {
			queue = append(queue, r.Frames...)
		}
		if next := c.zone.Next(); !next.IsZero() {
			tick.Reset(time.Until(next))
		}

		var in chan *kdsv1.GlobalFrame
		var out chan *kdsv1.ZoneFrame
		var failed chan error
		var head *kdsv1.ZoneFrame
		if l != nil {
			failed = l.failed
			// What global doesn't read it can't ask for more of either: this bounds the queue.
			if len(queue) < maxQueue {
				in = l.in
			}
			if len(queue) > 0 {
				out, head = l.out, queue[0]
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case fn := <-c.do:
			fn(c.zone)
		case a := <-results:
			c.zone.Applied(a.nonce, a.rejected, a.err, time.Now())
		case f := <-in:
			c.zone.Receive(f, time.Now())
		case out <- head:
			queue = queue[1:]
		case err := <-failed:
			hangUp(err)
		case <-tick.C:
			c.zone.Tick(time.Now())
		case <-retry.C:
			// One at a time: the next is only asked for by hangUp.
			target := c.cfg.Targets[c.at]
			wg.Go(func() {
				next, err := c.open(ctx, target, opts, &wg)
				opens <- opened{next, err}
			})
		case o := <-opens:
			if o.err != nil {
				hangUp(o.err)
				continue
			}
			l = o.link
			c.zone.Connect(time.Now())
		}
	}
}

// usable finds out once whether there is any sense in trying.
func (c *Client) usable(opts []grpc.DialOption) error {
	for _, target := range c.cfg.Targets {
		conn, err := grpc.NewClient(target, opts...)
		if err != nil {
			return fmt.Errorf("global %s: check the address and the TLS settings: %w", target, err)
		}
		_ = conn.Close() // it connected to nothing yet
	}
	return nil
}

type opened struct {
	link *link
	err  error
}

// open begins a stream over a connection of its own, that ends with it: a connection that went silent would swallow every
// stream after, and gRPC would wait longer and longer before it tries a refused one again.
func (c *Client) open(ctx context.Context, target string, opts []grpc.DialOption, wg *sync.WaitGroup) (*link, error) {
	token, err := c.cfg.Token()
	if err != nil {
		return nil, fmt.Errorf("zone token: %w", err)
	}
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("global %s: %w", target, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	wg.Go(func() {
		<-ctx.Done()
		_ = conn.Close() // all it can report is that it is closed
	})
	late := time.AfterFunc(connectTimeout, cancel)
	s, err := kdsv1.NewKDSClient(conn).Stream(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token))
	if !late.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("global %s: %w", target, err)
	}
	l := &link{cancel, make(chan *kdsv1.GlobalFrame), make(chan *kdsv1.ZoneFrame), make(chan error, 2)}
	wg.Go(func() { l.failed <- receive(ctx, s.Recv, l.in) })
	// A failed Send has its cause in Recv, which may still hold a Refusal: only Recv ends the stream.
	wg.Go(func() { _ = send(ctx, s.Send, l.out) })
	return l, nil
}

func receive[F any](ctx context.Context, recv func() (F, error), to chan<- F) error {
	for {
		f, err := recv()
		if err != nil {
			return err
		}
		select {
		case to <- f:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func send[F any](ctx context.Context, put func(F) error, from <-chan F) error {
	for {
		select {
		case f := <-from:
			if err := put(f); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
