package xds

import (
	"encoding/hex"
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	sinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const eventSinkName = "envoy.health_check.event_sinks.file"

// setHealthCheck checks endpoints over the same TLS as requests take, so that an endpoint behind a zone ingress is reached too.
func setHealthCheck(out *clusterv3.Cluster, c *ir.Cluster) error {
	h := c.HealthCheck
	if h == nil {
		return nil
	}
	if c.Static != nil {
		return errors.New("health check: the workload beside the proxy is not checked: name endpoints or hosts")
	}
	if out.CommonLbConfig == nil {
		out.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{}
	}
	errs := []error{notNegative(namedDuration{"health check: interval", h.Interval}, namedDuration{"health check: timeout", h.Timeout},
		namedDuration{"health check: initial jitter", h.InitialJitter}, namedDuration{"health check: interval jitter", h.IntervalJitter},
		namedDuration{"health check: interval without traffic", h.NoTrafficInterval})}
	check := &corev3.HealthCheck{
		Interval: unlessZero(h.Interval), Timeout: unlessZero(h.Timeout), InitialJitter: unlessZero(h.InitialJitter),
		IntervalJitter: unlessZero(h.IntervalJitter), IntervalJitterPercent: h.IntervalJitterShare, NoTrafficInterval: unlessZero(h.NoTrafficInterval),
		UnhealthyThreshold: wrapperspb.UInt32(h.UnhealthyThreshold), HealthyThreshold: wrapperspb.UInt32(h.HealthyThreshold),
		AlwaysLogHealthCheckFailures: h.LogAllFailures,
	}
	if h.OneConnectionEach {
		check.ReuseConnection = wrapperspb.Bool(false)
	}
	if h.EventLog != "" {
		sink, err := pack(&sinkv3.HealthCheckEventFileSink{EventLogPath: h.EventLog})
		errs = append(errs, err)
		check.EventLogger = []*corev3.TypedExtensionConfig{{Name: eventSinkName, TypedConfig: sink}}
	}
	errs = append(errs, setChecker(check, c))
	out.HealthChecks = []*corev3.HealthCheck{check}
	// A host outside the mesh knows itself by its own name, not by the cluster's.
	for _, locality := range out.GetLoadAssignment().GetEndpoints() {
		for _, ep := range locality.GetLbEndpoints() {
			ep.GetEndpoint().HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{Hostname: ep.GetEndpoint().GetHostname()}
		}
	}
	// An endpoint that the zone took away is gone, whatever a check of it says.
	out.IgnoreHealthOnHostRemoval = true

	if h.PanicShare != nil {
		out.CommonLbConfig.HealthyPanicThreshold = &typev3.Percent{Value: *h.PanicShare}
	}
	if h.FailOnPanic {
		// It stands beside no weights of localities. Endpoints' own weights have the same proportion.
		out.CommonLbConfig.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig_{
			ZoneAwareLbConfig: &clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig{RoutingEnabled: &typev3.Percent{}, FailTrafficOnPanic: true},
		}
	}
	return errors.Join(errs...)
}

func setChecker(out *corev3.HealthCheck, c *ir.Cluster) error {
	h := c.HealthCheck
	set := 0
	for _, is := range []bool{h.TCP != nil, h.HTTP != nil, h.GRPC != nil} {
		if is {
			set++
		}
	}
	switch {
	case set > 1:
		return errors.New("health check: checks by more than one of TCP, HTTP and gRPC: set one")
	case h.HTTP != nil:
		return setHTTPCheck(out, h.HTTP, c.Protocol)
	case h.GRPC != nil:
		if c.Protocol != ir.HTTP2 {
			return fmt.Errorf("health check: gRPC is not spoken over %s: use http2", c.Protocol)
		}
		out.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{
			ServiceName: h.GRPC.Service, Authority: h.GRPC.Authority}}
		return nil
	}
	tcp := &corev3.HealthCheck_TcpHealthCheck{}
	if h.TCP != nil {
		if len(h.TCP.Send) > 0 {
			tcp.Send = payload(h.TCP.Send)
		}
		for _, b := range h.TCP.Receive {
			tcp.Receive = append(tcp.Receive, payload(b))
		}
	}
	out.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: tcp}
	return nil
}

func setHTTPCheck(out *corev3.HealthCheck, h *ir.HTTPCheck, protocol ir.Protocol) error {
	add, _, err := headers(h.Headers)
	http := &corev3.HealthCheck_HttpHealthCheck{
		Path: h.Path, RequestHeadersToAdd: add,
		// Without it one bad answer would outdo the threshold. Statuses that are expected come first.
		RetriableStatuses: []*typev3.Int64Range{{Start: 100, End: 600}},
	}
	for _, status := range h.Statuses {
		http.ExpectedStatuses = append(http.ExpectedStatuses, &typev3.Int64Range{Start: int64(status), End: int64(status) + 1})
	}
	switch protocol {
	case ir.HTTP1:
	case ir.HTTP2:
		http.CodecClientType = typev3.CodecClientType_HTTP2
	default:
		return fmt.Errorf("health check: HTTP is not spoken over %s: use http1 or http2", protocol)
	}
	out.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: http}
	return err
}

func payload(b []byte) *corev3.HealthCheck_Payload {
	return &corev3.HealthCheck_Payload{Payload: &corev3.HealthCheck_Payload_Text{Text: hex.EncodeToString(b)}}
}
