package xds

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// httpFilter is one filter of the chain. What it does is decided per route, so that a policy never touches a listener.
type httpFilter struct {
	name string
	// listener is its configuration where the route says nothing, which lets everything pass.
	listener validated
	// route is its configuration for a route, or nil for none.
	route func(*ir.Route) (validated, error)
}

// httpFilters are all HTTP filters, in the order in which requests pass them. It is the only place that knows the order:
// cors answers preflights, which carry no identity of a user, before rbac can refuse them; router is last, as it must be.
var httpFilters = []httpFilter{
	{"envoy.filters.http.cors", &corsv3.Cors{}, routeCORS},
	{"envoy.filters.http.rbac", &rbacv3.RBAC{}, routeRBAC},
	{"envoy.filters.http.router", &routerv3.Router{}, nil},
}

func filterChain() ([]*hcmv3.HttpFilter, error) {
	var out []*hcmv3.HttpFilter
	for _, f := range httpFilters {
		config, err := pack(f.listener)
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.name, err)
		}
		out = append(out, &hcmv3.HttpFilter{
			Name:       f.name,
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config},
		})
	}
	return out, nil
}

// perRoute configures the filters for one route.
func perRoute(r *ir.Route) (map[string]*anypb.Any, error) {
	out := map[string]*anypb.Any{}
	var errs []error
	for _, f := range httpFilters {
		if f.route == nil {
			continue
		}
		config, err := f.route(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if config == nil {
			continue
		}
		packed, err := pack(config)
		if err != nil {
			errs = append(errs, fmt.Errorf("filter %s: %w", f.name, err))
			continue
		}
		out[f.name] = packed
	}
	return out, errors.Join(errs...)
}

func routeRBAC(r *ir.Route) (validated, error) {
	if r.Authorization == nil {
		return nil, nil
	}
	rules, err := rbac(r.Authorization)
	if err != nil {
		return nil, err
	}
	return &rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: rules}}, nil
}

func routeCORS(r *ir.Route) (validated, error) {
	c := r.CORS
	if c == nil {
		return nil, nil
	}
	out := &corsv3.CorsPolicy{
		AllowMethods:     strings.Join(c.Methods, ","),
		AllowHeaders:     strings.Join(c.Headers, ","),
		ExposeHeaders:    strings.Join(c.ExposeHeaders, ","),
		AllowCredentials: wrapperspb.Bool(c.Credentials),
	}
	var errs []error
	for _, o := range c.Origins {
		origin, err := text(o)
		if err != nil {
			errs = append(errs, fmt.Errorf("cors: origin: %w", err))
			continue
		}
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, origin)
	}
	if c.MaxAge != nil {
		errs = append(errs, notNegative(namedDuration{"cors: max age", *c.MaxAge}))
		out.MaxAge = strconv.FormatInt(int64(*c.MaxAge/time.Second), 10)
	}
	return out, errors.Join(errs...)
}
