package proxyir_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

// cached is a gateway with routes that keep answers, and what asks for the rest.
func cached(t *testing.T, change func(rule *meshv1.MeshGatewayRoute_Rule, c *meshv1.Cache)) (*ir.Proxy, map[string]ir.Route) {
	t.Helper()
	c := &meshv1.Cache{Vary: []string{"X-B", "x-a"}, MaxSize: proto.Uint32(2)}
	one, other := route("one", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/a")), route("other", nil, path(meshv1.MatchType_MATCH_TYPE_PREFIX, "/b"))
	for i, r := range []*resource.Resource{one, other} {
		rule := resource.Spec[*meshv1.MeshGatewayRoute](r).GetConf().GetHttp().GetRules()[0]
		rule.Filters = []*meshv1.Filter{{Filter: &meshv1.Filter_Cache{Cache: c}}, {Filter: &meshv1.Filter_Compression{Compression: &meshv1.Compression{}}}}
		if i == 0 {
			c = &meshv1.Cache{Vary: c.GetVary(), MaxSize: c.MaxSize}
			rule.Filters[0] = &meshv1.Filter{Filter: &meshv1.Filter_Cache{Cache: c}}
			change(rule, c)
		}
	}
	in := gatewayInput()
	in.Policies["MeshGatewayRoute"] = policy.NewList(one, other)
	r, err := proxyir.Gateway(in)
	p, _ := accepted(t, r, err)
	out := map[string]ir.Route{}
	for _, table := range p.Routes {
		for _, host := range table.VirtualHosts {
			for _, r := range host.Routes {
				if r.Filters.CacheFill != nil {
					out["fill "+r.Filters.CacheFill.ID] = r
				}
				if r.Filters.Cache != nil {
					out[table.Name+" "+host.Name+" "+r.Name] = r
				}
			}
		}
	}
	return p, out
}

func TestCacheAsksThroughRoutesOfItsOwn(t *testing.T) {
	p, routes := cached(t, func(*meshv1.MeshGatewayRoute_Rule, *meshv1.Cache) {})
	one, other, tls := routes["gateway:80 * one/0/0"], routes["gateway:80 * other/0/0"], routes["gateway:443:* * one/0/0"]
	ids := map[string]bool{}
	for name, r := range map[string]ir.Route{"one": one, "other": other, "by TLS": tls} {
		c := r.Filters.Cache
		if c == nil {
			t.Fatalf("%s keeps nothing: %v", name, routes)
		}
		ids[c.ID] = true
		if c.Folder != "cache/2" || c.MaxBytes != 2<<20 || len(c.Vary) != 2 || c.Vary[0] != "x-a" || c.Vary[1] != "x-b" || c.StatusHeader != "x-cache" || c.PublicOnly {
			t.Errorf("%s: %+v", name, c)
		}
		fill := routes["fill "+c.ID]
		if r.Forward.Clusters[0].Cluster != c.Upstream || fill.Filters.Cache != nil || fill.Forward.Clusters[0].Cluster == c.Upstream || fill.Match.Path != r.Match.Path || len(fill.Match.Headers) != 1 || fill.Match.Headers[0].Value != c.ID {
			t.Errorf("%s asks by %+v", name, fill)
		}
	}
	if len(ids) != 3 {
		t.Errorf("routes share what they keep: %v", ids)
	}
	found := 0
	for _, l := range p.Listeners {
		if l.Pipe == "cache.sock" {
			found++
		}
	}
	for _, c := range p.Clusters {
		if c.Name == one.Filters.Cache.Upstream && c.Static != nil && c.Static.Pipe == "cache.sock" {
			found++
		}
	}
	if found != 2 {
		t.Errorf("the way from the cache is not there: %+v", p.Listeners)
	}
}

// What a route keeps outlives changes of what it does, but not of whom it is for.
func TestCacheIsEmptiedByWhatMatters(t *testing.T) {
	id := func(change func(rule *meshv1.MeshGatewayRoute_Rule, c *meshv1.Cache)) string {
		_, routes := cached(t, change)
		return routes["gateway:80 * one/0/0"].Filters.Cache.ID
	}
	first := id(func(*meshv1.MeshGatewayRoute_Rule, *meshv1.Cache) {})
	if got := id(func(rule *meshv1.MeshGatewayRoute_Rule, _ *meshv1.Cache) {
		rule.Filters = append(rule.Filters, &meshv1.Filter{Filter: &meshv1.Filter_ResponseHeader{ResponseHeader: &meshv1.HeaderChange{Remove: []string{"x"}}}})
	}); got != first {
		t.Error("a header change empties the cache")
	}
	for name, change := range map[string]func(rule *meshv1.MeshGatewayRoute_Rule, c *meshv1.Cache){
		"generation": func(_ *meshv1.MeshGatewayRoute_Rule, c *meshv1.Cache) { c.Generation = "two" },
		"vary":       func(_ *meshv1.MeshGatewayRoute_Rule, c *meshv1.Cache) { c.Vary = c.Vary[:1] },
		"condition": func(rule *meshv1.MeshGatewayRoute_Rule, _ *meshv1.Cache) {
			rule.Matches[0].Headers = []*meshv1.ValueMatch{{Name: "x-team", Match: meshv1.MatchType_MATCH_TYPE_PRESENT}}
		},
	} {
		if id(change) == first {
			t.Errorf("another %s leaves what was kept", name)
		}
	}
}
