package proxyir

import (
	"cmp"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// datadogPort is where a Datadog agent listens unless it is told otherwise.
const datadogPort = 8126

// traces sends spans as the most specific TrafficTrace or MeshTrafficTrace says. The collector is a matter of the connections, so
// that another one drains them; shares and tags are one of routes.
func (b *builder) traces() {
	r := policy.MostSpecificForAny(slices.Concat(b.Policies["TrafficTrace"].Of(b.known...), b.Policies["MeshTrafficTrace"].Of(b.known...)), b.MeshName, b.known)
	if r == nil {
		return
	}
	spec, ok := r.Spec.(*meshv1.TrafficTrace)
	if !ok {
		return
	}
	mark := len(b.order)
	backend, sampling, err := b.traceBackend(spec.GetConf())
	var base *ir.Tracing
	if err == nil {
		base, err = b.tracing(backend)
	}
	if err != nil {
		b.reject(r.Key, mark, err)
		return
	}
	b.use(r, "spans of requests")
	route := &ir.RouteTracing{Millionths: uint32(math.Round(sampling * 10_000))}
	for _, t := range spec.GetConf().GetTags() {
		route.Tags = append(route.Tags, ir.TraceTag{Name: t.GetName(), Literal: t.GetLiteral(), Header: t.GetHeader().GetName(), Default: t.GetHeader().GetDefault()})
	}
	for name, value := range map[string]string{"kuma.mesh": b.MeshName, "kuma.zone": b.Zone} {
		if !slices.ContainsFunc(route.Tags, func(t ir.TraceTag) bool { return t.Name == name }) {
			route.Tags = append(route.Tags, ir.TraceTag{Name: name, Literal: value})
		}
	}
	slices.SortFunc(route.Tags, func(x, y ir.TraceTag) int { return cmp.Compare(x.Name, y.Name) })
	for i := range b.proxy.Listeners {
		l := &b.proxy.Listeners[i]
		for n := range l.Chains {
			if http := l.Chains[n].HTTP; http != nil && l.Direction != ir.Own {
				t := *base
				t.Service = b.spanService(l, backend.GetDatadog().GetSplitService())
				http.Tracing = &t
			}
		}
	}
	for i := range b.proxy.Routes {
		for h := range b.proxy.Routes[i].VirtualHosts {
			for n := range b.proxy.Routes[i].VirtualHosts[h].Routes {
				b.proxy.Routes[i].VirtualHosts[h].Routes[n].Tracing = route
			}
		}
	}
}

// spanService is the service whose spans a listener's are.
func (b *builder) spanService(l *ir.Listener, split bool) string {
	switch {
	case l.Direction == ir.Inbound && split:
		return l.Tags[resource.TagService] + "_INBOUND"
	case l.Direction == ir.Inbound:
		return l.Tags[resource.TagService]
	case split && l.Direction == ir.Outbound:
		return b.source[resource.TagService] + "_OUTBOUND_" + l.Tags[resource.TagService]
	}
	return b.source[resource.TagService]
}

// traceBackend is what a policy describes, or the backend of the mesh that it names, with the share in percent.
func (b *builder) traceBackend(c *meshv1.TrafficTrace_Conf) (*meshv1.TraceBackend, float64, error) {
	share := 100.0
	out := c.GetBackend()
	if out == nil || out.GetName() != "" {
		name := cmp.Or(out.GetName(), b.Mesh.GetTracing().GetDefaultBackend())
		backends := b.Mesh.GetTracing().GetBackends()
		i := slices.IndexFunc(backends, func(b *meshv1.Tracing_Backend) bool { return b.GetName() == name })
		switch {
		case name == "":
			return nil, 0, fmt.Errorf("names no backend, and the Mesh has no tracing.defaultBackend: set one of them")
		case i < 0:
			return nil, 0, fmt.Errorf("the Mesh has no backend %q for traces: add it to tracing.backends, or name another", name)
		}
		m := backends[i].GetConf()
		out = &meshv1.TraceBackend{}
		switch backends[i].GetType() {
		case meshv1.TracingType_TRACING_TYPE_ZIPKIN:
			out.Zipkin = &meshv1.ZipkinCollector{Url: m.GetUrl(), TraceId_128Bit: m.GetTraceId_128Bit(), SharedSpanContext: m.SharedSpanContext}
		case meshv1.TracingType_TRACING_TYPE_DATADOG:
			out.Datadog = &meshv1.DatadogCollector{Address: m.GetAddress(), Port: m.GetPort(), SplitService: m.GetSplitService()}
		default:
			out.OpenTelemetry = &meshv1.OpenTelemetryCollector{Endpoint: m.GetEndpoint()}
		}
		if backends[i].Sampling != nil {
			share = backends[i].GetSampling()
		}
	}
	if c != nil && c.Sampling != nil {
		share = c.GetSampling()
	}
	return out, min(max(share, 0), 100), nil
}

func (b *builder) tracing(backend *meshv1.TraceBackend) (*ir.Tracing, error) {
	out := &ir.Tracing{Hop: b.proxy.Kind == ir.Gateway}
	switch {
	case backend.GetZipkin() != nil:
		z := backend.GetZipkin()
		u, err := url.Parse(z.GetUrl())
		if err != nil {
			return nil, err
		}
		cluster, err := b.urlCluster(z.GetUrl(), nil, ir.HTTP1)
		if err != nil {
			return nil, err
		}
		out.Zipkin = &ir.Zipkin{Collector: ir.Collector{Cluster: cluster, Host: u.Host}, Path: u.RequestURI(), TraceID128: z.GetTraceId_128Bit(),
			Separate: z.SharedSpanContext != nil && !z.GetSharedSpanContext()}
	case backend.GetOpenTelemetry() != nil:
		to, err := b.grpcCollector(backend.GetOpenTelemetry().GetEndpoint())
		if err != nil {
			return nil, err
		}
		out.OpenTelemetry = &to
	default:
		d := backend.GetDatadog()
		host := hostPort(d.GetAddress(), cmp.Or(d.GetPort(), datadogPort))
		cluster, err := b.urlCluster("http://"+host, nil, ir.HTTP1)
		if err != nil {
			return nil, err
		}
		out.Datadog = &ir.Collector{Cluster: cluster, Host: host}
	}
	return out, nil
}

// grpcCollector is a receiver of OTLP by gRPC.
func (b *builder) grpcCollector(endpoint string) (ir.Collector, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return ir.Collector{}, err
	}
	cluster, err := b.urlCluster(endpoint, nil, ir.HTTP2)
	return ir.Collector{Cluster: cluster, Host: u.Host}, err
}

func hostPort(host string, port uint32) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, port)
}
