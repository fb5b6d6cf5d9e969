package ir

// AccessLog writes a line for a request or a connection; exactly one of Pipe and Cluster is set, and one of Text and JSON.
type AccessLog struct {
	// Name is that by which routes ask for it.
	Name string
	// Pipe is the file from which the proxy's launcher takes lines, and To says where it shall put them: KIND;TARGET.
	Pipe string
	To   string
	// Cluster takes records by OTLP over gRPC, as those of Authority; Resource describes who sends them.
	Cluster   string
	Authority string
	Resource  []Header
	// Text is a line in Envoy's format, without its end; JSON are the members of an object, ordered by name.
	Text string
	JSON []Header
}

// RouteLog says which logs of the connection get a line for the requests of a route.
type RouteLog struct {
	// Names are those of logs, sorted.
	Names []string
	// Destination is the service that the requests are for.
	Destination string
}

// LogMetadata is the name under which a route's RouteLog is kept in its metadata, with LogDestination for the destination.
const (
	LogMetadata    = "zoneforge.log"
	LogDestination = "destination"
)
