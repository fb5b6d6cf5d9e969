package xds

import (
	"fmt"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	transformv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/transform/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/ir"
)

// routeTransform never lets Envoy choose the route again: what was checked before was checked for the route that it has.
func routeTransform(r *ir.Route) (validated, error) {
	t := r.Filters.Transform
	if t == nil {
		return nil, nil
	}
	out := &transformv3.TransformConfig{}
	var err error
	if out.RequestTransformation, err = transformation(t.Request); err != nil {
		return nil, fmt.Errorf("transform: request: %w", err)
	}
	if out.ResponseTransformation, err = transformation(t.Response); err != nil {
		return nil, fmt.Errorf("transform: response: %w", err)
	}
	return out, nil
}

func transformation(t *ir.Transformation) (*transformv3.Transformation, error) {
	if t == nil {
		return nil, nil
	}
	out := &transformv3.Transformation{}
	write := func(h ir.Header, action corev3.HeaderValueOption_HeaderAppendAction) {
		out.HeadersMutations = append(out.HeadersMutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{
			Append: &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: h.Name, Value: h.Value}, AppendAction: action},
		}})
	}
	for _, name := range t.Headers.Remove {
		out.HeadersMutations = append(out.HeadersMutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
	}
	for _, h := range t.Headers.Set {
		write(h, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	}
	for _, h := range t.Headers.Add {
		write(h, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	}
	b := t.Body
	if b == nil {
		return out, nil
	}
	format := &corev3.SubstitutionFormatString{ContentType: b.ContentType}
	if b.JSON != "" {
		object := &structpb.Struct{}
		if err := protojson.Unmarshal([]byte(b.JSON), object); err != nil {
			return nil, fmt.Errorf("body: no JSON object: %w", err)
		}
		format.Format = &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: object}
	} else {
		format.Format = &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: b.Text},
		}}
	}
	out.BodyTransformation = &transformv3.BodyTransformation{BodyFormat: format, Action: transformv3.BodyTransformation_REPLACE}
	if b.Merge {
		out.BodyTransformation.Action = transformv3.BodyTransformation_MERGE
	}
	return out, nil
}
