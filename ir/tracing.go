package ir

// Tracing sends spans of a connection's requests; exactly one of Zipkin, OpenTelemetry and Datadog is set.
type Tracing struct {
	Zipkin        *Zipkin
	OpenTelemetry *Collector
	Datadog       *Collector
	// Service is the name of whom the spans are about. Zipkin's are about the node's.
	Service string
	// Hop says that the proxy is a hop of its own, with a span for each request that it sends on.
	Hop bool
}

// Collector takes spans.
type Collector struct {
	Cluster string
	// Host is the name of the collector in requests.
	Host string
}

// Zipkin takes spans in Zipkin's JSON.
type Zipkin struct {
	Collector
	Path       string
	TraceID128 bool
	// Separate gives client and server a span each.
	Separate bool
}

// RouteTracing says how many of a route's requests are traced, in millionths, and with which tags.
type RouteTracing struct {
	Millionths uint32
	// Tags are ordered by name.
	Tags []TraceTag
}

// TraceTag is a tag of spans: Literal, or the value of a header.
type TraceTag struct {
	Name    string
	Literal string
	Header  string
	// Default is the value where the header is absent.
	Default string
}
