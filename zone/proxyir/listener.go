package proxyir

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// port makes the listeners of those that share a port: one for TCP, and one for QUIC where HTTP/3 is asked for.
func (b *builder) port(gateway resource.Key, port uint32, listeners []*meshv1.MeshGateway_Listener) error {
	slices.SortStableFunc(listeners, func(x, y *meshv1.MeshGateway_Listener) int {
		return cmp.Compare(hostname(x.GetHostname()), hostname(y.GetHostname()))
	})
	name := fmt.Sprintf("gateway:%d", port)
	out := ir.Listener{Name: name, Address: b.Dataplane.GetNetworking().GetAddress(), Port: port, Direction: ir.Edge, Tags: b.source,
		BufferLimit: bufferLimit(listeners)}
	switch listeners[0].GetProxyProtocol() {
	case meshv1.MeshGateway_PROXY_PROTOCOL_REQUIRE:
		out.ProxyProtocol = ir.ProxyProtocolRequired
	case meshv1.MeshGateway_PROXY_PROTOCOL_OPTIONAL:
		out.ProxyProtocol = ir.ProxyProtocolOptional
	}
	quic := ir.Listener{Name: name + ":quic", Address: out.Address, Port: port, Direction: ir.Edge, Tags: b.source, QUIC: true, BufferLimit: out.BufferLimit}
	plain := ir.RouteConfig{Name: name}
	for _, l := range listeners {
		tls, ok := b.terminates(gateway, l)
		if !ok {
			continue
		}
		switch l.GetProtocol() {
		case meshv1.MeshGateway_PROTOCOL_TCP, meshv1.MeshGateway_PROTOCOL_TLS:
			chains, err := b.byteChains(name, l, listeners, tls)
			if err != nil {
				return err
			}
			out.Chains = append(out.Chains, chains...)
			continue
		}
		hosts, err := b.hosts(gateway, l, listeners)
		if err != nil {
			return err
		}
		if l.GetProtocol() != meshv1.MeshGateway_PROTOCOL_HTTPS {
			if to := l.GetRedirectToHttps(); to != nil {
				hosts = redirectHosts(hosts, to)
			}
			plain.VirtualHosts = append(plain.VirtualHosts, hosts...)
			continue
		}
		host := hostname(l.GetHostname())
		routes := ir.RouteConfig{Name: name + ":" + host, VirtualHosts: hosts}
		chain := ir.FilterChain{Name: host, Match: matchName(host), TLS: tls, MaxConnections: l.GetResources().GetConnectionLimit(),
			HTTP: &ir.HTTPConnection{StatPrefix: name, RouteConfig: routes.Name, Edge: true, TrustedHops: l.GetTrustedHops(),
				ForwardClientCertificate: tls.ClientValidation != ""}}
		tls.ALPN = []string{"h2", "http/1.1"}
		out.Chains = append(out.Chains, chain)
		if l.GetHttp3() {
			routes.ResponseHeaders = ir.HeaderChange{Set: []ir.Header{{Name: "alt-svc", Value: fmt.Sprintf(`h3=":%d"; ma=86400`, cmp.Or(l.GetHttp3AdvertisedPort(), port))}}}
			quic.Chains = append(quic.Chains, overQUIC(chain))
		}
		b.proxy.Routes = append(b.proxy.Routes, routes)
	}
	if len(plain.VirtualHosts) > 0 {
		out.Chains = append(out.Chains, ir.FilterChain{Name: "http", MaxConnections: connectionLimit(listeners),
			HTTP: &ir.HTTPConnection{StatPrefix: name, RouteConfig: name, Edge: true, TrustedHops: listeners[0].GetTrustedHops()}})
		b.proxy.Routes = append(b.proxy.Routes, plain)
	}
	for _, l := range []ir.Listener{out, quic} {
		if len(l.Chains) > 0 {
			b.proxy.Listeners = append(b.proxy.Listeners, l)
		}
	}
	return nil
}

// matchName is for TLS of a hostname; the wildcard alone takes what no other chain does.
func matchName(host string) ir.ChainMatch {
	match := ir.ChainMatch{Transport: "tls"}
	if host != "*" {
		match.ServerNames = []string{host}
	}
	return match
}

// overQUIC is the same chain over QUIC, with the same routes and certificates. The address of a client is that of its packets, as
// no proxy in front of UDP says another.
func overQUIC(chain ir.FilterChain) ir.FilterChain {
	tls, http := *chain.TLS, *chain.HTTP
	tls.ALPN = []string{"h3"}
	http.StatPrefix += ":quic"
	chain.TLS, chain.HTTP, chain.Match.Transport = &tls, &http, ""
	return chain
}

// redirectHosts answer every request with a redirect; routes stay for what the HTTPS listener serves.
func redirectHosts(hosts []ir.VirtualHost, to *meshv1.MeshGateway_RedirectToHttps) []ir.VirtualHost {
	redirect := ir.Route{Name: "redirect-to-https", Match: anyPath,
		Redirect: &ir.Redirect{Scheme: "https", Port: cmp.Or(to.GetPort(), 443), Status: cmp.Or(to.GetStatusCode(), 301)}}
	out := slices.Clone(hosts)
	for i := range out {
		out[i].Routes = []ir.Route{redirect}
	}
	return out
}

// bufferLimit is the lowest of the listeners that share a port; 0 for none.
func bufferLimit(listeners []*meshv1.MeshGateway_Listener) uint32 {
	return lowest(listeners, func(l *meshv1.MeshGateway_Listener) uint32 { return l.GetResources().GetBufferLimit() })
}

func connectionLimit(listeners []*meshv1.MeshGateway_Listener) uint32 {
	return lowest(listeners, func(l *meshv1.MeshGateway_Listener) uint32 { return l.GetResources().GetConnectionLimit() })
}

func lowest(listeners []*meshv1.MeshGateway_Listener, of func(*meshv1.MeshGateway_Listener) uint32) uint32 {
	out := uint32(0)
	for _, l := range listeners {
		if n := of(l); n > 0 && (out == 0 || n < out) {
			out = n
		}
	}
	return out
}

func hostname(h string) string { return cmp.Or(strings.ToLower(h), "*") }

// covers says whether each name of h is one of pattern.
func covers(pattern, h string) bool {
	suffix, wildcard := strings.CutPrefix(pattern, "*")
	return pattern == h || wildcard && strings.HasSuffix(h, suffix)
}

// owner is the most specific hostname among listeners that covers a domain: an exact one, or the longest wildcard.
func owner(domain string, listeners []*meshv1.MeshGateway_Listener) string {
	best := ""
	for _, l := range listeners {
		if h := hostname(l.GetHostname()); covers(h, domain) && (h == domain || best != domain && len(h) > len(best)) {
			best = h
		}
	}
	return best
}
