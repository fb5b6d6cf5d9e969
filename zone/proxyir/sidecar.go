package proxyir

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/zoneforge/zoneforge/ingress"
	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

var anyPath = ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}}

// Sidecar builds the proxy beside a workload. As a client it is known by the tags of its first inbound. It fails where the
// Dataplane itself can't be used: a destination or an identity without a service. The error holds all that is wrong.
func Sidecar(in Input) (*Result, error) {
	n := in.Dataplane.GetNetworking()
	var source map[string]string
	if len(n.GetInbound()) > 0 {
		source = n.GetInbound()[0].GetTags()
	}
	b := newBuilder(in, ir.Sidecar, source)
	var errs []error
	inbounds, outbounds := n.GetInbound(), n.GetOutbound()
	switch in.Part {
	case Inbounds:
		outbounds = nil
	case Outbounds:
		inbounds = nil
	}
	b.proxy.Listeners, b.proxy.Routes = make([]ir.Listener, 0, len(inbounds)+len(outbounds)), make([]ir.RouteConfig, 0, len(inbounds)+len(outbounds))
	for _, inbound := range inbounds {
		if err := b.inbound(inbound); err != nil {
			errs = append(errs, fmt.Errorf("dataplane %s/%s: inbound %d: %w", in.MeshName, in.Name, inbound.GetPort(), err))
		}
	}
	for _, outbound := range outbounds {
		if err := b.outbound(outbound); err != nil {
			errs = append(errs, fmt.Errorf("dataplane %s/%s: outbound %d: %w", in.MeshName, in.Name, outbound.GetPort(), err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return b.finish(), nil
}

// inbound takes connections for the workload: with mTLS those that permissions allow, and in PERMISSIVE mode plaintext too.
func (b *builder) inbound(in *meshv1.Dataplane_Inbound) error {
	service := in.GetTags()[resource.TagService]
	if service == "" {
		return fmt.Errorf("needs the tag %s", resource.TagService)
	}
	address := cmp.Or(in.GetAddress(), b.Dataplane.GetNetworking().GetAddress())
	name := fmt.Sprintf("inbound:%s:%d", address, in.GetPort())
	c := ir.Cluster{Name: "workload:" + name, Protocol: protocolOf(in.GetTags()[resource.TagProtocol]), ConnectTimeout: policy.DefaultConnectTimeout,
		Static: &ir.Endpoint{Address: cmp.Or(in.GetServiceAddress(), "127.0.0.1"), Port: cmp.Or(in.GetServicePort(), in.GetPort())}}
	b.clusters[c.Name] = c

	l := ir.Listener{Name: name, Address: address, Port: in.GetPort(), Direction: ir.Inbound, Tags: b.inZone(in.GetTags())}
	if b.mtls() {
		authorization := b.authorize(b.inZone(in.GetTags()))
		b.usePermissions(in.GetTags(), "clients of "+service)
		chain := b.inboundChain("mtls", name, c, &authorization, b.inZone(in.GetTags()))
		chain.TLS = &ir.DownstreamTLS{Certificates: []string{b.secret("svid:" + service)}, ClientValidation: b.secret("bundle")}
		if c.Protocol != ir.TCP {
			chain.TLS.ALPN = []string{"h2", "http/1.1"}
		}
		if b.permissive() {
			// TLS of the workload's own has other server names and belongs to the plaintext chain.
			chain.Match = ir.ChainMatch{Transport: "tls", ServerNames: []string{ingress.ServerNames}}
		}
		l.Chains = append(l.Chains, chain)
	}
	if !b.mtls() || b.permissive() {
		l.Chains = append(l.Chains, b.inboundChain("plaintext", name, c, nil, b.inZone(in.GetTags())))
	}
	b.proxy.Listeners = append(b.proxy.Listeners, l)
	return nil
}

// authorize says who may connect to an inbound with these tags.
func (b *builder) authorize(tags map[string]string) ir.Authorization {
	return policy.Authorize(b.Policies["TrafficPermission"].To(tags), policy.Identities{Mesh: b.MeshName, Domain: b.Domain}, tags)
}

// usePermissions notes the permissions that decide who may connect to tags.
func (b *builder) usePermissions(tags map[string]string, why string) {
	for _, r := range b.Policies["TrafficPermission"].To(tags) {
		if spec, ok := r.Spec.(*meshv1.TrafficPermission); ok && r.Mesh == b.MeshName {
			if _, ok := policy.Best(spec.GetDestinations(), b.inZone(tags)); ok {
				b.use(r, "%s", why)
			}
		}
	}
}

func (b *builder) inboundChain(kind, listener string, c ir.Cluster, authorization *ir.Authorization, tags map[string]string) ir.FilterChain {
	name := listener + ":" + kind
	to := []ir.WeightedCluster{{Cluster: c.Name, Weight: 1}}
	if c.Protocol == ir.TCP {
		for _, r := range b.filterPolicies(tags) {
			if policyCovers(r, "", tags) {
				b.reject(r.Key, len(b.order), fmt.Errorf("%s speaks tcp, and filters are for HTTP: give its inbound the tag %s, or select others", tags[resource.TagService], resource.TagProtocol))
			}
		}
		b.notForTCP(tags)
		tcp := &ir.TCPProxy{Name: name + ":tcp", StatPrefix: listener, Clusters: to}
		if authorization != nil {
			tcp.Authorization = name
			b.proxy.Authorizations = append(b.proxy.Authorizations, ir.NamedAuthorization{Name: name, Authorization: *authorization})
		}
		return ir.FilterChain{Name: kind, TCP: tcp}
	}
	// The client's proxy bounds requests; a second bound here would only hide whose it was.
	routes := b.guarded(ir.Route{Name: "workload", Match: anyPath, Filters: ir.Filters{Authorization: authorization}, Forward: &ir.Forward{Clusters: to}}, tags)
	routes = b.byClient(routes, tags)
	b.proxy.Routes = append(b.proxy.Routes, ir.RouteConfig{Name: name, VirtualHosts: []ir.VirtualHost{{Name: "workload", Domains: []string{"*"}, Routes: routes}}})
	return ir.FilterChain{Name: kind, HTTP: &ir.HTTPConnection{StatPrefix: listener, RouteConfig: name, NormalizePath: true, ForwardClientCertificate: authorization != nil}}
}

func (b *builder) outbound(out *meshv1.Dataplane_Outbound) error {
	address := cmp.Or(out.GetAddress(), "127.0.0.1")
	name := fmt.Sprintf("outbound:%s:%d", address, out.GetPort())
	tags := out.GetTags()
	listener := ir.Listener{Name: name, Address: address, Port: out.GetPort(), Direction: ir.Outbound, Tags: tags}
	// Of the routes that match, a bad one is as if it weren't there: the next most specific is taken.
	routes := b.Policies["TrafficRoute"].Between(b.source, tags)
	for {
		r := policy.MostSpecificForConnection(routes, b.MeshName, b.source, tags)
		var conf *meshv1.TrafficRoute_Conf
		if r != nil {
			if spec, ok := r.Spec.(*meshv1.TrafficRoute); ok {
				conf = spec.GetConf()
			}
		}
		mark := len(b.order)
		chain, config, err := b.outboundChain(name, conf, tags)
		if err != nil {
			if r == nil || errors.Is(err, errIdentity) {
				return err
			}
			b.reject(r.Key, mark, err)
			routes = slices.DeleteFunc(slices.Clone(routes), func(x *resource.Resource) bool { return x == r })
			continue
		}
		b.use(r, "connections to %s", tagsText(tags))
		if config != nil {
			b.proxy.Routes = append(b.proxy.Routes, *config)
		}
		listener.Chains = []ir.FilterChain{chain}
		b.proxy.Listeners = append(b.proxy.Listeners, listener)
		return nil
	}
}

// outboundChain adds nothing to the proxy but clusters.
func (b *builder) outboundChain(name string, conf *meshv1.TrafficRoute_Conf, tags map[string]string) (ir.FilterChain, *ir.RouteConfig, error) {
	chain := ir.FilterChain{Name: "outbound"}
	to, err := b.shares(conf.GetDestination(), conf.GetSplit(), tags)
	if err != nil {
		return chain, nil, err
	}
	if protocolOf(b.Protocols[tags[resource.TagService]]) == ir.TCP {
		chain.TCP = &ir.TCPProxy{Name: name + ":tcp", StatPrefix: name, Clusters: to, IdleTimeout: cmp.Or(b.timeouts(tags).TCPIdle, unbounded),
			MaxConnectAttempts: policy.ConnectAttempts(b.retry(tags)), HashSource: true}
		return chain, nil, nil
	}
	var routes []ir.Route
	for i, rule := range conf.GetHttp() {
		r := ir.Route{Name: fmt.Sprintf("rule-%d", i), Match: httpMatch(rule.GetMatch())}
		ruleTo := to
		if len(rule.GetDestination()) > 0 || len(rule.GetSplit()) > 0 {
			if ruleTo, err = b.shares(rule.GetDestination(), rule.GetSplit(), tags); err != nil {
				return chain, nil, fmt.Errorf("http rule %d: %w", i, err)
			}
		}
		r.Forward = b.forward(ruleTo, tags)
		headerChange(&r.RequestHeaders, rule.GetModify().GetRequestHeaders())
		headerChange(&r.ResponseHeaders, rule.GetModify().GetResponseHeaders())
		routes = append(routes, r)
	}
	routes = append(routes, ir.Route{Name: "default", Match: anyPath, Forward: b.forward(to, tags)})
	// What a sidecar does to requests it does where they come in.
	chain.HTTP = &ir.HTTPConnection{StatPrefix: name, RouteConfig: name, Bare: true}
	return chain, &ir.RouteConfig{Name: name, VirtualHosts: []ir.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}, nil
}

// shares are those of a split, or the one destination, or what the outbound asks for itself.
func (b *builder) shares(destination map[string]string, split []*meshv1.TrafficRoute_Split, otherwise map[string]string) ([]ir.WeightedCluster, error) {
	if len(split) == 0 {
		if len(destination) == 0 {
			destination = otherwise
		}
		split = []*meshv1.TrafficRoute_Split{{Weight: 1, Destination: destination}}
	}
	var to []ir.WeightedCluster
	var errs []error
	sum := uint64(0)
	for _, s := range split {
		name, err := b.cluster(askedFor(s.GetDestination(), otherwise))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sum += uint64(s.GetWeight())
		to = append(to, ir.WeightedCluster{Cluster: name, Weight: s.GetWeight()})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return to, checkSum(sum)
}

// askedFor puts what an outbound asks for in the place of the service *, with the further tags of the destination.
func askedFor(destination, outbound map[string]string) map[string]string {
	if destination[resource.TagService] != resource.AnyValue {
		return destination
	}
	tags := maps.Clone(outbound)
	for k, v := range destination {
		if k != resource.TagService {
			tags[k] = v
		}
	}
	return tags
}

// checkSum refuses shares of which nobody would get any, or that Envoy can't add up.
func checkSum(sum uint64) error {
	switch {
	case sum == 0:
		return errors.New("all weights are 0: give one destination a weight")
	case sum > math.MaxUint32:
		return fmt.Errorf("weights add up to %d: keep their sum below 2^32", sum)
	}
	return nil
}

func httpMatch(m *meshv1.TrafficRoute_HttpMatch) ir.RouteMatch {
	out := anyPath
	if m.GetPath() != nil {
		t := text(m.GetPath())
		kinds := map[ir.TextKind]ir.PathKind{ir.TextExact: ir.PathExact, ir.TextPrefix: ir.PathPrefix, ir.TextRegex: ir.PathRegex}
		out.Path = ir.PathMatch{Kind: kinds[t.Kind], Value: t.Value}
	}
	if m.GetMethod() != nil {
		t := text(m.GetMethod())
		out.Method = &t
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetHeaders())) {
		out.Headers = append(out.Headers, ir.ValueMatch{Name: name, TextMatch: text(m.GetHeaders()[name])})
	}
	return out
}
