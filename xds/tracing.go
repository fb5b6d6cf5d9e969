package xds

import (
	"errors"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tagv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// connectionTracing names the collector. How much is traced, and with which tags, is for each route to say: a change of that
// drains nothing.
func connectionTracing(t *ir.Tracing, names *known) (*hcmv3.HttpConnectionManager_Tracing, error) {
	if t == nil {
		return nil, nil
	}
	var name string
	var config validated
	var to ir.Collector
	switch {
	case t.Zipkin != nil:
		to, name = t.Zipkin.Collector, "envoy.tracers.zipkin"
		config = &tracev3.ZipkinConfig{
			CollectorCluster: to.Cluster, CollectorHostname: to.Host, CollectorEndpoint: t.Zipkin.Path,
			CollectorEndpointVersion: tracev3.ZipkinConfig_HTTP_JSON, TraceId_128Bit: t.Zipkin.TraceID128,
			SharedSpanContext: wrapperspb.Bool(!t.Zipkin.Separate),
		}
	case t.OpenTelemetry != nil:
		to, name = *t.OpenTelemetry, "envoy.tracers.opentelemetry"
		config = &tracev3.OpenTelemetryConfig{GrpcService: grpcService(to), ServiceName: t.Service}
	case t.Datadog != nil:
		to, name = *t.Datadog, "envoy.tracers.datadog"
		config = &tracev3.DatadogConfig{CollectorCluster: to.Cluster, CollectorHostname: to.Host, ServiceName: t.Service}
	default:
		return nil, errors.New("tracing: has no collector: set one")
	}
	if !names.has(aCluster, to.Cluster) {
		return nil, fmt.Errorf("tracing: cluster %q is not among the proxy's clusters: add it", to.Cluster)
	}
	packed, err := pack(config)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return &hcmv3.HttpConnectionManager_Tracing{
		Provider:          &tracev3.Tracing_Http{Name: name, ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: packed}},
		SpawnUpstreamSpan: wrapperspb.Bool(t.Hop),
	}, nil
}

// routeTracing says what share of requests is traced. A client can't ask for more, as strangers would; a share of 0 also ends
// traces that others began.
func routeTracing(t *ir.RouteTracing) *routev3.Tracing {
	if t == nil {
		return nil
	}
	out := &routev3.Tracing{
		ClientSampling: millionths(0), RandomSampling: millionths(t.Millionths), OverallSampling: millionths(1_000_000),
	}
	if t.Millionths == 0 {
		out.OverallSampling = millionths(0)
	}
	for _, tag := range t.Tags {
		one := &tagv3.CustomTag{Tag: tag.Name}
		if tag.Header != "" {
			one.Type = &tagv3.CustomTag_RequestHeader{RequestHeader: &tagv3.CustomTag_Header{Name: tag.Header, DefaultValue: tag.Default}}
		} else {
			one.Type = &tagv3.CustomTag_Literal_{Literal: &tagv3.CustomTag_Literal{Value: tag.Literal}}
		}
		out.CustomTags = append(out.CustomTags, one)
	}
	return out
}
