package xds

import (
	"errors"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const (
	tlsInspectorName = "envoy.filters.listener.tls_inspector"
	hcmName          = "envoy.filters.network.http_connection_manager"
	sniClusterName   = "envoy.filters.network.sni_cluster"
	tcpProxyName     = "envoy.filters.network.tcp_proxy"

	// noServerName is the cluster of connections without SNI where the SNI names the cluster. It never exists, so they
	// are closed.
	noServerName = "zoneforge:no-server-name"
)

func listener(l *ir.Listener, names *known) (*Resource, error) {
	out := &listenerv3.Listener{Name: l.Name}
	var errs []error
	address, err := place(l.Address, l.Port, l.Pipe)
	errs = append(errs, err)
	out.Address = address
	switch l.Direction {
	case ir.Inbound:
		out.TrafficDirection = corev3.TrafficDirection_INBOUND
	case ir.Outbound:
		out.TrafficDirection = corev3.TrafficDirection_OUTBOUND
	case ir.Edge, ir.Own:
		out.TrafficDirection = corev3.TrafficDirection_UNSPECIFIED
	default:
		errs = append(errs, fmt.Errorf("direction %q is not known: use inbound, outbound or edge", l.Direction))
	}
	if len(l.Chains) == 0 {
		errs = append(errs, errors.New("has no filter chain: add one"))
	}
	if l.BufferLimit > 0 {
		out.PerConnectionBufferLimitBytes = wrapperspb.UInt32(l.BufferLimit)
	}
	if l.Pipe == "" && !l.QUIC {
		out.TcpKeepalive = tcpKeepalive()
	}
	if l.QUIC {
		errs = append(errs, setQUIC(out, l))
	} else {
		out.ListenerFilters, err = listenerFilters(l)
		errs = append(errs, err)
	}
	errs = append(errs, distinctMatches(l.Chains))
	for i := range l.Chains {
		built, err := chain(&l.Chains[i], names, l.QUIC)
		if err != nil {
			errs = append(errs, inEach(err, fmt.Sprintf("chain %q", l.Chains[i].Name)))
			continue
		}
		out.FilterChains = append(out.FilterChains, built)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return build(TypeListener, l.Name, out)
}

// inspectsTLS says whether the first bytes of a connection must be read before its chain is known. A listener that
// doesn't need it does without, since a client that waits for the server to speak first would wait for the inspector.
func inspectsTLS(l *ir.Listener) bool {
	for _, c := range l.Chains {
		if c.Match.Transport != "" || len(c.Match.ServerNames) > 0 || c.TCP != nil && c.TCP.SNICluster {
			return true
		}
	}
	return len(l.Chains) > 1
}

// distinctMatches finds chains that match the same connections, for which Envoy would refuse the whole listener.
func distinctMatches(chains []ir.FilterChain) error {
	type match struct{ transport, serverName string }
	first := map[match]string{}
	var errs []error
	for _, c := range chains {
		serverNames := c.Match.ServerNames
		if len(serverNames) == 0 {
			serverNames = []string{""}
		}
		for _, serverName := range serverNames {
			m := match{c.Match.Transport, serverName}
			if other, ok := first[m]; ok {
				errs = append(errs, fmt.Errorf("chains %q and %q both match transport %q and server name %q: make one differ",
					other, c.Name, m.transport, m.serverName))
				continue
			}
			first[m] = c.Name
		}
	}
	return errors.Join(errs...)
}

func chain(c *ir.FilterChain, names *known, quic bool) (*listenerv3.FilterChain, error) {
	out := &listenerv3.FilterChain{Name: c.Name}
	var errs []error
	switch c.Match.Transport {
	case "", "tls", "raw_buffer":
	default:
		errs = append(errs, fmt.Errorf("transport %q is not known: use tls, raw_buffer or none", c.Match.Transport))
	}
	if c.Match.Transport != "" || len(c.Match.ServerNames) > 0 {
		out.FilterChainMatch = &listenerv3.FilterChainMatch{
			TransportProtocol: c.Match.Transport,
			ServerNames:       c.Match.ServerNames,
		}
	}
	if c.TLS != nil {
		carry := downstreamTLS
		if quic {
			carry = quicTLS
		}
		socket, err := carry(c.TLS)
		errs = append(errs, err)
		out.TransportSocket = socket
	}
	var err error
	switch {
	case c.HTTP != nil && c.TCP != nil:
		err = errors.New("has both http and tcp: set one")
	case c.HTTP != nil:
		out.Filters, err = httpConnection(c.HTTP, names, quic)
	case c.TCP != nil:
		out.Filters, err = tcpProxy(c.TCP, names)
	default:
		err = errors.New("has neither http nor tcp: set one")
	}
	errs = append(errs, err)
	if c.MaxConnections > 0 {
		limit, err := connectionLimit(c)
		errs = append(errs, err)
		out.Filters = append([]*listenerv3.Filter{limit}, out.Filters...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func networkFilter(name string, m validated) (*listenerv3.Filter, error) {
	config, err := pack(m)
	if err != nil {
		return nil, fmt.Errorf("filter %s: %w", name, err)
	}
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: config}}, nil
}

func httpConnection(h *ir.HTTPConnection, names *known, quic bool) ([]*listenerv3.Filter, error) {
	if !names.has(someRoutes, h.RouteConfig) {
		// Envoy would wait for it in vain and keep the listener from starting.
		return nil, fmt.Errorf("http: routes %q are not among the proxy's: add them", h.RouteConfig)
	}
	if err := notNegative(namedDuration{"http: idle timeout", h.IdleTimeout}); err != nil {
		return nil, err
	}
	out := &hcmv3.HttpConnectionManager{
		StatPrefix: h.StatPrefix,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: h.RouteConfig,
		}},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: unlessZero(h.IdleTimeout)},
		Http2ProtocolOptions:      &corev3.Http2ProtocolOptions{},
		LocalReplyConfig:          localReplies(),
	}
	if err := filters(out, h.Bare); err != nil {
		return nil, err
	}
	allowWebSocket(out, h.Edge)
	var err error
	if out.AccessLog, err = accessLogs(h.Logs, true, names); err != nil {
		return nil, err
	}
	if out.Tracing, err = connectionTracing(h.Tracing, names); err != nil {
		return nil, err
	}
	if h.NormalizePath {
		out.NormalizePath = wrapperspb.Bool(true)
	}
	if h.Edge {
		hardenEdge(out)
		out.XffNumTrustedHops = h.TrustedHops
	}
	if quic {
		speakHTTP3(out)
	}
	switch {
	case h.ForwardClientCertificate && h.Edge:
		out.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		out.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{
			Subject: wrapperspb.Bool(true), Dns: true, Uri: true,
		}
	case h.ForwardClientCertificate:
		out.ForwardClientCertDetails = hcmv3.HttpConnectionManager_APPEND_FORWARD
		out.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	}
	manager, err := networkFilter(hcmName, out)
	if err != nil {
		return nil, err
	}
	return []*listenerv3.Filter{manager}, nil
}

