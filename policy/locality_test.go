package policy

import (
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func TestLocalityFor(t *testing.T) {
	to := func(from []string, zones ...string) *meshv1.LocalityPolicy_Failover {
		return &meshv1.LocalityPolicy_Failover{From: from, To: zones}
	}
	written := func(mesh, name string, destination map[string]string, conf *meshv1.LocalityPolicy_Conf) *resource.Resource {
		return &resource.Resource{Key: resource.Key{Kind: "LocalityPolicy", Mesh: mesh, Name: name},
			Spec: &meshv1.LocalityPolicy{Destinations: []*meshv1.Selector{{Match: destination}}, Conf: conf}}
	}
	echo := map[string]string{resource.TagService: "echo"}
	policies := []*resource.Resource{
		written("default", "any", map[string]string{resource.TagService: "*"}, &meshv1.LocalityPolicy_Conf{LocalFirst: proto.Bool(false),
			Failover: []*meshv1.LocalityPolicy_Failover{to(nil, "ignored")}, FailoverThreshold: proto.Uint32(50)}),
		written("default", "echo", echo, &meshv1.LocalityPolicy_Conf{Weights: map[string]uint32{"west": 3},
			Failover: []*meshv1.LocalityPolicy_Failover{to(nil, "south"), to([]string{"north", "east"}, "west", "south")}}),
		written("default", "also-echo", map[string]string{resource.TagService: "echo", "version": "v1"}, &meshv1.LocalityPolicy_Conf{}),
		written("other", "a", echo, &meshv1.LocalityPolicy_Conf{LocalFirst: proto.Bool(false)}),
		nil,
	}
	for _, c := range []struct {
		name        string
		zone        string
		destination map[string]string
		want        Locality
	}{
		{"the order of the zone before that of any", "east", echo, Locality{Order: []string{"west", "south"}, Weights: map[string]uint32{"west": 3}}},
		{"the order of any zone", "west", echo, Locality{Order: []string{"south"}, Weights: map[string]uint32{"west": 3}}},
		{"a subset's own, from which nothing is inherited", "east", map[string]string{resource.TagService: "echo", "version": "v1"}, Locality{}},
		{"all at once has no order", "east", map[string]string{resource.TagService: "web"}, Locality{AllAtOnce: true, Threshold: 50}},
		{"no service", "east", nil, Locality{}},
	} {
		for range 2 {
			if got := LocalityFor(policies, "default", c.zone, c.destination); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
			slices.Reverse(policies)
		}
	}
}
