package xds

import (
	_ "embed"

	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/ir"
)

// transformScript calls the service. It is the same for all routes, which say in its context whom to call, and so share its machines.
//
//go:embed transform_service.lua
var transformScript string

func routeTransformService(r *ir.Route) (validated, error) {
	t := r.Filters.TransformService
	if t == nil {
		return nil, nil
	}
	context, err := structpb.NewStruct(map[string]any{
		"cluster": t.Cluster, "host": t.Host, "path": t.Path, "request": t.Request, "response": t.Response,
		"timeout": t.Timeout.Milliseconds(), "open": t.FailOpen,
	})
	if err != nil {
		return nil, err
	}
	return &luav3.LuaPerRoute{
		Override: &luav3.LuaPerRoute_SourceCode{SourceCode: inlineText(transformScript)}, FilterContext: context,
		SharedVmId: "zoneforge.transform_service",
	}, nil
}
