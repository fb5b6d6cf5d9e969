package proxyir

import (
	"cmp"
	"maps"
	"net/url"
	"slices"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

const (
	// metricsName is that of the listener for metrics, of its routes and of its cluster.
	metricsName = "metrics"
	// metricsSocket is where the launcher serves metrics, in the directory in which the proxy runs, and launcherPath their path.
	metricsSocket = "agent.sock"
	launcherPath  = "/metrics"
	// scrapeHeader tells the launcher what to show.
	scrapeHeader = "x-zoneforge-scrape"

	defaultMetricsPort    = 5670
	defaultMetricsPath    = "/metrics"
	defaultMetricsService = "dataplane-metrics"
)

// metricsOf is the backend in use; nil for none.
func metricsOf(m *meshv1.Mesh) *meshv1.Metrics_Conf {
	for _, backend := range m.GetMetrics().GetBackends() {
		if name := m.GetMetrics().GetEnabledBackend(); name != "" && backend.GetName() == name {
			if backend.GetConf() == nil {
				return &meshv1.Metrics_Conf{}
			}
			return backend.GetConf()
		}
	}
	return nil
}

// ScraperTags are the destination's tags of the TrafficPermissions that say who may scrape the proxies of a mesh; nil where none
// does.
func ScraperTags(m *meshv1.Mesh) map[string]string {
	c := metricsOf(m)
	switch {
	case c == nil || c.GetSkipMtls() || m.GetMtls().GetEnabledBackend() == "":
		return nil
	case len(c.GetTags()) > 0:
		return c.GetTags()
	}
	return map[string]string{resource.TagService: defaultMetricsService}
}

// metrics opens the port for metrics: one path and one method, and nothing else of what the launcher could answer. A scraper needs
// a certificate of the mesh and a permission, unless the mesh says otherwise; without mutual TLS only the machine itself is answered.
func (b *builder) metrics() {
	c := metricsOf(b.Mesh)
	if c == nil {
		return
	}
	l := ir.Listener{Name: metricsName, Address: b.Dataplane.GetNetworking().GetAddress(), Port: cmp.Or(c.GetPort(), defaultMetricsPort), Direction: ir.Own}
	chain := ir.FilterChain{Name: metricsName, HTTP: &ir.HTTPConnection{StatPrefix: metricsName, RouteConfig: metricsName, Edge: true}}
	var authorization *ir.Authorization
	service := b.source[resource.TagService]
	switch {
	case c.GetSkipMtls():
	case !b.mtls() || service == "": // without a service there is no certificate to serve with
		l.Address = "127.0.0.1"
	default:
		chain.TLS = &ir.DownstreamTLS{Certificates: []string{b.secret("svid:" + service)}, ClientValidation: b.secret("bundle"), ALPN: []string{"h2", "http/1.1"}}
		tags := ScraperTags(b.Mesh)
		allowed := b.authorize(b.inZone(tags))
		authorization = &allowed
		b.usePermissions(tags, "scrapers of its metrics")
	}
	get := ir.TextMatch{Kind: ir.TextExact, Value: "GET"}
	b.clusters[metricsName] = ir.Cluster{Name: metricsName, Protocol: ir.HTTP1, ConnectTimeout: policy.DefaultConnectTimeout, Static: &ir.Endpoint{Pipe: metricsSocket}}
	b.proxy.Routes = append(b.proxy.Routes, ir.RouteConfig{Name: metricsName, VirtualHosts: []ir.VirtualHost{{Name: metricsName, Domains: []string{"*"}, Routes: []ir.Route{
		{
			Name: metricsName, Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathExact, Value: cmp.Or(c.GetPath(), defaultMetricsPath)}, Method: &get},
			Filters: ir.Filters{Authorization: authorization},
			Forward: &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: metricsName, Weight: 1}},
				Path: &ir.PathRewrite{Kind: ir.RewriteFull, Value: launcherPath}},
			RequestHeaders: ir.HeaderChange{Set: []ir.Header{{Name: scrapeHeader, Value: b.scrape(c)}}},
		},
		{Name: "nothing-else", Match: anyPath, Direct: &ir.DirectResponse{Status: 404}},
	}}}})
	l.Chains = []ir.FilterChain{chain}
	b.proxy.Listeners = append(b.proxy.Listeners, l)
}

// scrape is what the launcher is told: labels, and what of Envoy's metrics to show.
func (b *builder) scrape(c *meshv1.Metrics_Conf) string {
	labels := map[string]string{}
	maps.Copy(labels, c.GetLabels())
	labels["mesh"], labels["zone"], labels["service"], labels["dataplane"] = b.MeshName, b.Zone, b.source[resource.TagService], b.Name
	query := url.Values{}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		query.Add("label", name+"="+labels[name])
	}
	if c.GetEnvoy().GetUsedOnly() {
		query.Set("usedonly", "")
	}
	if e := c.GetEnvoy().GetFilterRegex(); e != "" {
		query.Set("filter", e)
	}
	return query.Encode()
}
