package xds

import (
	transcoderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"

	"github.com/zoneforge/zoneforge/ir"
)

// idleTranscoder is what the filter is in a listener: it knows no service.
var idleTranscoder = &transcoderv3.GrpcJsonTranscoder{DescriptorSet: &transcoderv3.GrpcJsonTranscoder_ProtoDescriptorBin{}}

func routeTranscode(r *ir.Route) (validated, error) {
	t := r.Filters.Transcode
	if t == nil {
		return nil, nil
	}
	return &transcoderv3.GrpcJsonTranscoder{
		DescriptorSet: &transcoderv3.GrpcJsonTranscoder_ProtoDescriptorBin{ProtoDescriptorBin: t.Descriptor},
		Services:      t.Services,
		// The route was chosen by the path that the client sent; by that of the method another one might be, with other filters.
		MatchIncomingRequestRoute:    true,
		AutoMapping:                  t.AutoMapping,
		IgnoreUnknownQueryParameters: t.IgnoreUnknownQuery,
		IgnoredQueryParameters:       t.IgnoredQuery,
		ConvertGrpcStatus:            t.ConvertStatus,
		PrintOptions: &transcoderv3.GrpcJsonTranscoder_PrintOptions{
			AddWhitespace: t.Whitespace, AlwaysPrintPrimitiveFields: t.PrintZeroPrimitives, AlwaysPrintEnumsAsInts: t.EnumsAsNumbers,
			PreserveProtoFieldNames: t.ProtoFieldNames,
		},
		// A gRPC server could only reset what isn't gRPC, and the client would see 503 instead of what it did wrong.
		RequestValidationOptions: &transcoderv3.GrpcJsonTranscoder_RequestValidationOptions{
			RejectUnknownMethod: true, RejectUnknownQueryParameters: true,
		},
	}, nil
}
