package talk

import (
	"context"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Trailer is what each answer of GRPC carries behind its messages.
var Trailer = metadata.Pairs("x-trailer", "behind the body")

// GRPC is a server with the health service, which has unary calls and a stream of the server, and reflection, a stream both ways.
// More may be registered before it serves.
func GRPC() (*grpc.Server, *health.Server) {
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, in any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			_ = grpc.SetTrailer(ctx, Trailer) // it can't fail before the answer
			return next(ctx, in)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			stream.SetTrailer(Trailer)
			return next(srv, stream)
		}))
	h := health.NewServer()
	healthv1.RegisterHealthServer(s, h)
	reflection.Register(s)
	return s, h
}

// HealthDescriptor is a FileDescriptorSet of the health service in which the methods Check and List have these paths of JSON; an
// empty path is none.
func HealthDescriptor(check, list string) ([]byte, error) {
	set := &descriptorpb.FileDescriptorSet{}
	for _, f := range []protoreflect.FileDescriptor{descriptorpb.File_google_protobuf_descriptor_proto, annotations.File_google_api_http_proto, annotations.File_google_api_annotations_proto} {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	file := protodesc.ToFileDescriptorProto(healthv1.File_grpc_health_v1_health_proto)
	file.Dependency = append(file.Dependency, annotations.File_google_api_annotations_proto.Path())
	for _, m := range file.Service[0].Method {
		path := map[string]string{"Check": check, "List": list}[m.GetName()]
		if path == "" {
			continue
		}
		m.Options = &descriptorpb.MethodOptions{}
		proto.SetExtension(m.Options, annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}})
	}
	set.File = append(set.File, file)
	return proto.Marshal(set)
}
