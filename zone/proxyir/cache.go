package proxyir

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

const (
	// cacheTier names the listener, routes and cluster by which caches ask for what they don't have.
	cacheTier   = "cache"
	cacheSocket = "cache.sock"
	// cacheRouteHeader leads a cache's request to its route.
	cacheRouteHeader = "x-zoneforge-route"

	defaultStatusHeader = "x-cache"
)

func cache(c *meshv1.Cache) *ir.Cache {
	size := resource.DefaultCacheSize
	if c.MaxSize != nil {
		size = c.GetMaxSize()
	}
	out := &ir.Cache{
		ID: c.GetGeneration(), Folder: resource.CacheFolder(size), MaxBytes: uint64(size) << 20, Upstream: cacheTier,
		IgnoreRequest: c.GetIgnoreRequestCacheControl(), DefaultTTL: c.GetDefaultTtl().AsDuration(), MaxBody: c.GetMaxBodySize(),
		StatusHeader: c.GetStatusHeader(),
	}
	if out.StatusHeader == "" {
		out.StatusHeader = defaultStatusHeader
	}
	for _, name := range c.GetVary() {
		out.Vary = append(out.Vary, strings.ToLower(name))
	}
	slices.Sort(out.Vary)
	return out
}

// caches cuts each route with a cache in two. Envoy's cache sends its requests past the router and all filters behind it, so
// that a rewrite, a retry or a transformation would be lost. So the first half ends at the cache, and leads to a listener of the
// proxy's own; the routes there are the second halves, and do what is left to do.
func (b *builder) caches() {
	var fill []ir.Route
	for i := range b.proxy.Routes {
		table := &b.proxy.Routes[i]
		for j := range table.VirtualHosts {
			host := &table.VirtualHosts[j]
			for k := range host.Routes {
				r := &host.Routes[k]
				if r.Filters.Cache == nil {
					continue
				}
				if r.Forward == nil {
					r.Filters.Cache = nil
					continue
				}
				own := *r.Filters.Cache
				own.PublicOnly = asksIdentity(&r.Filters)
				own.ID = cacheID(table.Name, host.Name, r)
				r.Filters.Cache = &own
				inner := *r
				inner.Filters.Cache, inner.Filters.CacheFill = nil, &own
				inner.Match = ir.RouteMatch{Path: r.Match.Path, Headers: []ir.ValueMatch{{Name: cacheRouteHeader, TextMatch: ir.TextMatch{Kind: ir.TextExact, Value: own.ID}}}}
				inner.ResponseHeaders = farther(table.ResponseHeaders, r.ResponseHeaders)
				fill = append(fill, inner)
				r.Forward = &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: cacheTier, Weight: 1}}}
				r.RequestHeaders, r.ResponseHeaders = ir.HeaderChange{}, ir.HeaderChange{}
			}
		}
	}
	if len(fill) == 0 && !b.takesHTTP() {
		return
	}
	b.clusters[cacheTier] = ir.Cluster{Name: cacheTier, Protocol: ir.HTTP2, ConnectTimeout: policy.DefaultConnectTimeout, Static: &ir.Endpoint{Pipe: cacheSocket}}
	b.proxy.Listeners = append(b.proxy.Listeners, ir.Listener{Name: cacheTier, Pipe: cacheSocket, Direction: ir.Outbound, Tags: b.source,
		Chains: []ir.FilterChain{{Name: cacheTier, HTTP: &ir.HTTPConnection{StatPrefix: cacheTier, RouteConfig: cacheTier}}}})
	b.proxy.Routes = append(b.proxy.Routes, ir.RouteConfig{Name: cacheTier, Behind: true, VirtualHosts: []ir.VirtualHost{{Name: cacheTier, Domains: []string{"*"}, Routes: fill}}})
}

// takesHTTP tells whether the proxy is a gateway that may come to have caches and compositions. It has the listeners for them from
// the beginning: one that came and went with a policy would not listen yet when the first request is on its way to it, and would
// end connections of the next one's requests when it has drained.
func (b *builder) takesHTTP() bool {
	return slices.ContainsFunc(b.proxy.Listeners, func(l ir.Listener) bool {
		return l.Direction == ir.Edge && slices.ContainsFunc(l.Chains, func(c ir.FilterChain) bool { return c.HTTP != nil })
	})
}

// cacheID tells routes apart by what they are and whom they are for, not by what they do: a timeout that changes empties no cache.
func cacheID(table, host string, r *ir.Route) string {
	text, err := json.Marshal([]any{table, host, r.Name, r.Match, r.Filters.Cache})
	if err != nil {
		panic(err) // plain structs
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}

// impersonal are the filters that never ask who a client is. Of routes with any other only what says that it is for everyone is
// kept (RFC 9111, section 3.5), even where the filter took the credentials off the request.
var impersonal = []string{
	"Authorization", "CORS", "Admission", "PolicyLimit", "RateLimit", "Faults", "Bandwidth", "MaxBody", "GRPCWeb", "Compression", "Cache", "CacheFill",
	"Transcode", "ClientAddress", "Transform", "TransformService", "Lua", "ExtProc", "Wasm",
}

func asksIdentity(f *ir.Filters) bool {
	v := reflect.ValueOf(f).Elem()
	for i := range v.NumField() {
		if !v.Field(i).IsZero() && !slices.Contains(impersonal, v.Type().Field(i).Name) {
			return true
		}
	}
	return false
}
