package xds

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	oauth2v3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/oauth2/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	transformv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/transform/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/ir"
)

// httpFilter is one filter of the chain. It stands in every HTTP listener but those whose routes never want any, so that no policy ever
// touches a listener, and does nothing there: the routes that want it turn it on.
type httpFilter struct {
	name string
	// listener is its configuration where the route says nothing; nil with discovered.
	listener validated
	// discovered is its configuration where that belongs to the whole proxy, such as a provider's keys. It travels by ECDS under
	// the filter's name, so that a change of it drains no connection, and one of a route renews none of its state.
	discovered func(*ir.Proxy) (validated, error)
	// route turns it on for a route and configures it there, or is nil for none. The router has no such function and is always on.
	route func(*ir.Route) (validated, error)
	// inChain says that it stands in no listener, but in the chain that a route has for the filter before it.
	inChain bool
}

// httpFilters are all HTTP filters, in the order in which requests pass them; responses pass them backwards. It is the only
// place that knows the order:
//   - admission control comes first, as what it refuses should cost nothing, and it watches all answers;
//   - cors answers preflights, which carry no identity of a user, before anything can refuse them;
//   - what asks who the client is comes before what asks whether it may (rbac), and both before what counts requests;
//   - limits that a proxy counts itself come before those for which it asks a service, and faults meet what is within them;
//   - what changes bodies comes after all that could refuse the request;
//   - gRPC-Web becomes gRPC before anything looks at bodies, so that the transcoder takes it for what it is;
//   - compression stands before caches and what reads or changes bodies, so that these see responses as backends wrote them;
//   - caches come after all that could refuse a request, and before what asks for or makes an answer;
//   - templates, scripts, services and modules change messages in this order, each seeing what the one before it made;
//   - router is last, as it must be.
var httpFilters = []httpFilter{
	{name: "zoneforge.admission", discovered: admissions, route: routeAdmission},
	{name: "envoy.filters.http.cors", listener: &corsv3.Cors{}, route: routeCORS},
	{name: "zoneforge.client_address", listener: &rbacv3.RBAC{}, route: routeClientAddress},
	{name: "zoneforge.basic_auth", listener: &filterchainv3.FilterChainConfig{}, route: routeBasicAuth},
	{name: "zoneforge.api_key", listener: &filterchainv3.FilterChainConfig{}, route: routeAPIKeyChain},
	{name: apiKeyFilter, route: routeAPIKey, inChain: true},
	{name: "envoy.filters.http.oauth2", listener: &oauth2v3.OAuth2{}, route: routeOIDC},
	{name: jwtFilter, discovered: jwtProviders, route: routeJWT},
	{name: "zoneforge.claims", listener: &rbacv3.RBAC{}, route: routeClaims},
	{name: "zoneforge.ext_auth", listener: &filterchainv3.FilterChainConfig{}, route: routeExtAuth},
	{name: extAuthFilter, route: routeExtAuthContext, inChain: true},
	{name: "envoy.filters.http.rbac", listener: &rbacv3.RBAC{}, route: routeRBAC},
	{name: "zoneforge.rate_limit.policy", discovered: localLimits(policyLimit), route: routeLocalLimit(policyLimit)},
	{name: "zoneforge.rate_limit.filter", discovered: localLimits(filterLimit), route: routeLocalLimit(filterLimit)},
	{name: "zoneforge.rate_limit.shared", listener: &filterchainv3.FilterChainConfig{}, route: routeSharedLimits},
	{name: "zoneforge.fault", listener: &filterchainv3.FilterChainConfig{}, route: routeFaults},
	{name: "zoneforge.bandwidth", discovered: bandwidths, route: routeBandwidth},
	{name: "zoneforge.body_size", listener: &filterchainv3.FilterChainConfig{}, route: routeBodySize},
	{name: "envoy.filters.http.grpc_web", listener: &grpcwebv3.GrpcWeb{}, route: routeGRPCWeb},
	{name: "zoneforge.compression", listener: &filterchainv3.FilterChainConfig{}, route: routeCompression},
	{name: "zoneforge.cache_key", discovered: cacheKey, route: routeCacheKey},
	{name: cacheName, listener: &filterchainv3.FilterChainConfig{}, route: routeCache},
	{name: "zoneforge.cache_fill", discovered: cacheFill, route: routeCacheFill},
	{name: "envoy.filters.http.grpc_json_transcoder", listener: idleTranscoder, route: routeTranscode},
	{name: "envoy.filters.http.transform", listener: &transformv3.TransformConfig{}, route: routeTransform},
	{name: "zoneforge.transform_service", listener: luaListener, route: routeTransformService},
	{name: "envoy.filters.http.lua", listener: luaListener, route: routeLua},
	{name: "zoneforge.ext_proc", listener: &filterchainv3.FilterChainConfig{}, route: routeExtProc},
	{name: "zoneforge.wasm", listener: &filterchainv3.FilterChainConfig{}, route: routeWasm},
	{name: "envoy.filters.http.router", listener: &routerv3.Router{}},
}

