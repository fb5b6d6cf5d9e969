package xds

import (
	"errors"
	"fmt"
	"strconv"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/zoneforge/zoneforge/ir"
)

// accessLogs are the logs of a chain. Those of HTTP look into the route's metadata whether it wants them, so that a change of what
// is logged comes with routes and drains nothing.
func accessLogs(logs []ir.AccessLog, byRoute bool, names *known) ([]*accesslogv3.AccessLog, error) {
	var out []*accesslogv3.AccessLog
	var errs []error
	for i := range logs {
		one, err := accessLog(&logs[i], byRoute, names)
		errs = append(errs, inEach(err, fmt.Sprintf("access log %q", logs[i].Name)))
		out = append(out, one)
	}
	return out, errors.Join(errs...)
}

func accessLog(l *ir.AccessLog, byRoute bool, names *known) (*accesslogv3.AccessLog, error) {
	out := &accesslogv3.AccessLog{Name: l.Name}
	if byRoute {
		wanted, err := pack(&celv3.ExpressionFilter{
			Expression: fmt.Sprintf("xds.route_metadata.filter_metadata[%s][%s] == true", strconv.Quote(ir.LogMetadata), strconv.Quote(l.Name)),
		})
		if err != nil {
			return nil, err
		}
		out.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
			ExtensionFilter: &accesslogv3.ExtensionFilter{Name: "cel", ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: wanted}},
		}}
	}
	var config validated
	switch {
	case (l.Text == "") == (len(l.JSON) == 0):
		return nil, errors.New("needs one of text and json")
	case (l.Pipe == "") == (l.Cluster == ""):
		return nil, errors.New("needs one of a pipe and a cluster")
	case l.Pipe != "":
		config = fileLog(l)
	case !names.has(aCluster, l.Cluster):
		return nil, fmt.Errorf("cluster %q is not among the proxy's clusters: add it", l.Cluster)
	default:
		config = otlpLog(l)
	}
	packed, err := pack(config)
	if err != nil {
		return nil, err
	}
	out.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: packed}
	return out, nil
}

// fileLog says in each line where the launcher shall put it: before a text, and as the first member, of no name, of an object.
func fileLog(l *ir.AccessLog) *filev3.FileAccessLog {
	format := &corev3.SubstitutionFormatString{}
	if l.Text != "" {
		format.Format = &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: l.To + ";" + l.Text + "\n"},
		}}
	} else {
		object := &structpb.Struct{Fields: map[string]*structpb.Value{"": structpb.NewStringValue(l.To)}}
		for _, m := range l.JSON {
			object.Fields[m.Name] = structpb.NewStringValue(m.Value)
		}
		format.Format = &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: object}
	}
	return &filev3.FileAccessLog{Path: l.Pipe, AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: format}}
}

func otlpLog(l *ir.AccessLog) *otelv3.OpenTelemetryAccessLogConfig {
	out := &otelv3.OpenTelemetryAccessLogConfig{
		GrpcService: grpcService(ir.Collector{Cluster: l.Cluster, Host: l.Authority}),
		LogName:     l.Name, DisableBuiltinLabels: true, ResourceAttributes: attributes(l.Resource),
	}
	if l.Text != "" {
		out.Body = otlpText(l.Text)
	} else {
		out.Attributes = attributes(l.JSON)
	}
	return out
}

func otlpText(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}

func attributes(all []ir.Header) *commonv1.KeyValueList {
	out := &commonv1.KeyValueList{}
	for _, a := range all {
		out.Values = append(out.Values, &commonv1.KeyValue{Key: a.Name, Value: otlpText(a.Value)})
	}
	return out
}

func grpcService(c ir.Collector) *corev3.GrpcService {
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: c.Cluster, Authority: c.Host},
	}}
}

// routeLog is the metadata by which a route asks for logs.
func routeLog(l *ir.RouteLog) *corev3.Metadata {
	if l == nil {
		return nil
	}
	fields := map[string]*structpb.Value{ir.LogDestination: structpb.NewStringValue(l.Destination)}
	for _, name := range l.Names {
		fields[name] = structpb.NewBoolValue(true)
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{ir.LogMetadata: {Fields: fields}}}
}
