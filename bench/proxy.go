package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/dataplane"
	"github.com/zoneforge/zoneforge/deploy/demo"
	"github.com/zoneforge/zoneforge/xds"
)

// simulated is a proxy without Envoy: over delta ADS it asks for what Envoy asks for, and acknowledges all that it is given, at
// once. It shares no connection with others, so that its end looks like that of a killed process.
type simulated struct {
	wire   *wire
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan error // holds one
}

// wire is a connection to a zone's control plane.
type wire struct {
	*grpc.ClientConn
	mu     sync.Mutex
	socket net.Conn
}

// dial connects with a token, as a proxy's process that has just started.
func dial(ctx context.Context, s demo.Site, token string) (*wire, error) {
	roots, err := pool(s.CAFile)
	if err != nil {
		return nil, err
	}
	w := &wire{}
	w.ClientConn, err = grpc.NewClient("passthrough:///"+s.XDS, grpc.WithPerRPCCredentials(bearer(token)),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			socket, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.socket = socket
			return socket, err
		}))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, receiptTime)
	defer cancel()
	w.Connect()
	for state := w.GetState(); state != connectivity.Ready; state = w.GetState() {
		if !w.WaitForStateChange(ctx, state) {
			return nil, errors.Join(fmt.Errorf("zone %s: no connection: %w", s.Name, ctx.Err()), w.Close())
		}
	}
	return w, nil
}

// cut closes the socket as the end of a process does: nothing is said before.
func (w *wire) cut() {
	w.mu.Lock()
	_ = w.socket.Close() // what the other end thinks of it is what is measured
	w.mu.Unlock()
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return true }

// sidecar and gateway are the documents of simulated proxies.
func sidecar(name, service, address string) map[string]any {
	return dataplaneOf(name, map[string]any{"address": address, "inbound": []any{map[string]any{
		"port": 15006, "servicePort": 8080, "serviceAddress": address,
		"tags": map[string]any{"kuma.io/service": service, "kuma.io/protocol": "http"},
	}}})
}

func gateway(name, service, address string) map[string]any {
	return dataplaneOf(name, map[string]any{"address": address, "gateway": map[string]any{
		"type": "BUILTIN", "tags": map[string]any{"kuma.io/service": service},
	}})
}

func dataplaneOf(name string, networking map[string]any) map[string]any {
	return map[string]any{"type": "Dataplane", "mesh": demo.Mesh, "name": name, "networking": networking}
}

func node(document map[string]any) (*corev3.Node, error) {
	text, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	name, _ := document["name"].(string)
	fields, err := structpb.NewStruct(map[string]any{
		dataplane.MetadataKind: "Dataplane", dataplane.MetadataMesh: demo.Mesh, dataplane.MetadataName: name, dataplane.MetadataDocument: string(text),
	})
	if err != nil {
		return nil, err
	}
	return &corev3.Node{Id: "Dataplane/" + demo.Mesh + "/" + name, Metadata: fields}, nil
}

// simulate begins a proxy's stream over a connection, which it takes over. each is called for every EDS resource that comes, on
// the proxy's goroutine; nil where the proxy has lost it.
func simulate(ctx context.Context, w *wire, document map[string]any, each func(name string, e *endpointv3.ClusterLoadAssignment)) (*simulated, error) {
	who, err := node(document)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w).DeltaAggregatedResources(ctx)
	if err != nil {
		cancel()
		return nil, errors.Join(err, w.Close())
	}
	p := &simulated{wire: w, cancel: cancel, failed: make(chan error, 1)}
	for _, t := range []string{xds.TypeCluster, xds.TypeListener} {
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: who, TypeUrl: t}); err != nil {
			_, err = stream.Recv() // why the stream has ended
			return nil, errors.Join(err, p.kill())
		}
		who = nil
	}
	p.wg.Go(func() { p.failed <- converse(stream, each) })
	return p, nil
}

// kill ends the proxy as a crash does, without a word.
func (p *simulated) kill() error {
	p.wire.cut()
	p.cancel()
	p.wg.Wait()
	return p.wire.Close()
}

// converse acknowledges what comes and subscribes to what it names, until the stream ends.
func converse(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, each func(string, *endpointv3.ClusterLoadAssignment)) error {
	names := map[string]map[string]bool{} // subscribed to, by type
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		wanted := simproxy.References{}
		for _, r := range resp.GetResources() {
			m, err := r.GetResource().UnmarshalNew()
			if err != nil {
				return fmt.Errorf("resource %s: %w", r.GetName(), err)
			}
			if e, ok := m.(*endpointv3.ClusterLoadAssignment); ok && each != nil {
				each(r.GetName(), e)
			}
			if err := wanted.Find(m.ProtoReflect()); err != nil {
				return fmt.Errorf("resource %s: %w", r.GetName(), err)
			}
		}
		if resp.GetTypeUrl() == xds.TypeEndpoint && each != nil {
			for _, name := range resp.GetRemovedResources() {
				each(name, nil)
			}
		}
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}); err != nil {
			return err
		}
		for _, t := range []string{xds.TypeEndpoint, xds.TypeSecret, xds.TypeRoute, xds.TypeExtension} {
			var fresh []string
			for _, name := range wanted[t] {
				if names[t] == nil {
					names[t] = map[string]bool{}
				}
				if !names[t][name] {
					names[t][name] = true
					fresh = append(fresh, name)
				}
			}
			if len(fresh) == 0 {
				continue
			}
			slices.Sort(fresh)
			if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: fresh}); err != nil {
				return err
			}
		}
	}
}

// addresses are the endpoints of an EDS resource as host:port, sorted; none for a resource that is gone.
func addresses(e *endpointv3.ClusterLoadAssignment) []string {
	var out []string
	for _, locality := range e.GetEndpoints() {
		for _, one := range locality.GetLbEndpoints() {
			a := one.GetEndpoint().GetAddress().GetSocketAddress()
			out = append(out, net.JoinHostPort(a.GetAddress(), fmt.Sprint(a.GetPortValue())))
		}
	}
	slices.Sort(out)
	return out
}

// weight is the sum of an EDS resource's endpoints' weights.
func weight(e *endpointv3.ClusterLoadAssignment) uint32 {
	var sum uint32
	for _, locality := range e.GetEndpoints() {
		for _, one := range locality.GetLbEndpoints() {
			sum += max(one.GetLoadBalancingWeight().GetValue(), 1) // Envoy takes none for 1
		}
	}
	return sum
}