// chains are the filters of HTTP listeners, and what stands in those whose routes turn none on. They are the same for all, and must
// not be changed.
var chains = sync.OnceValues(func() (*chainsOf, error) {
	all, err := filterChain()
	if err != nil {
		return nil, err
	}
	out := &chainsOf{bare: all[len(all)-1:], idle: map[string]idleFilter{}}
	for _, f := range httpFilters {
		if f.discovered == nil {
			continue
		}
		config, err := f.discovered(&ir.Proxy{})
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.name, err)
		}
		r, err := discoveredFilter(f.name, config)
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.name, err)
		}
		out.idle[f.name] = idleFilter{config, r}
	}
	// Checked and encoded once: this is most of what a listener is.
	for _, f := range all {
		if err := f.ValidateAll(); err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.GetName(), err)
		}
	}
	out.all, err = proto.MarshalOptions{Deterministic: true}.Marshal(&hcmv3.HttpConnectionManager{HttpFilters: all})
	out.text = string(out.all)
	return out, err
})

type chainsOf struct {
	// all is an encoded HttpConnectionManager that has nothing but the filters, and text the same.
	all  []byte
	text string
	bare []*hcmv3.HttpFilter
	// idle are the discovered configurations of a proxy that asks for none, by filter.
	idle map[string]idleFilter
}

type idleFilter struct {
	config   validated
	resource *Resource
}

func filterChain() ([]*hcmv3.HttpFilter, error) {
	var out []*hcmv3.HttpFilter
	for _, f := range httpFilters {
		if f.inChain {
			continue
		}
		one := &hcmv3.HttpFilter{Name: f.name, Disabled: f.route != nil}
		if f.discovered != nil {
			config, err := f.discovered(&ir.Proxy{})
			if err != nil {
				return nil, fmt.Errorf("filter %s: %w", f.name, err)
			}
			one.ConfigType = &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
				ConfigSource: ads(), TypeUrls: []string{typePrefix + string(config.ProtoReflect().Descriptor().FullName())},
			}}
		} else {
			config, err := pack(f.listener)
			if err != nil {
				return nil, fmt.Errorf("filter %s: %w", f.name, err)
			}
			one.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}
		}
		out = append(out, one)
	}
	return out, nil
}

// filters puts the filters of an HTTP listener into its connection manager. Encoded ones go in as they are: they come behind its other
// fields, whose order is nobody's.
func filters(into *hcmv3.HttpConnectionManager, bare bool) error {
	c, err := chains()
	if err != nil {
		return err
	}
	if bare {
		into.HttpFilters = c.bare
		return nil
	}
	into.ProtoReflect().SetUnknown(c.all)
	return nil
}

// discoveredFilters are the configurations to which the chains of a proxy's HTTP listeners refer; a listener waits for each.
func discoveredFilters(p *ir.Proxy) ([]*Resource, error) {
	if !slices.ContainsFunc(p.Listeners, func(l ir.Listener) bool {
		return slices.ContainsFunc(l.Chains, func(c ir.FilterChain) bool { return c.HTTP != nil && !c.HTTP.Bare })
	}) {
		return nil, nil
	}
	c, err := chains()
	if err != nil {
		return nil, err
	}
	var out []*Resource
	var errs []error
	for _, f := range httpFilters {
		if f.discovered == nil {
			continue
		}
		config, err := f.discovered(p)
		if err == nil && proto.Equal(config, c.idle[f.name].config) {
			out = append(out, c.idle[f.name].resource)
			continue
		}
		var r *Resource
		if err == nil {
			r, err = discoveredFilter(f.name, config)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("filter %s: %w", f.name, err))
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}

func discoveredFilter(name string, config validated) (*Resource, error) {
	packed, err := pack(config)
	if err != nil {
		return nil, err
	}
	return build(TypeExtension, name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed})
}

// perRoute turns filters on for one route: where it has a cache, those up to it, and where the cache asks by it, those behind.
func perRoute(r *ir.Route) (map[string]*anypb.Any, error) {
	out := map[string]*anypb.Any{}
	var errs []error
	cut := slices.IndexFunc(httpFilters, func(f httpFilter) bool { return f.name == cacheName })
	for i, f := range httpFilters {
		if f.route == nil || i > cut && r.Filters.Cache != nil || i <= cut && r.Filters.CacheFill != nil {
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
