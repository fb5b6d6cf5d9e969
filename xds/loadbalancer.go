package xds

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// setLoadBalancer says how an endpoint is picked.
func setLoadBalancer(out *clusterv3.Cluster, l *ir.LoadBalancer) error {
	if l == nil {
		return nil
	}
	slow, err := slowStart(l.SlowStart)
	if slow != nil && l.Algorithm != ir.RoundRobin && l.Algorithm != ir.LeastRequest && l.Algorithm != "" {
		err = errors.Join(err, fmt.Errorf("load balancer: %s does not start slowly: use round-robin or least-request", l.Algorithm))
	}
	switch l.Algorithm {
	case ir.RoundRobin, "":
		if slow != nil {
			out.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{SlowStartConfig: slow}}
		}
	case ir.LeastRequest:
		out.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		config := &clusterv3.Cluster_LeastRequestLbConfig{SlowStartConfig: slow}
		if l.Choices != 0 {
			config.ChoiceCount = wrapperspb.UInt32(l.Choices)
		}
		out.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: config}
	case ir.RandomPick:
		out.LbPolicy = clusterv3.Cluster_RANDOM
	case ir.RingHash:
		out.LbPolicy = clusterv3.Cluster_RING_HASH
		config := &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: size(l.MinRing), MaximumRingSize: size(l.MaxRing)}
		if l.Murmur {
			config.HashFunction = clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2
		}
		out.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: config}
	case ir.Maglev:
		out.LbPolicy = clusterv3.Cluster_MAGLEV
		out.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: &clusterv3.Cluster_MaglevLbConfig{TableSize: size(l.Table)}}
	default:
		err = errors.Join(err, fmt.Errorf("load balancer: algorithm %q is not known: use round-robin, least-request, random, ring-hash or maglev", l.Algorithm))
	}
	return err
}

func size(n uint64) *wrapperspb.UInt64Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt64(n)
}

func slowStart(s *ir.SlowStart) (*clusterv3.Cluster_SlowStartConfig, error) {
	if s == nil {
		return nil, nil
	}
	return &clusterv3.Cluster_SlowStartConfig{
		SlowStartWindow:  durationpb.New(s.Window),
		Aggression:       &corev3.RuntimeDouble{DefaultValue: s.Aggression, RuntimeKey: "upstream.slow_start.aggression"},
		MinWeightPercent: &typev3.Percent{Value: s.MinShare},
	}, notNegative(namedDuration{"load balancer: window of slow start", s.Window})
}

// hashPolicies are what of a request is hashed.
func hashPolicies(list []ir.HashPolicy) ([]*routev3.RouteAction_HashPolicy, error) {
	var out []*routev3.RouteAction_HashPolicy
	var errs []error
	for i, h := range list {
		p := &routev3.RouteAction_HashPolicy{Terminal: h.Terminal}
		switch {
		case h.Header != "":
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header}}
		case h.Cookie != nil:
			errs = append(errs, notNegative(namedDuration{"hash: lifetime of the cookie", h.Cookie.TTL}))
			// Spelled out, a lifetime of zero makes a cookie of the client's session; left out, none is made.
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: &routev3.RouteAction_HashPolicy_Cookie{
				Name: h.Cookie.Name, Ttl: durationpb.New(h.Cookie.TTL), Path: h.Cookie.Path}}
		case h.Query != "":
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: h.Query}}
		case h.Source:
			p.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
				ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
		default:
			errs = append(errs, fmt.Errorf("hash policy %d hashes nothing: set one of header, cookie, query and source", i))
		}
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}
