package state

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// refusable are the kinds of which one may be left out of a proxy, in the order in which they are tried: what leads somewhere, then
// what guards and counts it, then what the connections are like that come of both. So each finds there what it is for, and none is
// blamed for another. MeshGateway stands for the filters of its listeners.
var refusable = []string{
	"MeshGatewayRoute", "Composition", "FilterPolicy", "RateLimit", "FaultInjection", "MeshGateway",
	"TrafficRoute", "CircuitBreaker", "HealthCheck", "Retry", "Timeout", "TrafficLog", "MeshTrafficTrace", "TrafficTrace", "ProxyTemplate",
}

// closable are those of them without which requests could reach what they must not.
var closable = []string{"MeshGatewayRoute", "Composition", "FilterPolicy"}

// search finds the policies that make a proxy into something that Envoy's own rules refuse.
type search struct {
	build func(proxyir.Input) (*proxyir.Result, error)
	in    proxyir.Input
	// former are the tokens that routes of before asked for.
	former   []*ir.JWT
	rejected []proxyir.Rejected
}

// withoutBad adds policies and the ports of a gateway one by one to a proxy without any, and builds the proxy without those that
// are refused. What they were for is answered with 503 where leaving them out would open what should be closed. It costs a build a
// policy, in a case that validation should prevent. Where the proxy is refused without any of them, it gives why.
func withoutBad(build func(proxyir.Input) (*proxyir.Result, error), in proxyir.Input, result *proxyir.Result, why error) (*proxyir.Result, *xds.Resources, error) {
	in.Without, in.Closed, in.Ports = map[resource.Key]bool{}, map[resource.Key]bool{}, map[uint32]proxyir.PortState{}
	s := &search{build: build, in: in, former: result.Proxy.FormerJWT}
	keys := s.withoutAny(result)
	ports := s.withoutPorts(result)
	if _, _, err := s.try(); err != nil {
		return nil, nil, why
	}
	for _, port := range ports {
		s.refuses(keys["MeshGateway"][0], fmt.Sprintf("port %d: ", port), func() { in.Ports[port] = proxyir.PortWithoutFilters }, func() { in.Ports[port] = proxyir.PortAbsent })
	}
	for _, kind := range refusable {
		if kind == "MeshGateway" {
			for _, port := range ports {
				if in.Ports[port] == proxyir.PortWithoutFilters {
					s.refuses(keys[kind][0], fmt.Sprintf("port %d: ", port), func() { delete(in.Ports, port) }, func() { in.Ports[port] = proxyir.PortClosed })
				}
			}
			continue
		}
		for _, key := range keys[kind] {
			if !s.refuses(key, "", func() { delete(in.Without, key) }, func() { in.Without[key] = true }) || !slices.Contains(closable, kind) {
				continue
			}
			delete(in.Without, key)
			in.Closed[key] = true
			if _, _, err := s.try(); err != nil {
				if kind == "FilterPolicy" {
					return nil, nil, why
				}
				// Its place itself is what is refused.
				delete(in.Closed, key)
				in.Without[key] = true
			}
		}
	}
	best, resources, err := s.try()
	if err != nil {
		return nil, nil, why
	}
	best.Rejected = append(best.Rejected, s.rejected...)
	slices.SortStableFunc(best.Rejected, func(a, b proxyir.Rejected) int { return cmp.Or(a.Key.Compare(b.Key), cmp.Compare(a.Reason, b.Reason)) })
	return best, resources, nil
}

// withoutAny passes over all policies that may be left out, and gives them by kind. The MeshGateway, of which there is at most one,
// stays, as its ports are tried.
func (s *search) withoutAny(result *proxyir.Result) map[string][]resource.Key {
	keys := map[string][]resource.Key{}
	for _, u := range result.Uses {
		if kind := u.Key.Kind; slices.Contains(refusable, kind) && !slices.Contains(keys[kind], u.Key) {
			keys[kind] = append(keys[kind], u.Key)
			s.in.Without[u.Key] = kind != "MeshGateway"
		}
	}
	return keys
}

// withoutPorts takes away the ports of a gateway, and gives them.
func (s *search) withoutPorts(result *proxyir.Result) []uint32 {
	var ports []uint32
	for _, l := range result.Proxy.Listeners {
		if l.Direction == ir.Edge && !slices.Contains(ports, l.Port) {
			ports = append(ports, l.Port)
			s.in.Ports[l.Port] = proxyir.PortAbsent
		}
	}
	slices.Sort(ports)
	return ports
}

func (s *search) try() (*proxyir.Result, *xds.Resources, error) {
	r, err := s.build(s.in)
	if err != nil {
		return nil, nil, err
	}
	r.Proxy.FormerJWT = s.former
	resources, err := xds.Build(r.Proxy)
	return r, resources, err
}

// refuses tells whether a proxy is refused with something more, which is taken back and blamed then.
func (s *search) refuses(key resource.Key, place string, add, takeBack func()) bool {
	add()
	_, _, err := s.try()
	if err == nil {
		return false
	}
	takeBack()
	s.rejected = append(s.rejected, proxyir.Rejected{Key: key, Reason: place + err.Error()})
	return true
}
