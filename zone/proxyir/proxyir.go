// Package proxyir owns how a Dataplane and the resources of its mesh become an ir.Proxy: the listeners, routes and clusters
// of a sidecar or a gateway, with all policies merged.
//
// It is pure: no I/O, no goroutine, no clock, no logger. It never knows which endpoints a service has, never touches keys,
// and changes no argument. Equal input gives equal values whatever the order of the policies. Its functions may be called
// concurrently.
//
// Secrets are named "bundle" (the mesh's roots), "svid:SERVICE" (an identity) and "secret:NAME" (a Secret of the mesh).
package proxyir

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// unbounded stands for no timeout where the intermediate representation takes 0 as Envoy's default.
const unbounded = 365 * 24 * time.Hour

// Input is all that a proxy is built from.
type Input struct {
	// Mesh may be nil, which means no mTLS.
	Mesh     *meshv1.Mesh
	MeshName string
	Zone     string
	// Domain is the federation domain.
	Domain string
	// Name is that of the Dataplane.
	Name      string
	Dataplane *meshv1.Dataplane
	// Policies are the mesh's resources by kind.
	Policies map[string][]*resource.Resource
	// Protocols are the values of kuma.io/protocol by service. A sidecar takes an unknown service as tcp, a gateway as http.
	Protocols map[string]string
}

// builder gathers the clusters and secrets that listeners refer to.
type builder struct {
	Input
	// source holds the tags by which policies know this proxy as a client.
	source       map[string]string
	clusters     map[string]ir.Cluster
	destinations map[string]ingress.Destination
	secrets      map[string]bool
	proxy        *ir.Proxy
}

func newBuilder(in Input, kind ir.ProxyKind, source map[string]string) *builder {
	b := &builder{Input: in, clusters: map[string]ir.Cluster{}, destinations: map[string]ingress.Destination{}, secrets: map[string]bool{}}
	b.source = b.inZone(source)
	b.proxy = &ir.Proxy{Kind: kind, Mesh: in.MeshName, Name: in.Name, Zone: in.Zone}
	return b
}

// inZone adds the zone, which policies may ask for and nobody has to write down.
func (b *builder) inZone(tags map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, tags)
	out[resource.TagZone] = b.Zone
	return out
}

func (b *builder) mtls() bool { return b.Mesh.GetMtls().GetEnabledBackend() != "" }

// permissive fails closed: a backend that is not there is strict.
func (b *builder) permissive() bool {
	for _, backend := range b.Mesh.GetMtls().GetBackends() {
		if backend.GetName() == b.Mesh.GetMtls().GetEnabledBackend() {
			return backend.GetMode() == meshv1.Mesh_MODE_PERMISSIVE
		}
	}
	return false
}

func (b *builder) secret(name string) string {
	b.secrets[name] = true
	return name
}

// cluster returns the name of the cluster of a destination: its server name, which is the same in all zones and versions.
func (b *builder) cluster(tags map[string]string) (string, error) {
	d := ingress.Destination{Mesh: b.MeshName, Service: tags[resource.TagService]}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if k == resource.TagService {
			continue
		}
		if d.Subset == nil {
			d.Subset = map[string]string{}
		}
		d.Subset[k] = tags[k]
	}
	sni, err := d.SNI()
	if err != nil {
		return "", fmt.Errorf("destination %v needs the tag %s: %w", tags, resource.TagService, err)
	}
	if _, ok := b.clusters[sni]; ok {
		return sni, nil
	}
	timeouts := policy.TimeoutsFor(b.Policies["Timeout"], b.MeshName, b.source, tags)
	c := ir.Cluster{Name: sni, Protocol: b.upstream(d.Service), EndpointsName: ingress.EndpointsName(sni, ingress.ClientView),
		ConnectTimeout: timeouts.Connect}
	var alpn []string
	switch c.Protocol {
	case ir.HTTP1:
		alpn, c.IdleTimeout = []string{"http/1.1"}, cmp.Or(timeouts.HTTPIdle, unbounded)
	case ir.HTTP2:
		alpn, c.IdleTimeout = []string{"h2"}, cmp.Or(timeouts.HTTPIdle, unbounded)
	}
	if b.mtls() {
		own := b.source[resource.TagService]
		if own == "" {
			return "", fmt.Errorf("proxy has no identity to reach %s with: give it an inbound or a gateway with the tag %s", d, resource.TagService)
		}
		c.TLS = &ir.UpstreamTLS{
			Certificate: b.secret("svid:" + own), Validation: b.secret("bundle"), SNI: sni, ALPN: alpn,
			// Any zone may serve it, and only the own mesh.
			SANs: []ir.TextMatch{{Kind: ir.TextRegex, Value: `spiffe://[^./]+\.` + regexp.QuoteMeta(b.MeshName+"."+b.Domain+"/"+d.Service)}},
		}
	}
	b.clusters[sni], b.destinations[sni] = c, d
	return sni, nil
}

func (b *builder) upstream(service string) ir.Protocol {
	p := protocolOf(b.Protocols[service])
	if p == ir.TCP && b.proxy.Kind == ir.Gateway {
		return ir.HTTP1
	}
	return p
}

func protocolOf(tag string) ir.Protocol {
	switch tag {
	case "http":
		return ir.HTTP1
	case "http2", "grpc":
		return ir.HTTP2
	}
	return ir.TCP
}

// forward bounds and repeats by the policies for a destination. MaxDuration and Timeout keep 0 as none, as policies do.
func (b *builder) forward(clusters []ir.WeightedCluster, destination map[string]string) *ir.Forward {
	t := policy.TimeoutsFor(b.Policies["Timeout"], b.MeshName, b.source, destination)
	f := &ir.Forward{Clusters: clusters, Timeout: t.Request, IdleTimeout: t.StreamIdle, MaxDuration: t.MaxStream}
	retry := policy.RetryFor(b.Policies["Retry"], b.MeshName, b.source, destination)
	if b.Protocols[destination[resource.TagService]] == "grpc" {
		f.Retry = policy.GRPCRetry(retry)
	} else {
		f.Retry = policy.HTTPRetry(retry)
	}
	return f
}

// finish sorts what was gathered.
func (b *builder) finish() (*ir.Proxy, []ingress.Destination) {
	var destinations []ingress.Destination
	for _, name := range slices.Sorted(maps.Keys(b.clusters)) {
		b.proxy.Clusters = append(b.proxy.Clusters, b.clusters[name])
		if d, ok := b.destinations[name]; ok {
			destinations = append(destinations, d)
		}
	}
	b.proxy.Secrets = slices.Sorted(maps.Keys(b.secrets))
	return b.proxy, destinations
}

func headerChange(into *ir.HeaderChange, c *meshv1.HeaderChange) {
	for _, h := range c.GetSet() {
		into.Set = append(into.Set, ir.Header{Name: h.GetName(), Value: h.GetValue()})
	}
	for _, h := range c.GetAdd() {
		into.Add = append(into.Add, ir.Header{Name: h.GetName(), Value: h.GetValue()})
	}
	into.Remove = append(into.Remove, c.GetRemove()...)
}

func text(m *meshv1.StringMatcher) ir.TextMatch {
	switch v := m.GetMatcher().(type) {
	case *meshv1.StringMatcher_Prefix:
		return ir.TextMatch{Kind: ir.TextPrefix, Value: v.Prefix}
	case *meshv1.StringMatcher_Regex:
		return ir.TextMatch{Kind: ir.TextRegex, Value: v.Regex}
	}
	return ir.TextMatch{Kind: ir.TextExact, Value: m.GetExact()}
}
