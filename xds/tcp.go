package xds

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	snicv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

func tcpProxy(t *ir.TCPProxy, names *known) ([]*listenerv3.Filter, error) {
	var filters []*listenerv3.Filter
	var errs []error
	add := func(name string, m validated) {
		filter, err := networkFilter(name, m)
		errs = append(errs, err)
		filters = append(filters, filter)
	}
	if t.Authorization != "" {
		filter, err := networkRBAC(t.Authorization, names)
		errs = append(errs, err)
		filters = append(filters, filter)
	}
	if t.SNICluster {
		add(sniClusterName, &snicv3.SniCluster{})
	}
	if t.Name != "" {
		filters = append(filters, discovered(t.Name, &tcpv3.TcpProxy{}))
		return filters, errors.Join(errs...)
	}
	out, err := tcpConfig(t, names)
	errs = append(errs, err)
	// What is wrong with the clusters says more than that Envoy takes no empty list.
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	add(tcpProxyName, out)
	return filters, errors.Join(errs...)
}

// tcpConfig forwards to clusters by weight.
func tcpConfig(t *ir.TCPProxy, names *known) (*tcpv3.TcpProxy, error) {
	errs := []error{notNegative(namedDuration{"tcp: idle timeout", t.IdleTimeout})}
	out := &tcpv3.TcpProxy{StatPrefix: t.StatPrefix, IdleTimeout: unlessZero(t.IdleTimeout)}
	logs, err := accessLogs(t.Logs, false, names)
	errs = append(errs, inEach(err, "tcp"))
	out.AccessLog = logs
	if t.MaxConnectAttempts > 0 {
		out.MaxConnectAttempts = wrapperspb.UInt32(t.MaxConnectAttempts)
	}
	if t.HashSource {
		out.HashPolicy = []*typev3.HashPolicy{{PolicySpecifier: &typev3.HashPolicy_SourceIp_{SourceIp: &typev3.HashPolicy_SourceIp{}}}}
	}
	if t.SNICluster {
		if len(t.Clusters) > 0 {
			errs = append(errs, errors.New("tcp: takes its cluster from the SNI and yet names clusters: set one"))
		}
		out.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: noServerName}
		return out, errors.Join(errs...)
	}
	weighted, err := shares(t.Clusters, names)
	errs = append(errs, inEach(err, "tcp"))
	if len(weighted) == 1 {
		out.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: weighted[0].Cluster}
		return out, errors.Join(errs...)
	}
	split := &tcpv3.TcpProxy_WeightedCluster{}
	for _, w := range weighted {
		split.Clusters = append(split.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{Name: w.Cluster, Weight: w.Weight})
	}
	out.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: split}
	return out, errors.Join(errs...)
}

// tcpProxies are the configurations of the proxies that travel apart from their listeners.
func tcpProxies(listeners []ir.Listener, names *known) ([]*Resource, error) {
	var named []*ir.TCPProxy
	for i := range listeners {
		for j := range listeners[i].Chains {
			if t := listeners[i].Chains[j].TCP; t != nil && t.Name != "" {
				named = append(named, t)
			}
		}
	}
	return each("tcp proxy", named, func(t **ir.TCPProxy) (string, *Resource, error) {
		config, err := tcpConfig(*t, names)
		if err != nil {
			return (*t).Name, nil, err
		}
		packed, err := pack(config)
		if err != nil {
			return (*t).Name, nil, err
		}
		r, err := build(TypeExtension, (*t).Name, &corev3.TypedExtensionConfig{Name: (*t).Name, TypedConfig: packed})
		return (*t).Name, r, err
	})
}

// discovered is a filter whose configuration comes by ECDS. Until it has come, connections are closed.
func discovered(name string, config validated) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_ConfigDiscovery{
		ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource: ads(),
			TypeUrls:     []string{typePrefix + string(config.ProtoReflect().Descriptor().FullName())},
		},
	}}
}

// networkRBAC refers to an authorization that comes by ECDS.
func networkRBAC(name string, names *known) (*listenerv3.Filter, error) {
	if !names.has(anAuthorization, name) {
		return nil, fmt.Errorf("tcp: authorization %q is not among the proxy's: add it", name)
	}
	return discovered(name, &networkrbacv3.RBAC{}), nil
}
