package ingress

import (
	"reflect"
	"slices"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func zoneIngress() *meshv1.ZoneIngress {
	return &meshv1.ZoneIngress{Zone: "west", Networking: &meshv1.ZoneIngress_Networking{Address: "0.0.0.0", Port: 10001}}
}

func TestProxy(t *testing.T) {
	destinations := []Destination{
		{Mesh: "default", Service: "web"},
		{Mesh: "default", Service: "api"},
		{Mesh: "default", Service: "web", Subset: map[string]string{"version": "v1"}},
		{Mesh: "default", Service: "api"},
	}
	got, err := Proxy("in", zoneIngress(), destinations)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, d := range destinations[:3] {
		want = append(want, mustSNI(t, d))
	}
	slices.Sort(want)
	var names []string
	for _, c := range got.Clusters {
		names = append(names, c.Name)
		if c.EndpointsName != EndpointsName(c.Name, IngressView) || c.Protocol != ir.TCP || c.TLS != nil || c.Static != nil {
			t.Errorf("cluster %+v", c)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("clusters %q, want %q", names, want)
	}
	if c := got.Listeners[0].Chains[0]; len(got.Listeners) != 1 || len(got.Listeners[0].Chains) != 1 || c.TLS != nil ||
		!c.TCP.SNICluster || c.Match.Transport != "tls" {
		t.Errorf("listeners %+v", got.Listeners)
	}

	slices.Reverse(destinations)
	if again, _ := Proxy("in", zoneIngress(), destinations); !reflect.DeepEqual(got, again) {
		t.Errorf("the order of destinations shows:\n%+v\n%+v", got, again)
	}
	empty, err := Proxy("in", zoneIngress(), nil)
	if err != nil || !reflect.DeepEqual(empty.Listeners, got.Listeners) {
		t.Errorf("the listener depends on services: %+v, %v", empty.Listeners, err)
	}
}

func TestProxyRefuses(t *testing.T) {
	noPort := zoneIngress()
	noPort.Networking.Port = 0
	for name, zi := range map[string]*meshv1.ZoneIngress{"nil": nil, "no port": noPort} {
		if _, err := Proxy("in", zi, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Proxy("in", zoneIngress(), []Destination{{Mesh: "default"}}); err == nil {
		t.Error("a destination without a service: no error")
	}
}
