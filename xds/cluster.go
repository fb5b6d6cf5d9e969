package xds

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const httpProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func cluster(c *ir.Cluster) (*Resource, error) {
	var errs []error
	out := &clusterv3.Cluster{Name: c.Name, ConnectTimeout: unlessZero(c.ConnectTimeout)}
	errs = append(errs, notNegative(
		namedDuration{"connect timeout", c.ConnectTimeout}, namedDuration{"idle timeout", c.IdleTimeout}))
	errs = append(errs, setDestination(out, c), setProtocol(out, c), setLoadBalancer(out, c.LoadBalancer), setBreakers(out, c), setHealthCheck(out, c))
	setKeepalive(out, c)
	if c.TLS != nil {
		socket, err := upstreamTLS(c.TLS)
		errs = append(errs, err)
		out.TransportSocket = socket
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return build(TypeCluster, c.Name, out)
}

func setDestination(out *clusterv3.Cluster, c *ir.Cluster) error {
	switch {
	case c.Static != nil && c.EndpointsName != "", len(c.Hosts) > 0 && (c.Static != nil || c.EndpointsName != ""):
		return errors.New("has more than one of a static endpoint, hosts and a name of endpoints: set one")
	case len(c.Hosts) > 0:
		return setHosts(out, c)
	case c.Static != nil:
		endpoint, err := lbEndpoint(c.Static)
		if err != nil {
			return err
		}
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
		out.LoadAssignment = &endpointv3.ClusterLoadAssignment{
			ClusterName: c.Name,
			Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{endpoint}}},
		}
	case c.EndpointsName != "":
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		out.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: c.EndpointsName}
		// Without this Envoy ignores the weights of localities.
		out.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{
			LocalityConfigSpecifier: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
				LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
			},
		}
	default:
		return errors.New("has neither a static endpoint, hosts nor a name of endpoints: set one")
	}
	return nil
}

// setHosts has the proxy resolve hosts. All addresses of all of them share the requests.
func setHosts(out *clusterv3.Cluster, c *ir.Cluster) error {
	out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	out.DnsLookupFamily = clusterv3.Cluster_V4_PREFERRED
	locality := &endpointv3.LocalityLbEndpoints{}
	for _, h := range c.Hosts {
		if h.Address == "" || h.Port == 0 || h.Port > 65535 {
			return fmt.Errorf("host %q with port %d: give a name or an IP address, and a port from 1 to 65535", h.Address, h.Port)
		}
		locality.LbEndpoints = append(locality.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
					Address: h.Address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: h.Port}}}},
				Hostname: h.Address,
			}},
			LoadBalancingWeight: wrapperspb.UInt32(max(h.Weight, 1)),
		})
	}
	out.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: c.Name, Endpoints: []*endpointv3.LocalityLbEndpoints{locality}}
	return nil
}

func setProtocol(out *clusterv3.Cluster, c *ir.Cluster) error {
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{}
	switch c.Protocol {
	case ir.TCP:
		return nil
	case ir.HTTP1:
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		}
	case ir.HTTP2:
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			// A WebSocket travels on as extended CONNECT (RFC 8441).
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{AllowConnect: true, ConnectionKeepalive: pings(c)},
		}
	default:
		return fmt.Errorf("protocol %q is not known: use tcp, http1 or http2", c.Protocol)
	}
	options := &httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
	}
	if c.IdleTimeout != 0 {
		options.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: unlessZero(c.IdleTimeout)}
	}
	packed, err := pack(options)
	if err != nil {
		return err
	}
	out.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpProtocolOptions: packed}
	return nil
}

func lbEndpoint(e *ir.Endpoint) (*endpointv3.LbEndpoint, error) {
	address, err := place(e.Address, e.Port, e.Pipe)
	if err != nil {
		return nil, fmt.Errorf("endpoint: %w", err)
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier:      &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
		LoadBalancingWeight: wrapperspb.UInt32(max(e.Weight, 1)),
	}, nil
}

// BuildEndpoints translates where a service is reached. A locality of weight 0 counts as one of weight 1, since Envoy would
// otherwise never use it.
func BuildEndpoints(e *ir.Endpoints) (*Resource, error) {
	if e == nil {
		return nil, errors.New("endpoints are nil")
	}
	out := &endpointv3.ClusterLoadAssignment{ClusterName: e.Name}
	if e.Overprovisioning != 0 {
		out.Policy = &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(e.Overprovisioning)}
	}
	var errs []error
	for _, l := range e.Localities {
		locality := &endpointv3.LocalityLbEndpoints{
			Locality:            &corev3.Locality{Zone: l.Zone},
			Priority:            l.Priority,
			LoadBalancingWeight: wrapperspb.UInt32(max(l.Weight, 1)),
			LbEndpoints:         make([]*endpointv3.LbEndpoint, 0, len(l.Endpoints)),
		}
		for i := range l.Endpoints {
			endpoint, err := lbEndpoint(&l.Endpoints[i])
			if err != nil {
				errs = append(errs, fmt.Errorf("endpoints %q: zone %q: %w", e.Name, l.Zone, err))
				continue
			}
			locality.LbEndpoints = append(locality.LbEndpoints, endpoint)
		}
		out.Endpoints = append(out.Endpoints, locality)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r, err := build(TypeEndpoint, e.Name, out)
	if err != nil {
		return nil, fmt.Errorf("endpoints %q: %w", e.Name, err)
	}
	return r, nil
}
