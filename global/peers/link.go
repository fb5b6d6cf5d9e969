package peers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/zoneforge/zoneforge/sync/stream"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

const (
	// followAgain is how long a replica whose stream ended is left alone.
	followAgain = 200 * time.Millisecond
	// connectLimit bounds a connection's handshakes, and connectMost the waits between attempts.
	connectLimit = 3 * time.Second
	connectMost  = 2 * time.Second
	// A replica that stands still is found by gossip first; these find a connection that is dead.
	keepaliveAfter, keepaliveTimeout = 10 * time.Second, 5 * time.Second
	keepaliveLeast                   = 5 * time.Second
)

// target is how another replica is reached.
type target struct {
	address, pin string
	away         bool
}

// link is the connection to another replica.
type link struct {
	name   string
	target target
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	left   atomic.Bool // the other one said that it goes
}

// follow keeps a link to each of the others until ctx ends.
func (p *Peers) follow(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		known, _, changed := p.known()
		delete(known, p.cfg.Name)
		p.mu.Lock()
		for name, l := range p.links {
			if t, ok := known[name]; !ok || t.address != l.target.address || t.pin != l.target.pin {
				l.left.Store(!ok && p.gossip.Left(name))
				l.cancel()
				delete(p.links, name)
			}
		}
		for name, t := range known {
			if p.links[name] != nil {
				continue
			}
			conn, err := grpc.NewClient("passthrough:///"+t.address, grpc.WithTransportCredentials(credentials.NewTLS(p.dialing(t.pin))),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(2*stream.MaxFrame)),
				grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectLimit,
					Backoff: backoff.Config{BaseDelay: followAgain, Multiplier: 2, Jitter: 0.2, MaxDelay: connectMost}}),
				grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveAfter, Timeout: keepaliveTimeout}))
			if err != nil {
				p.log.Error("replica of global cannot be reached", zap.String("replica", name), zap.Error(err))
				continue
			}
			ctx, cancel := context.WithCancel(ctx)
			l := &link{name: name, target: t, conn: conn, cancel: cancel}
			p.links[name] = l
			p.log.Info("replica of global joined", zap.String("replica", name), zap.String("address", t.address))
			wg.Go(func() {
				p.hear(ctx, name, l)
				_ = conn.Close() // all it can report is that it is closed
				if l.left.Load() {
					p.cfg.Registry.Left(name)
				}
				p.log.Info("replica of global left", zap.String("replica", name))
			})
		}
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// hear takes what another replica tells of its streams, again and again until ctx ends.
func (p *Peers) hear(ctx context.Context, name string, l *link) {
	for ctx.Err() == nil {
		err := func() error {
			s, err := kdsv1.NewReplicasClient(l.conn).Follow(ctx, &kdsv1.FollowRequest{Replica: p.cfg.Name}, grpc.WaitForReady(true))
			if err != nil {
				return err
			}
			heard := p.cfg.Registry.Hear(name)
			defer heard.Lost()
			for {
				m, err := s.Recv()
				if err != nil {
					return err
				}
				if err := heard.Streams(m); err != nil {
					return err
				}
			}
		}()
		if ctx.Err() == nil {
			p.log.Debug("replica of global is followed again", zap.String("replica", name), zap.Error(err))
		}
		again := time.NewTimer(followAgain)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}

// codesOf are the errors of a question as they travel.
var codesOf = []struct {
	err  error
	code codes.Code
}{
	{stream.ErrNotConnected, codes.NotFound}, {stream.ErrBusy, codes.ResourceExhausted}, {stream.ErrTooLarge, codes.OutOfRange},
	{stream.ErrAnswer, codes.FailedPrecondition}, {context.DeadlineExceeded, codes.DeadlineExceeded},
}

// ask passes a question on.
func (l *link) ask(ctx context.Context, zone string, q *kdsv1.Query) ([]byte, error) {
	reply, err := kdsv1.NewReplicasClient(l.conn).Ask(ctx, &kdsv1.AskRequest{Zone: zone, Query: q})
	if err == nil {
		return reply.GetBody(), nil
	}
	for _, c := range codesOf {
		if status.Code(err) == c.code {
			return nil, fmt.Errorf("%w: %s", c.err, status.Convert(err).Message())
		}
	}
	return nil, fmt.Errorf("the replica of global that has zone %s: %w", zone, err)
}

// server answers other replicas.
type server struct {
	kdsv1.UnimplementedReplicasServer
	p *Peers
}

// Follow is of the Replicas service.
func (s server) Follow(_ *kdsv1.FollowRequest, out grpc.ServerStreamingServer[kdsv1.Streams]) error {
	return s.p.cfg.Registry.Tell(out.Context(), out.Send)
}

// Ask is of the Replicas service. It never passes a question on again.
func (s server) Ask(ctx context.Context, r *kdsv1.AskRequest) (*kdsv1.AskReply, error) {
	body, err := s.p.cfg.Registry.Ask(ctx, r.GetZone(), r.GetQuery())
	if err == nil {
		return &kdsv1.AskReply{Body: body}, nil
	}
	for _, c := range codesOf {
		if errors.Is(err, c.err) {
			return nil, status.Error(c.code, err.Error())
		}
	}
	return nil, status.Error(codes.Unknown, err.Error())
}

// serve answers the other replicas until ctx ends.
func (p *Peers) serve(ctx context.Context) error {
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(p.serving())), grpc.ConnectionTimeout(connectLimit), grpc.MaxHeaderListSize(16<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveAfter, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveLeast, PermitWithoutStream: true}))
	kdsv1.RegisterReplicasServer(s, server{p: p})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(p.cfg.Listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}
