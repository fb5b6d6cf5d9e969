package proxyir

import (
	"fmt"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// transcode reads the descriptor, which may be in a Secret that no validator saw.
func (b *builder) transcode(t *meshv1.Transcode) (*ir.Transcode, error) {
	data, err := b.data(t.GetDescriptor_())
	if err != nil {
		return nil, fmt.Errorf("transcode: %w", err)
	}
	descriptor, err := resource.TranscodeDescriptor(data, t.GetServices())
	if err != nil {
		return nil, fmt.Errorf("transcode: descriptor: %w", err)
	}
	p := t.GetPrintOptions()
	return &ir.Transcode{
		Descriptor: descriptor, Services: t.GetServices(), AutoMapping: t.GetAutoMapping(),
		IgnoreUnknownQuery: t.GetIgnoreUnknownQueryParameters(), IgnoredQuery: t.GetIgnoredQueryParameters(),
		ConvertStatus: t.ConvertGrpcStatus == nil || t.GetConvertGrpcStatus(),
		Whitespace:    p.GetAddWhitespace(), PrintZeroPrimitives: p.GetAlwaysPrintPrimitiveFields(), EnumsAsNumbers: p.GetAlwaysPrintEnumsAsInts(),
		ProtoFieldNames: p.GetPreserveProtoFieldNames(),
	}, nil
}
