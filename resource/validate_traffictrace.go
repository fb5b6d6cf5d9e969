package resource

import (
	"slices"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func validateTrafficTrace(s scope, r *Resource) {
	t := Spec[*meshv1.TrafficTrace](r)
	checkSelectors(s, "selectors", t.GetSelectors())
	c, conf := t.GetConf(), s.at("conf")
	if b := c.GetBackend(); b != nil {
		checkTraceBackend(conf.at("backend"), b)
	}
	if c != nil && c.Sampling != nil {
		checkPercent(conf.at("sampling"), c.GetSampling())
	}
	var names []string
	for i, tag := range c.GetTags() {
		at := conf.at("tags").index(i)
		switch {
		case tag.GetName() == "":
			at.errorf("", "needs a name")
		case slices.Contains(names, tag.GetName()):
			at.at("name").errorf("", "tag %q is there twice", tag.GetName())
		}
		names = append(names, tag.GetName())
		switch {
		case (tag.GetLiteral() != "") == (tag.GetHeader() != nil):
			at.errorf("", "needs one of literal and header")
		case tag.GetHeader() != nil:
			checkHeaderName(at.at("header", "name"), tag.GetHeader().GetName())
		}
	}
}

func checkPercent(s scope, share float64) {
	if share < 0 || share > 100 {
		s.errorf("", "a share is a percentage from 0 to 100")
	}
}

func checkTraceBackend(s scope, b *meshv1.TraceBackend) {
	set := 0
	if b.GetZipkin() != nil {
		set++
		checkZipkin(s.at("zipkin"), b.GetZipkin().GetUrl(), b.GetZipkin().GetApiVersion())
	}
	if b.GetOpenTelemetry() != nil {
		set++
		checkGRPCEndpoint(s.at("openTelemetry", "endpoint"), b.GetOpenTelemetry().GetEndpoint())
	}
	if b.GetDatadog() != nil {
		set++
		checkDatadog(s.at("datadog"), b.GetDatadog().GetAddress(), b.GetDatadog().GetPort())
	}
	switch {
	case b.GetName() != "" && (set > 0 || b.GetType() != 0):
		s.at("name").errorf("keep one of them", "a backend of the Mesh excludes one that is described here")
	case b.GetName() != "":
	case set > 1:
		s.errorf("keep one of them", "zipkin, openTelemetry and datadog exclude each other")
	case set == 0:
		s.errorf("", "needs the name of a backend of the Mesh, or one of zipkin, openTelemetry and datadog")
	case b.GetType() == meshv1.TracingType_TRACING_TYPE_ZIPKIN && b.GetZipkin() == nil,
		b.GetType() == meshv1.TracingType_TRACING_TYPE_OPENTELEMETRY && b.GetOpenTelemetry() == nil,
		b.GetType() == meshv1.TracingType_TRACING_TYPE_DATADOG && b.GetDatadog() == nil:
		s.at("type").errorf("", "the type is not that of what is described")
	}
}

func checkZipkin(s scope, url, version string) {
	if u := checkURL(s.at("url"), url); u != nil && (u.Path == "" || u.Path == "/") {
		s.at("url").errorf("write the path of the API too, such as /api/v2/spans", "the URL has no path")
	}
	switch version {
	case "", "httpJson":
	case "httpJsonV1", "httpProto":
		s.at("apiVersion").errorf("write httpJson", "spans are sent as httpJson only")
	default:
		s.at("apiVersion").errorf(didYouMean(version, []string{"httpJson"}), "expected httpJson, found %q", version)
	}
}

func checkDatadog(s scope, address string, port uint32) {
	checkHostOrIP(s.at("address"), address)
	if port != 0 {
		checkPort(s.at("port"), port)
	}
}

func checkTracing(s scope, t *meshv1.Tracing) {
	var names []string
	for i, b := range t.GetBackends() {
		at, c := s.at("backends").index(i), b.GetConf()
		names = checkBackendName(at, b.GetName(), names)
		if b.Sampling != nil {
			checkPercent(at.at("sampling"), b.GetSampling())
		}
		conf := at.at("conf")
		switch b.GetType() {
		case meshv1.TracingType_TRACING_TYPE_ZIPKIN:
			checkZipkin(conf, c.GetUrl(), c.GetApiVersion())
			checkUnused(conf, map[string]bool{"address": c.GetAddress() != "", "port": c.GetPort() != 0, "splitService": c.GetSplitService(), "endpoint": c.GetEndpoint() != ""})
		case meshv1.TracingType_TRACING_TYPE_DATADOG:
			checkDatadog(conf, c.GetAddress(), c.GetPort())
			checkUnused(conf, map[string]bool{"url": c.GetUrl() != "", "traceId128bit": c.GetTraceId_128Bit(), "endpoint": c.GetEndpoint() != ""})
		case meshv1.TracingType_TRACING_TYPE_OPENTELEMETRY:
			checkGRPCEndpoint(conf.at("endpoint"), c.GetEndpoint())
			checkUnused(conf, map[string]bool{"url": c.GetUrl() != "", "traceId128bit": c.GetTraceId_128Bit(), "address": c.GetAddress() != "", "port": c.GetPort() != 0})
		default:
			at.errorf("", "needs type: zipkin, datadog or openTelemetry")
		}
	}
	checkNamed(s.at("defaultBackend"), t.GetDefaultBackend(), names)
}

// checkUnused reports settings that belong to another type.
func checkUnused(s scope, set map[string]bool) {
	for name, there := range set {
		if there {
			s.at(name).errorf("remove it", "a backend of this type has no %s", name)
		}
	}
}
