package federation_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/bench/simproxy"
)

// The types that a proxy asks for.
const (
	typePrefix    = "type.googleapis.com/"
	typeCluster   = typePrefix + "envoy.config.cluster.v3.Cluster"
	typeListener  = typePrefix + "envoy.config.listener.v3.Listener"
	typeEndpoint  = typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
	typeRoute     = typePrefix + "envoy.config.route.v3.RouteConfiguration"
	typeSecret    = typePrefix + "envoy.extensions.transport_sockets.tls.v3.Secret"
	typeExtension = typePrefix + "envoy.config.core.v3.TypedExtensionConfig"
)

// proxy is one without Envoy. Like Envoy it keeps what it has while it has no stream, and says so when a stream begins.
type proxy struct {
	t        *testing.T
	site     *site
	id       string
	document map[string]any
	token    string
	history  *history
	stop     func()
	// flap ends the stream of now.
	flaps chan struct{}

	// Only on the goroutine.
	names    map[string]map[string]bool
	versions map[string]map[string]string
	stream   int
}

// join starts a proxy of a zone; it lives until the test ends.
func (s *site) join(h *history, document map[string]any) *proxy {
	s.f.t.Helper()
	return s.joinWith(h, document, s.tokenFor(document))
}

// tokenFor asks global for a proxy's token.
func (s *site) tokenFor(document map[string]any) string {
	s.f.t.Helper()
	if document["type"] == "ZoneIngress" {
		return s.f.token("zone-ingress", map[string]any{"zone": s.name})
	}
	return s.f.token("dataplane", map[string]any{"mesh": "default", "zone": s.name})
}

func (s *site) joinWith(h *history, document map[string]any, token string) *proxy {
	t := s.f.t
	t.Helper()
	p := &proxy{t: t, site: s, id: s.name + "/" + document["name"].(string), document: document, token: token, history: h,
		flaps: make(chan struct{}), names: map[string]map[string]bool{}, versions: map[string]map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.run(ctx) })
	p.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(p.stop)
	return p
}

// run keeps a stream as long as the proxy lives.
func (p *proxy) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		p.history.trouble(p.id, err)
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return true }

func (p *proxy) node() (*corev3.Node, error) {
	text, err := json.Marshal(p.document)
	if err != nil {
		return nil, err
	}
	name, kind := p.document["name"].(string), p.document["type"].(string)
	id, mesh := kind+"/"+name, ""
	if kind == "Dataplane" {
		mesh = "default"
		id = kind + "/" + mesh + "/" + name
	}
	fields, err := structpb.NewStruct(map[string]any{
		"zoneforge.kind": kind, "zoneforge.mesh": mesh, "zoneforge.name": name, "zoneforge.document": string(text),
	})
	return &corev3.Node{Id: id, Metadata: fields}, err
}

// once has one stream over a connection of its own.
func (p *proxy) once(ctx context.Context) error {
	pem, err := os.ReadFile(filepath.Join(p.site.cfg.DataDir, "tls", "server-ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	conn, err := grpc.NewClient("passthrough:///"+p.site.xds.Addr(), grpc.WithPerRPCCredentials(bearer(p.token)),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-p.flaps:
			cancel()
		case <-ctx.Done():
		}
	})
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	p.stream = p.history.began()
	node, err := p.node()
	if err != nil {
		return err
	}
	for _, typeURL := range []string{typeCluster, typeListener, typeEndpoint, typeSecret, typeRoute, typeExtension} {
		names := slices.Sorted(maps.Keys(p.names[typeURL]))
		if len(names) == 0 && typeURL != typeCluster && typeURL != typeListener {
			continue
		}
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNamesSubscribe: names,
			InitialResourceVersions: p.versions[typeURL]}); err != nil {
			_, err = stream.Recv()
			return err
		}
		node = nil
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := p.take(stream, resp); err != nil {
			return err
		}
	}
}

type adsStream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// take records what came, acknowledges it and asks for what it names.
func (p *proxy) take(stream adsStream, resp *discoveryv3.DeltaDiscoveryResponse) error {
	typeURL := resp.GetTypeUrl()
	revision, err := strconv.ParseUint(resp.GetSystemVersionInfo(), 10, 64)
	if err != nil && typeURL != typeEndpoint {
		return fmt.Errorf("a response without a revision: %w", err)
	}
	if p.versions[typeURL] == nil {
		p.versions[typeURL] = map[string]string{}
	}
	wanted := simproxy.References{}
	for _, r := range resp.GetResources() {
		p.versions[typeURL][r.GetName()] = r.GetVersion()
		if r.GetResource() == nil {
			continue
		}
		m, err := r.GetResource().UnmarshalNew()
		if err != nil {
			return fmt.Errorf("resource %s: %w", r.GetName(), err)
		}
		switch m := m.(type) {
		case *endpointv3.ClusterLoadAssignment:
			p.history.endpoints(p.id, r.GetName(), addresses(m))
		case *clusterv3.Cluster:
			p.history.generation(p.id, p.stream, revision, r.GetName(), generationOf(m.GetConnectTimeout().AsDuration()))
		case *routev3.RouteConfiguration:
			for _, host := range m.GetVirtualHosts() {
				for _, route := range host.GetRoutes() {
					a := route.GetRoute()
					if a == nil {
						continue
					}
					p.history.generation(p.id, p.stream, revision, r.GetName(), generationOf(a.GetTimeout().AsDuration()))
					// A route without attempts of its own is of no generation.
					if n := a.GetRetryPolicy().GetNumRetries().GetValue(); n >= firstGeneration {
						p.history.generation(p.id, p.stream, revision, r.GetName()+" retries", int(n))
					}
				}
			}
		}
		if err := wanted.Find(m.ProtoReflect()); err != nil {
			return fmt.Errorf("resource %s: %w", r.GetName(), err)
		}
	}
	for _, name := range resp.GetRemovedResources() {
		delete(p.versions[typeURL], name)
		if typeURL == typeEndpoint {
			p.history.endpoints(p.id, name, nil)
		}
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: resp.GetNonce()}); err != nil {
		return nil // Recv says why
	}
	for _, t := range []string{typeEndpoint, typeSecret, typeRoute, typeExtension} {
		var fresh []string
		for _, name := range wanted[t] {
			if p.names[t] == nil {
				p.names[t] = map[string]bool{}
			}
			if !p.names[t][name] {
				p.names[t][name] = true
				fresh = append(fresh, name)
			}
		}
		if len(fresh) > 0 {
			slices.Sort(fresh)
			_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: fresh})
		}
	}
	return nil
}

// flap ends the proxy's stream, and it comes back.
func (p *proxy) flap() {
	select {
	case p.flaps <- struct{}{}:
	case <-time.After(10 * time.Millisecond): // it has none
	}
}

// addresses are the endpoints of an EDS resource as host:port, sorted.
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
