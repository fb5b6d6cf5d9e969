package proxyir_test

import (
	"strings"
	"testing"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// A listener or policy that transcodes spoils no path that a rule rewrites.
func TestTranscodeOfARewrittenPath(t *testing.T) {
	in := gatewayInput()
	plain, rewritten := route("plain", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/plain")), route("rewritten", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/rewritten"))
	resource.Spec[*meshv1.MeshGatewayRoute](rewritten).Conf.Http.Rules[0].Filters = []*meshv1.Filter{{Filter: &meshv1.Filter_Rewrite{Rewrite: &meshv1.Rewrite{Path: &meshv1.Rewrite_ReplaceFull{ReplaceFull: "/x"}}}}}
	in.Policies["MeshGatewayRoute"] = policy.NewList(plain, rewritten)
	in.Policies["FilterPolicy"] = policy.NewList(res("FilterPolicy", "json", &meshv1.FilterPolicy{Selectors: sel(service("edge")), Conf: &meshv1.FilterPolicy_Conf{Filters: []*meshv1.Filter{
		{Filter: &meshv1.Filter_Transcode{Transcode: &meshv1.Transcode{Descriptor_: &meshv1.DataSource{Type: &meshv1.DataSource_Inline{Inline: healthSet(t)}}, Services: []string{"grpc.health.v1.Health"}}}}}}}))
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	got := map[string]bool{}
	for _, route := range p.Routes[0].VirtualHosts[0].Routes {
		got[route.Name] = route.Direct != nil && route.Direct.Status == 503
	}
	if got["plain/0/0"] || !got["rewritten/0/0"] {
		t.Errorf("closed are %v, want the one that is rewritten", got)
	}
	if len(r.Rejected) != 1 || r.Rejected[0].Key.Name != "json" || !strings.Contains(r.Rejected[0].Reason, "route rewritten/0/0 rewrites the path, and transcode makes it that of the method") {
		t.Errorf("rejected %v", r.Rejected)
	}
}

// healthSet is a compiled descriptor of gRPC's health service.
func healthSet(t *testing.T) []byte {
	t.Helper()
	data, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(healthv1.File_grpc_health_v1_health_proto)}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}
