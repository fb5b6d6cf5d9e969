package proxyir

import (
	"fmt"
	"slices"

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

// keepPath closes what a policy or listener would transcode of a route that rewrites the path: the rewrite comes last, and would spoil
// the path of the method.
func (b *builder) keepPath(route ir.Route, list []attachment) []attachment {
	if route.Forward == nil || route.Forward.Path == nil || route.Filters.Transcode != nil {
		return list
	}
	out := slices.Clone(list)
	for i, a := range out {
		if a.does.Filters.Transcode != nil {
			b.reject(a.key, len(b.order), fmt.Errorf("route %s rewrites the path, and transcode makes it that of the method: do one of them", route.Name))
			out[i] = attachment{key: a.key, matches: a.matches, broken: true}
		}
	}
	return out
}
