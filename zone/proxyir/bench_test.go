package proxyir_test

import (
	"fmt"
	"testing"

	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// BenchmarkSidecar makes the structs of a sidecar with 30 outbounds, in a mesh with policies for all and for each of many services.
func BenchmarkSidecar(b *testing.B) {
	for _, policies := range []int{10, 1000} {
		b.Run(fmt.Sprint("policies=", policies), func(b *testing.B) {
			n, all := sidecar(), sidecarPolicies()
			n.Outbound = nil
			for i := range 30 {
				n.Outbound = append(n.Outbound, &meshv1.Dataplane_Outbound{Port: uint32(9000 + i), Tags: service(fmt.Sprint("s", i))})
			}
			for i := range policies / 2 {
				name, to := fmt.Sprintf("s%04d", i), sel(service(fmt.Sprint("s", i)))
				all["TrafficRoute"] = append(all["TrafficRoute"], res("TrafficRoute", name, &meshv1.TrafficRoute{Sources: sel(service("*")), Destinations: to,
					Conf: &meshv1.TrafficRoute_Conf{Destination: service(fmt.Sprint("s", i))}}))
				all["TrafficPermission"] = append(all["TrafficPermission"], res("TrafficPermission", name, &meshv1.TrafficPermission{Sources: sel(service(fmt.Sprint("c", i))), Destinations: to}))
			}
			in := input(mesh(meshv1.Mesh_MODE_STRICT), n, all)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := proxyir.Sidecar(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGateway makes the structs of a gateway with a number of routes.
func BenchmarkGateway(b *testing.B) {
	for _, routes := range []int{10, 1000} {
		b.Run(fmt.Sprint("routes=", routes), func(b *testing.B) {
			in := gatewayInput()
			var list []*resource.Resource
			for i := range routes {
				list = append(list, route(fmt.Sprintf("r%04d", i), []string{fmt.Sprintf("h%d.example.com", i%10)},
					path(meshv1.MatchType_MATCH_TYPE_PREFIX, fmt.Sprint("/p", i))))
			}
			in.Policies["MeshGatewayRoute"] = policy.NewList(list...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := proxyir.Gateway(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
