// Package proxyir owns how a Dataplane and the resources of its mesh become an ir.Proxy: the listeners, routes and clusters
// of a sidecar or a gateway, with all policies merged.
//
// It is pure: no I/O, no goroutine, no clock, no logger. It never knows which endpoints a service has, never touches keys,
// and changes no argument. Equal input gives equal values whatever the order of the policies. Its functions may be called
// concurrently.
//
// One bad object costs itself only: a TrafficRoute or listener that can't be built is left out, a rule of a MeshGatewayRoute or a
// Composition answers with 503 in its place, and each is listed in Result.Rejected.
//
// Secrets are named "bundle" (the mesh's roots), "svid:SERVICE" (an identity), "secret:NAME" (a certificate with its key in a Secret
// of the mesh), "authorities:NAME" (the authorities in one), "text:NAME" (its text) and "seal:NAME" (a key derived from that).
package proxyir

import (
	"cmp"
	"errors"
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
	Policies policy.ByKind
	// Protocols are the values of kuma.io/protocol by service. A sidecar takes an unknown service as tcp, a gateway as http.
	Protocols map[string]string
	// HasSecret tells whether a Secret of the mesh is there and holds a certificate with its key; nil takes all as there. A
	// listener without a certificate that can be served is left out, as Envoy would wait for it.
	HasSecret func(name string) bool
	// SecretData gives what a Secret of the mesh holds; nil takes none as there.
	SecretData func(name string) ([]byte, bool)
	// HasAuthorities tells whether a Secret of the mesh is there and holds certificates of authorities; nil takes all as there. A
	// listener that would let in clients without them is left out.
	HasAuthorities func(name string) bool
	// LogPipe is the file from which the launcher of the proxy takes access logs; empty where it takes none.
	LogPipe string
	// Modules are the WebAssembly modules that its launcher found, each its name, a space and its SHA-256, sorted.
	Modules []string
	// Refused are the names of modules that its Envoy refused with their configuration, sorted.
	Refused []string
	// Part is which half of a sidecar to build; the zero value builds all.
	Part Part
	// Without are policies that are passed over, as what they say has been refused.
	Without map[resource.Key]bool
	// Closed are MeshGatewayRoutes, Compositions and FilterPolicies whose requests are answered with 503, as what they do has been
	// refused.
	Closed map[resource.Key]bool
	// Ports are those of a gateway that are less than its MeshGateway says, as that has been refused.
	Ports map[uint32]PortState
}

// PortState says what there is of the listeners of a port of a gateway.
type PortState int

const (
	// PortWhole is all that the MeshGateway says.
	PortWhole PortState = iota
	// PortWithoutFilters has listeners without their filters, to find out what is to blame. No proxy is served with it.
	PortWithoutFilters
	// PortClosed answers with 503 what the filters would have guarded.
	PortClosed
	// PortAbsent has no listeners.
	PortAbsent
)

// Part is a half of a sidecar. Both halves together are the whole sidecar, but for its ProxyTemplate, which is in both.
type Part int

// Inbounds is what comes into a sidecar with all that is for the proxy itself, Outbounds what goes out. The latter depends on neither
// name nor address of the Dataplane, unless Result.Personal says so.
const (
	Whole Part = iota
	Inbounds
	Outbounds
)

// Result is what was built.
type Result struct {
	Proxy *ir.Proxy
	// Personal says that the name or address of the Dataplane is in what goes out.
	Personal bool
	// Destinations are those whose endpoints the proxy needs, ordered by their server names.
	Destinations []ingress.Destination
	// Externals are the tags of the destinations outside the mesh, ordered like Destinations.
	Externals []map[string]string
	// Rejected lists what had to be left out, ordered by key and reason.
	Rejected []Rejected
	// Uses lists the policies that this proxy is built from, ordered by key and reason.
	Uses []Use
}

// Rejected says why a resource, or a part of it, has no effect on a proxy.
type Rejected struct {
	Key    resource.Key
	Reason string
}

// Use says why a policy is part of a proxy.
type Use struct {
	Key resource.Key
	Why string
}

// errIdentity is the proxy's own fault, not that of the policy that was being read.
var errIdentity = errors.New("proxy has no identity")

