package state

import (
	"errors"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// What Envoy's own rules refuse is found among the policies, and the rest of the proxy is built without it.
func TestPolicyThatEnvoyWouldRefuseCostsItselfOnly(t *testing.T) {
	key := func(name string) resource.Key {
		return resource.Key{Kind: "MeshGatewayRoute", Mesh: "default", Name: name}
	}
	permission := resource.Key{Kind: "TrafficPermission", Mesh: "default", Name: "p"}
	build := func(in proxyir.Input) (*proxyir.Result, error) {
		out := &proxyir.Result{Proxy: &ir.Proxy{Name: "p"}}
		for name, address := range map[string]string{"good": "10.0.0.1", "bad": "not-an-address", "worse": ""} {
			if in.Closed[key(name)] && name == "bad" {
				address = "10.0.0.2"
			}
			if !in.Without[key(name)] {
				out.Uses = append(out.Uses, proxyir.Use{Key: key(name), Why: "test"})
				out.Proxy.Clusters = append(out.Proxy.Clusters, ir.Cluster{Name: name, Protocol: ir.HTTP1, ConnectTimeout: 1e9, Static: &ir.Endpoint{Address: address, Port: 80}})
			}
		}
		out.Uses = append(out.Uses, proxyir.Use{Key: permission, Why: "test"})
		if in.Without[permission] {
			return nil, errors.New("a permission must never be left out")
		}
		return out, nil
	}
	first, err := build(proxyir.Input{})
	if err != nil {
		t.Fatal(err)
	}
	_, why := xds.Build(first.Proxy)
	if why == nil {
		t.Fatal("nothing is wrong")
	}
	result, resources, err := withoutBad(build, proxyir.Input{}, first, why)
	if err != nil {
		t.Fatal(err)
	}
	// What is closed keeps its place where that helps.
	if len(resources.Clusters) != 2 || resources.Clusters[0].Name != "bad" || resources.Clusters[1].Name != "good" {
		t.Errorf("clusters %v", resources.Clusters)
	}
	if len(result.Rejected) != 2 || result.Rejected[0].Key != key("bad") || result.Rejected[1].Key != key("worse") ||
		!strings.Contains(result.Rejected[0].Reason, "not-an-address") {
		t.Errorf("rejected %v", result.Rejected)
	}

	// Where the proxy is wrong by itself, its own error is told.
	hopeless := func(proxyir.Input) (*proxyir.Result, error) {
		return &proxyir.Result{Proxy: &ir.Proxy{Clusters: []ir.Cluster{{Name: "own", Static: &ir.Endpoint{}}}}, Uses: first.Uses}, nil
	}
	if _, _, err := withoutBad(hopeless, proxyir.Input{}, first, why); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}
