package ir

import "time"

// HealthCheck asks a cluster's endpoints whether they are well. At most one of TCP, HTTP and GRPC is set; without any a
// connection is opened.
type HealthCheck struct {
	Interval           time.Duration
	Timeout            time.Duration
	UnhealthyThreshold uint32
	HealthyThreshold   uint32
	InitialJitter      time.Duration
	IntervalJitter     time.Duration
	// IntervalJitterShare is in percent of the interval.
	IntervalJitterShare uint32
	// NoTrafficInterval holds while there never was a request; 0 keeps Envoy's default.
	NoTrafficInterval time.Duration
	// OneConnectionEach opens a connection for each check.
	OneConnectionEach bool
	// PanicShare is the percentage of healthy endpoints below which all are taken as healthy; nil keeps Envoy's default.
	PanicShare *float64
	// FailOnPanic fails requests instead.
	FailOnPanic bool
	// EventLog is a file at the proxy; empty for none.
	EventLog string
	// LogAllFailures writes each failed check there, not changes alone.
	LogAllFailures bool

	TCP  *TCPCheck
	HTTP *HTTPCheck
	GRPC *GRPCCheck
}

// TCPCheck sends bytes and wants some in return.
type TCPCheck struct {
	Send    []byte
	Receive [][]byte
}

// HTTPCheck sends a GET request.
type HTTPCheck struct {
	Path string
	// Headers to add; their Set replaces, their Add stands beside what is there.
	Headers HeaderChange
	// Statuses that are well, sorted.
	Statuses []uint32
}

// GRPCCheck asks by gRPC's health protocol.
type GRPCCheck struct {
	Service   string
	Authority string
}