// builder gathers the clusters and secrets that listeners refer to.
type builder struct {
	Input
	// source holds the tags by which policies know this proxy as a client.
	source map[string]string
	// known holds the sets of tags by which policies for whole proxies know this one: those of each inbound, or of the gateway.
	known        []map[string]string
	clusters     map[string]ir.Cluster
	destinations map[string]ingress.Destination
	// external are those of destinations that are outside the mesh.
	external map[string]map[string]string
	// composed are the routes of the calls of compositions.
	composed []ir.Route
	// attached are the FilterPolicies that were built.
	attached map[resource.Key][]attachment
	// limits are the RateLimits that were built.
	limits map[resource.Key][]attachment
	// from tells where the filters stand that are being built.
	from string
	// logins tells it of each login that was built.
	logins map[*ir.OIDC]string
	// order holds the names of destinations' clusters as they were added, so that those of a rejected policy can be taken back.
	order []string
	// missing is what the policy that is being built calls and nobody has, see tell.
	missing  []string
	secrets  map[string]bool
	rejected map[Rejected]bool
	uses     map[Use]bool
	proxy    *ir.Proxy
	// personal is Result.Personal.
	personal bool
}

func newBuilder(in Input, kind ir.ProxyKind, source map[string]string) *builder {
	ways := len(in.Dataplane.GetNetworking().GetOutbound())
	b := &builder{Input: in, external: map[string]map[string]string{}, attached: map[resource.Key][]attachment{}, limits: map[resource.Key][]attachment{}, logins: map[*ir.OIDC]string{},
		clusters: make(map[string]ir.Cluster, ways), destinations: make(map[string]ingress.Destination, ways), secrets: map[string]bool{},
		rejected: map[Rejected]bool{}, uses: make(map[Use]bool, ways)}
	if len(in.Without) > 0 {
		b.Policies = maps.Clone(in.Policies)
		kinds := map[string]bool{}
		for key := range in.Without {
			kinds[key.Kind] = true
		}
		for kind := range kinds {
			b.Policies[kind] = policy.NewList(slices.DeleteFunc(slices.Clone(in.Policies[kind].All()), func(r *resource.Resource) bool { return in.Without[r.Key] })...)
		}
	}
	b.source = b.inZone(source)
	b.known = []map[string]string{b.source}
	for i, inbound := range in.Dataplane.GetNetworking().GetInbound() {
		if i > 0 { // the first is the source
			b.known = append(b.known, b.inZone(inbound.GetTags()))
		}
	}
	b.proxy = &ir.Proxy{Kind: kind, Mesh: in.MeshName, Name: in.Name, Zone: in.Zone, Own: ownTexts(in)}
	return b
}

// ownTexts are those of ir.Proxy, in the same order for all replicas.
func ownTexts(in Input) []string {
	n := in.Dataplane.GetNetworking()
	out := []string{in.Name, n.GetAddress()}
	for _, i := range n.GetInbound() {
		if i.GetAddress() != "" && !slices.Contains(out, i.GetAddress()) {
			out = append(out, i.GetAddress())
		}
	}
	return out
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

// reject leaves a policy out, and takes back the clusters that were added since mark.
func (b *builder) reject(key resource.Key, mark int, err error) {
	b.takeBack(mark)
	b.rejected[Rejected{key, err.Error()}] = true
}

// takeBack takes back what was added since mark.
func (b *builder) takeBack(mark int) {
	for _, name := range b.order[mark:] {
		delete(b.clusters, name)
		delete(b.destinations, name)
		delete(b.external, name)
	}
	b.order = b.order[:mark]
	b.missing = nil
}

// tell reports what a policy calls and nobody has, though the policy is in force.
func (b *builder) tell(key resource.Key) {
	for _, m := range b.missing {
		b.rejected[Rejected{key, m}] = true
	}
	b.missing = nil
}

// use notes a policy, which may be nil.
func (b *builder) use(r *resource.Resource, format string, args ...any) {
	if r != nil {
		b.uses[Use{r.Key, fmt.Sprintf(format, args...)}] = true
	}
}

// connection is the policy of a kind for the connections to a destination.
func (b *builder) connection(kind string, destination map[string]string) *resource.Resource {
	return policy.MostSpecificForConnection(b.Policies[kind].Between(b.source, destination), b.MeshName, b.source, destination)
}

func (b *builder) timeouts(destination map[string]string) policy.Timeouts {
	r := b.connection("Timeout", destination)
	b.use(r, "connections to %s", tagsText(destination))
	var spec *meshv1.Timeout
	if r != nil {
		spec, _ = r.Spec.(*meshv1.Timeout)
	}
	if b.Protocols[destination[resource.TagService]] == "grpc" {
		return policy.GRPCTimeouts(spec)
	}
	return policy.MergeTimeout(spec)
}

func (b *builder) retry(destination map[string]string) *meshv1.Retry {
	r := b.connection("Retry", destination)
	b.use(r, "connections to %s", tagsText(destination))
	if r == nil {
		return nil
	}
	spec, _ := r.Spec.(*meshv1.Retry)
	return spec
}

// tagsText is the service, then the other tags by name.
func tagsText(tags map[string]string) string {
	out := tags[resource.TagService]
	if len(tags) == 1 {
		return out // of nearly all destinations
	}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		if k != resource.TagService {
			out += fmt.Sprintf(" %s=%s", k, tags[k])
		}
	}
	return out
}

