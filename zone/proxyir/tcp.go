package proxyir

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// byteChains are those of a TCP or TLS listener: one for each server name of its routes. Of routes with the same name the most
// specific holds, then the first by name; one that can't be used is as if it weren't there. What no route takes is closed.
func (b *builder) byteChains(listener string, l *meshv1.MeshGateway_Listener, all []*meshv1.MeshGateway_Listener, tls *ir.DownstreamTLS) ([]ir.FilterChain, error) {
	tags := maps.Clone(b.source)
	maps.Copy(tags, l.GetTags())
	own := hostname(l.GetHostname())
	proxies := map[string]*ir.TCPProxy{}
	for _, r := range policy.AllMatching(b.Policies["MeshGatewayRoute"].Of(tags), b.MeshName, tags) {
		spec, ok := r.Spec.(*meshv1.MeshGatewayRoute)
		if !ok || len(spec.GetConf().GetTcp().GetRules()) == 0 {
			continue
		}
		hostnames := slices.DeleteFunc(hostnamesWithin(own, spec.GetConf().GetTcp().GetHostnames()), func(h string) bool {
			// Nothing tells which name a connection without TLS is for, so a route of some names can't be meant.
			return proxies[h] != nil || owner(h, all) != own || l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_TCP && h != "*"
		})
		if len(hostnames) == 0 {
			continue
		}
		mark := len(b.order)
		proxy, err := b.tcpProxy(spec.GetConf().GetTcp().GetRules()[0].GetBackends())
		if errors.Is(err, errIdentity) {
			return nil, err
		}
		if err != nil {
			b.reject(r.Key, mark, fmt.Errorf("tcp: %w", err))
			continue
		}
		for _, h := range hostnames {
			one := *proxy
			one.StatPrefix, one.Name = listener, listener+":"+h
			proxies[h] = &one
			b.use(r, "listener %d %s", l.GetPort(), h)
		}
	}
	var out []ir.FilterChain
	for _, h := range slices.Sorted(maps.Keys(proxies)) {
		chain := ir.FilterChain{Name: h, TCP: proxies[h], TLS: tls, MaxConnections: l.GetResources().GetConnectionLimit()}
		if l.GetProtocol() == meshv1.MeshGateway_PROTOCOL_TLS {
			chain.Match = matchName(h)
		}
		out = append(out, chain)
	}
	return out, nil
}

// tcpProxy forwards to backends by weight. Timeouts and retries are those for the first.
func (b *builder) tcpProxy(backends []*meshv1.MeshGatewayRoute_Backend) (*ir.TCPProxy, error) {
	if len(backends) == 0 {
		return nil, errors.New("needs backends")
	}
	var split []*meshv1.TrafficRoute_Split
	for _, backend := range backends {
		weight := uint32(1)
		if backend.Weight != nil {
			weight = backend.GetWeight()
		}
		split = append(split, &meshv1.TrafficRoute_Split{Weight: weight, Destination: backend.GetDestination()})
	}
	to, err := b.shares(nil, split, nil)
	if err != nil {
		return nil, err
	}
	first := backends[0].GetDestination()
	return &ir.TCPProxy{Clusters: to, IdleTimeout: cmp.Or(b.timeouts(first).TCPIdle, unbounded), MaxConnectAttempts: policy.ConnectAttempts(b.retry(first)), HashSource: true}, nil
}
