package xds

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	quicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/quic/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const (
	proxyProtocolName   = "envoy.filters.listener.proxy_protocol"
	connectionLimitName = "envoy.filters.network.connection_limit"
	quicSocketName      = "envoy.transport_sockets.quic"
)

// listenerFilters read what stands before the bytes of a connection: the PROXY protocol first, then TLS behind it.
func listenerFilters(l *ir.Listener) ([]*listenerv3.ListenerFilter, error) {
	var out []*listenerv3.ListenerFilter
	var errs []error
	add := func(name string, m validated) {
		config, err := pack(m)
		errs = append(errs, err)
		out = append(out, &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: config}})
	}
	switch l.ProxyProtocol {
	case "":
	case ir.ProxyProtocolRequired, ir.ProxyProtocolOptional:
		add(proxyProtocolName, &proxyprotocolv3.ProxyProtocol{
			AllowRequestsWithoutProxyProtocol: l.ProxyProtocol == ir.ProxyProtocolOptional, StatPrefix: l.Name,
		})
	default:
		errs = append(errs, fmt.Errorf("proxy protocol %q is not known: use required, optional or none", l.ProxyProtocol))
	}
	if inspectsTLS(l) {
		add(tlsInspectorName, &tlsinspectorv3.TlsInspector{})
	}
	return out, errors.Join(errs...)
}

// setQUIC makes a listener one of QUIC, at a UDP port.
func setQUIC(out *listenerv3.Listener, l *ir.Listener) error {
	for _, c := range l.Chains {
		if c.TLS == nil || c.HTTP == nil {
			return fmt.Errorf("chain %q: QUIC carries TLS and HTTP only: set both", c.Name)
		}
	}
	if l.ProxyProtocol != "" {
		return errors.New("the PROXY protocol is for TCP: leave it out with QUIC")
	}
	if socket := out.GetAddress().GetSocketAddress(); socket != nil {
		socket.Protocol = corev3.SocketAddress_UDP
	}
	out.UdpListenerConfig = &listenerv3.UdpListenerConfig{
		QuicOptions: &listenerv3.QuicProtocolOptions{},
	}
	return nil
}

func quicTLS(t *ir.DownstreamTLS) (*corev3.TransportSocket, error) {
	context, err := downstreamContext(t)
	if err != nil {
		return nil, err
	}
	// QUIC's TLS is 1.3, whatever is spoken over TCP beside it.
	context.CommonTlsContext.TlsParams = nil
	config, err := pack(&quicv3.QuicDownstreamTransport{DownstreamTlsContext: context,
		// Early data may be replayed by whoever recorded it.
		EnableEarlyData: wrapperspb.Bool(false)})
	if err != nil {
		return nil, fmt.Errorf("quic: %w", err)
	}
	return &corev3.TransportSocket{Name: quicSocketName, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config}}, nil
}

func speakHTTP3(out *hcmv3.HttpConnectionManager) {
	out.CodecType = hcmv3.HttpConnectionManager_HTTP3
	out.Http3ProtocolOptions = &corev3.Http3ProtocolOptions{
		QuicProtocolOptions: &corev3.QuicProtocolOptions{MaxConcurrentStreams: wrapperspb.UInt32(100)},
	}
}

// allowWebSocket lets requests turn into WebSockets. Between proxies that speak HTTP/2 one travels as extended CONNECT (RFC 8441).
// An edge doesn't offer that to clients: browsers would use it and leave out Sec-WebSocket-Key, without which a workload of HTTP/1.1
// refuses what Envoy makes of it (envoyproxy/envoy#8547). As it is they open a connection of HTTP/1.1.
func allowWebSocket(out *hcmv3.HttpConnectionManager, edge bool) {
	out.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}}
	out.Http2ProtocolOptions.AllowConnect = !edge
}

// connectionLimit closes what is over the limit before a byte of it is read.
func connectionLimit(c *ir.FilterChain) (*listenerv3.Filter, error) {
	prefix := c.Name
	switch {
	case c.HTTP != nil:
		prefix = c.HTTP.StatPrefix
	case c.TCP != nil:
		prefix = c.TCP.StatPrefix
	}
	return networkFilter(connectionLimitName, &connectionlimitv3.ConnectionLimit{
		StatPrefix: prefix, MaxConnections: wrapperspb.UInt64(uint64(c.MaxConnections)),
	})
}
