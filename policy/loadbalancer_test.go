package policy

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func TestLoadBalancerOf(t *testing.T) {
	header := &meshv1.LoadBalancer_HashPolicy{Policy: &meshv1.LoadBalancer_HashPolicy_Header{Header: &meshv1.LoadBalancer_Header{Name: "x"}}, Terminal: true}
	for _, c := range []struct {
		name string
		in   *meshv1.LoadBalancer
		want *ir.LoadBalancer
		hash []ir.HashPolicy
	}{
		{"none", nil, nil, nil},
		{"round robin is what holds anyway", &meshv1.LoadBalancer{Algorithm: &meshv1.LoadBalancer_RoundRobin_{}}, nil, nil},
		{"slow start of the default", &meshv1.LoadBalancer{SlowStart: &meshv1.LoadBalancer_SlowStart{Window: durationpb.New(time.Minute)}},
			&ir.LoadBalancer{Algorithm: ir.RoundRobin, SlowStart: &ir.SlowStart{Window: time.Minute, Aggression: 1, MinShare: 10}}, nil},
		{"least request", &meshv1.LoadBalancer{Algorithm: &meshv1.LoadBalancer_LeastRequest_{LeastRequest: &meshv1.LoadBalancer_LeastRequest{ChoiceCount: 3}},
			SlowStart: &meshv1.LoadBalancer_SlowStart{Window: durationpb.New(time.Second), Aggression: proto.Float64(2), MinWeightPercent: proto.Float64(0)}},
			&ir.LoadBalancer{Algorithm: ir.LeastRequest, Choices: 3, SlowStart: &ir.SlowStart{Window: time.Second, Aggression: 2}}, nil},
		{"random hashes nothing", &meshv1.LoadBalancer{Algorithm: &meshv1.LoadBalancer_Random_{}, HashPolicies: []*meshv1.LoadBalancer_HashPolicy{header}},
			&ir.LoadBalancer{Algorithm: ir.RandomPick}, nil},
		{"maglev by the client's address", &meshv1.LoadBalancer{Algorithm: &meshv1.LoadBalancer_Maglev_{Maglev: &meshv1.LoadBalancer_Maglev{TableSize: 7}}},
			&ir.LoadBalancer{Algorithm: ir.Maglev, Table: 7}, []ir.HashPolicy{{Source: true}}},
		{"ring", &meshv1.LoadBalancer{Algorithm: &meshv1.LoadBalancer_RingHash_{RingHash: &meshv1.LoadBalancer_RingHash{
			MinRingSize: 1, MaxRingSize: 2, HashFunction: meshv1.LoadBalancer_HASH_FUNCTION_MURMUR_HASH_2}}, HashPolicies: []*meshv1.LoadBalancer_HashPolicy{
			header,
			{Policy: &meshv1.LoadBalancer_HashPolicy_Cookie{Cookie: &meshv1.LoadBalancer_Cookie{Name: "c", Path: "/"}}},
			{Policy: &meshv1.LoadBalancer_HashPolicy_QueryParameter{QueryParameter: &meshv1.LoadBalancer_QueryParameter{Name: "q"}}},
			{Policy: &meshv1.LoadBalancer_HashPolicy_SourceAddress{}},
		}}, &ir.LoadBalancer{Algorithm: ir.RingHash, MinRing: 1, MaxRing: 2, Murmur: true},
			[]ir.HashPolicy{{Header: "x", Terminal: true}, {Cookie: &ir.HashCookie{Name: "c", Path: "/"}}, {Query: "q"}, {Source: true}}},
	} {
		got, hash := LoadBalancerOf(c.in)
		if !reflect.DeepEqual(got, c.want) || !reflect.DeepEqual(hash, c.hash) {
			t.Errorf("%s: %+v by %+v, want %+v by %+v", c.name, got, hash, c.want, c.hash)
		}
	}
}
