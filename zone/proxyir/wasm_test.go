package proxyir_test

import (
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// A module that the proxy's Envoy refused closes its own route, and is tried again with another configuration.
func TestRefusedModuleClosesItsRoute(t *testing.T) {
	in := gatewayInput()
	in.Modules = []string{"auth.wasm 0123"}
	build := func(configuration string) (*proxyir.Result, map[string]string) {
		var all []*resource.Resource
		for name, configuration := range map[string]string{"one": configuration, "other": "fine"} {
			r := route(name, nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/"+name))
			resource.Spec[*meshv1.MeshGatewayRoute](r).GetConf().GetHttp().GetRules()[0].Filters = []*meshv1.Filter{
				{Filter: &meshv1.Filter_Wasm{Wasm: &meshv1.Wasm{Code: &meshv1.Wasm_File{File: "auth.wasm"}, Configuration: configuration}}}}
			all = append(all, r)
		}
		in.Policies["MeshGatewayRoute"] = policy.NewList(all...)
		r, err := proxyir.Gateway(in)
		p, _ := accepted(t, r, err)
		modules := map[string]string{}
		for _, r := range facing(p).Routes[0].VirtualHosts[0].Routes {
			switch {
			case r.Filters.Wasm != nil:
				modules[r.Name] = r.Filters.Wasm.Name
			case r.Direct != nil && r.Direct.Status == 503:
				modules[r.Name] = "closed"
			}
		}
		return r, modules
	}
	_, before := build("bad")
	if before["one/0/0"] == "" || before["one/0/0"] == before["other/0/0"] || before["one/0/0"] == "closed" {
		t.Fatalf("modules %v", before)
	}
	in.Refused = proxyir.RefusedModules("Unable to create Wasm plugin " + before["one/0/0"] + "\nUnable to create Wasm plugin another")
	r, after := build("bad")
	if after["one/0/0"] != "closed" || after["other/0/0"] != before["other/0/0"] {
		t.Errorf("modules %v, before %v, refused %q", after, before, in.Refused)
	}
	if len(r.Rejected) != 1 || r.Rejected[0].Key.Name != "one" || !strings.Contains(r.Rejected[0].Reason, "Unable to create Wasm plugin") {
		t.Errorf("rejected %v", r.Rejected)
	}
	if _, mended := build("good"); mended["one/0/0"] == "closed" || mended["one/0/0"] == before["one/0/0"] {
		t.Errorf("mended, it is %v", mended)
	}
}
