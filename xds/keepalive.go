package xds

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// A network that drops packets ends no connection, and one that nothing is sent on would be there for good, at one end or at both. So
// both ends of what leaves the machine ask after a silence whether the other is there: within 20 seconds the connection is given up.
const (
	keepaliveAfter  = 10 * time.Second
	keepaliveEvery  = 5 * time.Second
	keepaliveProbes = 2
)

// With HTTP/2 one connection carries many requests, and those that time out don't end it: proxies of the mesh ask each other by
// pings, which come through though data is under way that nobody acknowledged. Servers outside the mesh may take pings for an attack.
const (
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

func tcpKeepalive() *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{
		KeepaliveProbes: wrapperspb.UInt32(keepaliveProbes), KeepaliveTime: wrapperspb.UInt32(uint32(keepaliveAfter / time.Second)),
		KeepaliveInterval: wrapperspb.UInt32(uint32(keepaliveEvery / time.Second)),
	}
}

// setKeepalive has a cluster notice that an endpoint is gone, unless it is beside the proxy.
func setKeepalive(out *clusterv3.Cluster, c *ir.Cluster) {
	if c.Static == nil {
		out.UpstreamConnectionOptions = &clusterv3.UpstreamConnectionOptions{TcpKeepalive: tcpKeepalive()}
	}
}

// pings are those of connections to proxies of the mesh; nil for all others.
func pings(c *ir.Cluster) *corev3.KeepaliveSettings {
	if c.Static != nil || c.TLS == nil || c.TLS.Validation == "" {
		return nil
	}
	return &corev3.KeepaliveSettings{Interval: durationpb.New(pingEvery), Timeout: durationpb.New(pingTimeout)}
}
