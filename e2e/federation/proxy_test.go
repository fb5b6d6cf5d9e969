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

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/e2e/history"
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
	history  *history.History
	// picky rejects some generations, see rejects.
	picky bool
	stop  func()
	// flap ends the stream of now.
	flaps chan struct{}

	// Only on the goroutine.
	names    map[string]map[string]bool
	versions map[string]map[string]string
	stream   int
	// held are the resources that were recorded with a generation.
	held map[string]bool
}

// mesh is empty for a zone ingress.
func (p *proxy) mesh() string {
	mesh, _ := p.document["mesh"].(string)
	return mesh
}

// join starts a proxy of a zone; it lives until the test ends.
func (s *site) join(h *history.History, document map[string]any) *proxy {
	s.f.t.Helper()
	return s.joinWith(h, document, s.tokenFor(document))
}

// tokenFor asks global for a proxy's token.
func (s *site) tokenFor(document map[string]any) string {
	s.f.t.Helper()
	if document["type"] == "ZoneIngress" {
		return s.f.token("zone-ingress", map[string]any{"zone": s.name})
	}
	return s.f.token("dataplane", map[string]any{"mesh": document["mesh"], "zone": s.name})
}

func (s *site) joinWith(h *history.History, document map[string]any, token string) *proxy {
	return s.joinAs(&proxy{history: h, document: document, token: token})
}

// joinAs starts a proxy that is made but for what it keeps while it runs.
func (s *site) joinAs(p *proxy) *proxy {
	t := s.f.t
	t.Helper()
	p.t, p.site, p.id = t, s, s.name+"/"+p.document["name"].(string)
	if mesh := p.mesh(); mesh != "" && mesh != "default" {
		p.id = s.name + "/" + mesh + "/" + p.document["name"].(string)
	}
	p.flaps, p.names, p.versions = make(chan struct{}), map[string]map[string]bool{}, map[string]map[string]string{}
	p.held = map[string]bool{}
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
		p.history.Trouble(p.id, err)
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
	name, kind, mesh := p.document["name"].(string), p.document["type"].(string), p.mesh()
	id := kind + "/" + name
	if mesh != "" {
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
	p.stream = p.history.Stream()
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

// take records what came, acknowledges it and asks for what it names. What the proxy rejects it takes nothing of.
func (p *proxy) take(stream adsStream, resp *discoveryv3.DeltaDiscoveryResponse) error {
	typeURL := resp.GetTypeUrl()
	revision, err := strconv.ParseUint(resp.GetSystemVersionInfo(), 10, 64)
	if err != nil && typeURL != typeEndpoint {
		return fmt.Errorf("a response without a revision: %w", err)
	}
	messages := make([]proto.Message, len(resp.GetResources()))
	var found []history.Seen
	wanted := simproxy.References{}
	for i, r := range resp.GetResources() {
		if r.GetResource() == nil {
			continue
		}
		m, err := r.GetResource().UnmarshalNew()
		if err == nil {
			err = wanted.Find(m.ProtoReflect())
		}
		if err != nil {
			return fmt.Errorf("resource %s: %w", r.GetName(), err)
		}
		messages[i] = m
		for _, s := range generations(r.GetName(), m) {
			s.Proxy, s.Stream, s.Revision, s.Policy = p.id, p.stream, revision, p.mesh()+"/"+s.Policy
			found = append(found, s)
		}
	}
	if p.rejects(found) {
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: resp.GetNonce(),
			ErrorDetail: &statuspb.Status{Code: int32(codes.InvalidArgument), Message: "a generation that this proxy can't bear"}}); err != nil {
			return nil // Recv says why
		}
		return nil
	}
	if p.versions[typeURL] == nil {
		p.versions[typeURL] = map[string]string{}
	}
	for i, r := range resp.GetResources() {
		p.versions[typeURL][r.GetName()] = r.GetVersion()
		if m, ok := messages[i].(*endpointv3.ClusterLoadAssignment); ok {
			p.history.Assign(history.Assigned{Proxy: p.id, Name: r.GetName(), Addresses: addresses(m)})
		}
		if messages[i] != nil && p.mesh() != "" {
			for _, what := range belongings(messages[i]) {
				p.history.Owns(history.Owned{By: p.id, Mesh: p.mesh(), What: what})
			}
		}
	}
	for _, s := range found {
		key := typeURL + " " + s.Resource
		// What never had a generation is under no policy.
		if s.Generation == 0 && !p.held[key] {
			continue
		}
		p.held[key] = true
		p.history.Saw(s)
	}
	for _, name := range resp.GetRemovedResources() {
		// Endpoints that are said to be gone are kept, as Envoy does: they go with their cluster.
		delete(p.versions[typeURL], name)
		if p.held[typeURL+" "+name] {
			p.history.Saw(history.Seen{Proxy: p.id, Stream: p.stream, Revision: revision, Resource: name, Policy: p.mesh() + "/pair"})
		}
	}
	// The next stream asks for what this one can't any more, as its end may come at any time.
	types, fresh := []string{typeEndpoint, typeSecret, typeRoute, typeExtension}, map[string][]string{}
	for _, t := range types {
		for _, name := range wanted[t] {
			if p.names[t] == nil {
				p.names[t] = map[string]bool{}
			}
			if !p.names[t][name] {
				p.names[t][name] = true
				fresh[t] = append(fresh[t], name)
			}
		}
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: resp.GetNonce()}); err != nil {
		return nil // Recv says why
	}
	for _, t := range types {
		if names := slices.Sorted(slices.Values(fresh[t])); len(names) > 0 {
			_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: names})
		}
	}
	return nil
}

// rejects tells whether a picky proxy refuses what holds such generations, and records it.
func (p *proxy) rejects(found []history.Seen) (refused bool) {
	for _, s := range found {
		if p.picky && unbearable(s.Generation) {
			p.history.Refuses(history.Refused{Proxy: p.id, Resource: s.Resource, Generation: s.Generation})
			refused = true
		}
	}
	return refused
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