func (b *builder) secret(name string) string {
	b.secrets[name] = true
	return name
}

// cluster returns the name of the cluster of a destination: its server name, which is the same in all zones and versions.
func (b *builder) cluster(tags map[string]string) (string, error) {
	d := ingress.Destination{Mesh: b.MeshName, Service: tags[resource.TagService]}
	if len(tags) > 1 {
		d.Subset = maps.Clone(tags)
		delete(d.Subset, resource.TagService)
	}
	sni, err := d.SNI()
	if err != nil {
		return "", fmt.Errorf("destination %v needs the tag %s: %w", tags, resource.TagService, err)
	}
	if _, ok := b.clusters[sni]; ok {
		return sni, nil
	}
	timeouts := b.timeouts(tags)
	c := ir.Cluster{Name: sni, Protocol: b.upstream(d.Service), EndpointsName: ingress.EndpointsName(sni, ingress.ClientView),
		ConnectTimeout: timeouts.Connect}
	var alpn []string
	switch c.Protocol {
	case ir.HTTP1:
		alpn, c.IdleTimeout = []string{"http/1.1"}, cmp.Or(timeouts.HTTPIdle, unbounded)
	case ir.HTTP2:
		alpn, c.IdleTimeout = []string{"h2"}, cmp.Or(timeouts.HTTPIdle, unbounded)
	}
	if services := b.externals(d.Service); len(services) > 0 {
		if err := b.reachExternal(&c, services, tags); err != nil {
			return "", err
		}
		b.clusters[sni], b.external[sni] = c, tags
		b.order = append(b.order, sni)
		return sni, nil
	}
	if b.mtls() {
		own := b.source[resource.TagService]
		if own == "" {
			return "", fmt.Errorf("%w to reach %s with: give it an inbound or a gateway with the tag %s", errIdentity, d, resource.TagService)
		}
		c.TLS = &ir.UpstreamTLS{
			Certificate: "svid:" + own, Validation: "bundle", SNI: sni, ALPN: alpn,
			// Any zone may serve it, and only the own mesh.
			SANs: []ir.TextMatch{{Kind: ir.TextRegex, Value: `spiffe://[^./]+\.` + regexp.QuoteMeta(b.MeshName+"."+b.Domain+"/"+d.Service)}},
		}
	}
	b.clusters[sni], b.destinations[sni] = c, d
	b.order = append(b.order, sni)
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
	t := b.timeouts(destination)
	f := &ir.Forward{Clusters: clusters, Timeout: t.Request, IdleTimeout: t.StreamIdle, MaxDuration: t.MaxStream, Hash: b.hash(clusters)}
	retry := b.retry(destination)
	if b.Protocols[destination[resource.TagService]] == "grpc" {
		f.Retry = policy.GRPCRetry(retry)
	} else {
		f.Retry = policy.HTTPRetry(retry)
	}
	return f
}

// finish sorts what was gathered.
func (b *builder) finish() *Result {
	b.composes()
	b.accessLogs()
	b.traces()
	if b.Part != Outbounds {
		b.metrics()
	}
	b.caches()
	b.template()
	b.sayTags()
	out := &Result{Proxy: b.proxy, Personal: b.personal}
	for _, name := range slices.Sorted(maps.Keys(b.clusters)) {
		c := b.clusters[name]
		if d, ok := b.destinations[name]; ok {
			b.endpointPolicies(&c, tagsOf(d))
		} else if tags, ok := b.external[name]; ok {
			b.endpointPolicies(&c, tags)
		}
		b.proxy.Clusters = append(b.proxy.Clusters, c)
		if c.TLS != nil {
			for _, name := range []string{c.TLS.Certificate, c.TLS.Validation} {
				if name != "" {
					b.secrets[name] = true
				}
			}
		}
		if tags, ok := b.external[name]; ok {
			out.Externals = append(out.Externals, tags)
		}
		if d, ok := b.destinations[name]; ok {
			out.Destinations = append(out.Destinations, d)
		}
	}
	b.proxy.Secrets = slices.Sorted(maps.Keys(b.secrets))
	out.Rejected = slices.SortedFunc(maps.Keys(b.rejected), func(x, y Rejected) int {
		return cmp.Or(x.Key.Compare(y.Key), cmp.Compare(x.Reason, y.Reason))
	})
	out.Uses = slices.SortedFunc(maps.Keys(b.uses), func(x, y Use) int {
		return cmp.Or(x.Key.Compare(y.Key), cmp.Compare(x.Why, y.Why))
	})
	return out
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
