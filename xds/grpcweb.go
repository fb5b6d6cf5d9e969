package xds

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/ir"
)

// routeGRPCWeb turns the filter on. It has no configuration of its own for a route, and Envoy refuses any but an empty one.
func routeGRPCWeb(r *ir.Route) (validated, error) {
	if r.Filters.GRPCWeb == nil {
		return nil, nil
	}
	return &routev3.FilterConfig{Config: &anypb.Any{}}, nil
}
