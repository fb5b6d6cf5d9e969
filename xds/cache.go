package xds

import (
	_ "embed" // the scripts
	"fmt"
	"strings"
	"time"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	asyncfilesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/async_files/v3"
	cachev2 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cache_v2/v3"
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	filecachev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/cache_v2/file_system_http_cache/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// cacheName is the filter at which a route with a cache is cut: what stands behind it belongs to the route by which the cache
// asks, as Envoy shows an answer from the cache to the filters behind it, too.
const cacheName = "zoneforge.cache"

//go:embed cache_key.lua
var cacheKeyScript string

//go:embed cache_fill.lua
var cacheFillScript string

// Envoy's cache keeps no answer with a Vary header, and tells requests apart by host and path alone. So a script before it puts
// what an answer depends on into the path, and one behind it takes that off again and hides Vary from the cache; the first one
// shows it to the client once more.
var cacheKey, cacheFill = script("cache_key", cacheKeyScript), script("cache_fill", cacheFillScript)

// script shares its virtual machine among listeners. It must not make Envoy choose the route again. It is the same for all proxies, and
// travels apart from listeners, as it would be half of each.
func script(name, code string) func(*ir.Proxy) (validated, error) {
	out := &luav3.Lua{
		DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: code}},
		StatPrefix:        name,
		ClearRouteCache:   wrapperspb.Bool(false),
		SharedVmId:        name,
	}
	return func(*ir.Proxy) (validated, error) { return out, nil }
}

func routeCacheKey(r *ir.Route) (validated, error) {
	if r.Filters.Cache == nil {
		return nil, nil
	}
	return cacheContext(r.Filters.Cache), nil
}

func routeCacheFill(r *ir.Route) (validated, error) {
	if r.Filters.CacheFill == nil {
		return nil, nil
	}
	return cacheContext(r.Filters.CacheFill), nil
}

// cacheContext is what the scripts know of a route.
func cacheContext(c *ir.Cache) *luav3.LuaPerRoute {
	return &luav3.LuaPerRoute{FilterContext: &structpb.Struct{Fields: map[string]*structpb.Value{
		"id":     structpb.NewStringValue(c.ID),
		"vary":   structpb.NewStringValue(strings.Join(c.Vary, ",")),
		"ttl":    structpb.NewNumberValue(float64(c.DefaultTTL / time.Second)),
		"body":   structpb.NewNumberValue(float64(c.MaxBody)),
		"public": structpb.NewBoolValue(c.PublicOnly),
	}}}
}

// cacheStatus is what the status header says. An answer that was asked about once more has no age.
const cacheStatus = "%CEL(response.code_details != 'cache.response_from_cache_filter' ? 'MISS' : 'age' in response.headers ? 'HIT' : 'REVALIDATED')%"

// routeCache brings the cache itself, which Envoy can't configure for a route, and before it what tells a hit.
func routeCache(r *ir.Route) (validated, error) {
	c := r.Filters.Cache
	if c == nil {
		return nil, nil
	}
	files, err := pack(&filecachev3.FileSystemHttpCacheV2Config{
		// One pool of threads serves all caches.
		ManagerConfig: &asyncfilesv3.AsyncFileManagerConfig{Id: "cache", ManagerType: &asyncfilesv3.AsyncFileManagerConfig_ThreadPool_{
			ThreadPool: &asyncfilesv3.AsyncFileManagerConfig_ThreadPool{ThreadCount: 2},
		}},
		CachePath:         c.Folder,
		MaxCacheSizeBytes: wrapperspb.UInt64(c.MaxBytes),
	})
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	chain := &filterchainv3.FilterChain{}
	for _, f := range []struct {
		name   string
		config validated
	}{
		{"cache_status", &mutationv3.HeaderMutation{Mutations: &mutationv3.Mutations{ResponseMutations: []*mutationrulesv3.HeaderMutation{{
			Action: &mutationrulesv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: c.StatusHeader, Value: cacheStatus},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			}},
		}}}}},
		{"cache", &cachev2.CacheV2Config{
			TypedConfig: files, IgnoreRequestCacheControlHeader: c.IgnoreRequest, OverrideUpstreamCluster: c.Upstream,
		}},
	} {
		packed, err := pack(f.config)
		if err != nil {
			return nil, fmt.Errorf("cache: %w", err)
		}
		chain.Filters = append(chain.Filters, &corev3.TypedExtensionConfig{Name: f.name, TypedConfig: packed})
	}
	return &filterchainv3.FilterChainConfigPerRoute{FilterChain: chain}, nil
}
