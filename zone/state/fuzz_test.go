package state_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/zone/state"
)

// A record that global sends, of any kind and bytes, is used or rejected by name; whatever it is, every proxy is built, or its own
// error says why not, and taking it away again leaves what was.
func FuzzApply(f *testing.F) {
	kinds := resource.Kinds()
	index := func(name string) uint8 {
		for i, k := range kinds {
			if k.Name == name {
				return uint8(i)
			}
		}
		f.Fatal(name)
		return 0
	}
	for name, spec := range map[string]proto.Message{
		"Mesh": mesh(meshv1.Mesh_MODE_STRICT), "MeshGateway": listeners(8080), "MeshGatewayRoute": gatewayRoute("web"), "ZoneIngress": remote("west", "10.1.0.1"),
		"ServiceAvailability": available("west", "web", 2), "Timeout": timeout("*", "*", "1s"),
	} {
		f.Add(index(name), "x", rec(f, name, "x", spec).GetPayload())
	}
	f.Add(uint8(255), "x", []byte("?"))
	f.Fuzz(func(t *testing.T, kind uint8, name string, payload []byte) {
		k := resource.Key{Kind: "FromTomorrow", Mesh: "default", Name: name}
		if int(kind) < len(kinds) {
			k = key(kinds[kind].Name, name)
		}
		if name == "" || k == key("Mesh", "default") {
			return
		}
		s := state.New("east", "")
		s.Apply([]*kdsv1.Record{rec(t, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT)), rec(t, "MeshGateway", "edge", listeners(8080)),
			rec(t, "MeshGatewayRoute", "edge", gatewayRoute("web"))}, nil, true)
		for _, p := range []state.Proxy{gateway(), sidecar("web", "10.0.0.1", "api"), sidecar("api", "10.0.0.2"), zoneIngress()} {
			s.Register(p, true)
		}
		build := func() {
			d := s.Take()
			for _, id := range d.Proxies {
				_, _ = s.BuildProxy(id)
			}
			for _, name := range append(d.Endpoints, s.TakeEndpoints()...) {
				_, _ = s.BuildEndpoints(name)
			}
		}
		build()
		rejected := s.Apply([]*kdsv1.Record{kds.NewRecord(k, payload)}, nil, false)
		for _, r := range rejected {
			if r.GetKey().GetName() != name || r.GetReason() == "" {
				t.Fatalf("rejected %v", r)
			}
		}
		build()
		s.Apply(nil, []resource.Key{k}, false)
		build()
		if left := s.Rejected(); len(left) > 0 {
			t.Fatalf("%v is left of %v, which is gone", left, k)
		}
	})
}