// hardenEdge believes nothing that a client claims, and routes and authorizes the path that the workload will see. It
// follows Envoy's "Configuring Envoy as an edge proxy".
func hardenEdge(out *hcmv3.HttpConnectionManager) {
	out.UseRemoteAddress = wrapperspb.Bool(true)
	out.NormalizePath = wrapperspb.Bool(true)
	out.MergeSlashes = true
	out.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT
	// Workloads often take x_a for x-a, and so a header that was checked under its other spelling.
	out.CommonHttpProtocolOptions.HeadersWithUnderscoresAction = corev3.HttpProtocolOptions_REJECT_REQUEST
	out.Http2ProtocolOptions.MaxConcurrentStreams = wrapperspb.UInt32(100)
	out.Http2ProtocolOptions.InitialStreamWindowSize = wrapperspb.UInt32(1 << 16)
	out.Http2ProtocolOptions.InitialConnectionWindowSize = wrapperspb.UInt32(1 << 20)
	// A stream may be idle this long until it has a route, which sets a bound of its own. request_headers_timeout is the same for headers,
	// by a second timer for each request: more than 1 % of its instructions.
	out.StreamIdleTimeout = unlessZero(edgeHeadersTimeout)
}

// edgeHeadersTimeout is how long a client may take to send a request's headers, and what holds a request up that isn't forwarded.
const edgeHeadersTimeout = 10 * time.Second
