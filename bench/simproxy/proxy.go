package simproxy

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/zoneforge/zoneforge/dataplane"
	"github.com/zoneforge/zoneforge/xds"
)

// Proxy is one of a fleet.
type Proxy struct {
	fleet  *Fleet
	node   *corev3.Node
	cancel context.CancelFunc
	done   chan struct{}

	// Only on the proxy's goroutine: what it holds, and of the types that others name what it asked for.
	held   map[string]map[string]*Item
	wanted map[string]map[string]bool
	// answered are the wildcard types that this stream has heard of.
	answered map[string]bool
	complete bool
}

// named are the types that a proxy asks for by name, in the order of asking.
var named = []string{xds.TypeEndpoint, xds.TypeSecret, xds.TypeRoute, xds.TypeExtension}

// wildcards are the types of which a proxy asks for all.
var wildcards = []string{xds.TypeCluster, xds.TypeListener}

// Stop ends the proxy's stream, and returns when it has ended.
func (p *Proxy) Stop() {
	p.cancel()
	<-p.done
}

// ID is that of the proxy's node.
func (p *Proxy) ID() string { return p.node.GetId() }

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return true }

// dial makes a connection. Buffers are small, as ten thousand share a process, and what is written at once is a record of TLS, of an Envoy's length.
func (f *Fleet) dial(token string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(f.cfg.TLS)), grpc.WithPerRPCCredentials(bearer(token)),
		grpc.WithReadBufferSize(0), grpc.WithWriteBufferSize(dataplane.MaxRecord), grpc.WithSharedWriteBuffer(true), grpc.WithInitialWindowSize(1 << 20), grpc.WithInitialConnWindowSize(1 << 20),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Minute,
			Backoff: backoff.Config{BaseDelay: f.cfg.Pause / 10, Multiplier: 1.6, Jitter: 0.2, MaxDelay: f.cfg.Pause}}),
	}
	if every := f.cfg.Keepalive; every > 0 {
		options = append(options, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: every, Timeout: 2 * every}))
	}
	return grpc.NewClient("passthrough:///"+f.cfg.Address, options...)
}

func (p *Proxy) run(ctx context.Context, conn *grpc.ClientConn) {
	for pause := p.fleet.cfg.Pause / 10; ; pause = min(2*pause, p.fleet.cfg.Pause) {
		connected, err := p.converse(ctx, conn)
		if ctx.Err() != nil {
			return
		}
		p.fleet.ended(err)
		p.fleet.reconnects.Add(1)
		if connected {
			pause = p.fleet.cfg.Pause / 10
		}
		wait := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
	}
}

// converse holds one stream until it ends; connected says that anything came.
func (p *Proxy) converse(ctx context.Context, conn *grpc.ClientConn) (connected bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx, grpc.WaitForReady(true), grpc.ForceCodecV2(newCodec()))
	if err != nil {
		return false, err
	}
	p.fleet.connected.Add(1)
	p.answered = map[string]bool{}
	defer func() {
		p.fleet.connected.Add(-1)
		p.settle(false)
	}()
	if err := p.greet(stream); err != nil {
		return false, failure(stream, err)
	}
	resp := received{fleet: p.fleet}
	for {
		if err := stream.RecvMsg(&resp); err != nil {
			return connected, err
		}
		connected = true
		if err := p.take(stream, &resp); err != nil {
			return true, failure(stream, err)
		}
	}
}

type stream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// failure is why a stream has ended on which a request could not be sent.
func failure(s stream, err error) error {
	if _, why := s.Recv(); why != nil {
		return errors.Join(err, why)
	}
	return err
}

// greet asks for all again, and says what the proxy has from before.
func (p *Proxy) greet(s stream) error {
	node := p.node
	ask := func(typeURL string, names []string) error {
		req := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNamesSubscribe: names}
		for name, item := range p.held[typeURL] {
			if req.InitialResourceVersions == nil {
				req.InitialResourceVersions = make(map[string]string, len(p.held[typeURL]))
			}
			req.InitialResourceVersions[name] = item.Version
		}
		node = nil
		return s.Send(req)
	}
	for _, t := range wildcards {
		if err := ask(t, nil); err != nil {
			return err
		}
	}
	for _, t := range named {
		names := make([]string, 0, len(p.wanted[t]))
		for name := range p.wanted[t] {
			names = append(names, name)
		}
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		if err := ask(t, names); err != nil {
			return err
		}
	}
	return nil
}

// take keeps what came, acknowledges it and asks for what it names.
func (p *Proxy) take(s stream, resp *received) error {
	t := resp.typeURL
	held := p.held[t]
	if held == nil {
		held = map[string]*Item{}
		p.held[t] = held
	}
	before := len(held)
	names := false // whether what the proxy should ask for may have changed
	p.fleet.bytes.Add(int64(resp.bytes))
	for _, item := range resp.items {
		old := held[item.Name]
		if old != nil && len(old.Endpoints) > 0 && len(item.Endpoints) == 0 {
			p.fleet.emptied.Add(1)
		}
		names = names || len(item.references) > 0 || old != nil && len(old.references) > 0
		held[item.Name] = item
	}
	for _, name := range resp.removed {
		if old := held[name]; old != nil {
			p.fleet.removed.Add(1)
			names = names || len(old.references) > 0
			delete(held, name)
		}
	}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResponseNonce: resp.nonce}); err != nil {
		return err
	}
	now := time.Now()
	same := p.answered[t] && !names && len(held) == before && len(resp.removed) == 0
	p.answered[t] = true
	if names {
		if err := p.subscribe(s); err != nil {
			return err
		}
	}
	if !same {
		p.settle(p.has())
	}
	if seen := p.fleet.seen.Load(); seen != nil {
		for _, item := range resp.items {
			(*seen)(p, t, item.Name, item, now)
		}
		for _, name := range resp.removed {
			(*seen)(p, t, name, nil, now)
		}
	}
	return nil
}

// subscribe asks for what the proxy's resources name, and gives up what none names any more.
func (p *Proxy) subscribe(s stream) error {
	wanted := map[string]map[string]bool{}
	for _, t := range []string{xds.TypeCluster, xds.TypeListener, xds.TypeRoute} {
		for _, item := range p.held[t] {
			for of, names := range item.references {
				if wanted[of] == nil {
					wanted[of] = map[string]bool{}
				}
				for _, name := range names {
					wanted[of][name] = true
				}
			}
		}
	}
	for _, t := range named {
		var more, fewer []string
		for name := range wanted[t] {
			if !p.wanted[t][name] {
				more = append(more, name)
			}
		}
		for name := range p.wanted[t] {
			if !wanted[t][name] {
				fewer = append(fewer, name)
				delete(p.held[t], name)
			}
		}
		p.wanted[t] = wanted[t]
		if len(more)+len(fewer) == 0 {
			continue
		}
		slices.Sort(more)
		slices.Sort(fewer)
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: more, ResourceNamesUnsubscribe: fewer}); err != nil {
			return err
		}
	}
	return nil
}

// has says whether the proxy was answered on this stream and holds all that its resources name.
func (p *Proxy) has() bool {
	for _, t := range wildcards {
		if !p.answered[t] || len(p.held[t]) == 0 {
			return false
		}
	}
	for _, t := range named {
		if len(p.wanted[t]) != len(p.held[t]) {
			return false
		}
	}
	return true
}

func (p *Proxy) settle(complete bool) {
	if complete == p.complete {
		return
	}
	p.complete = complete
	if complete {
		p.fleet.complete.Add(1)
	} else {
		p.fleet.complete.Add(-1)
	}
}
