package ir

import "time"

// ExtProc sends messages to a gRPC service that may change them.
type ExtProc struct {
	Cluster  string
	Request  ExtProcPart
	Response ExtProcPart
	Timeout  time.Duration
	// FailOpen lets messages pass when the service fails.
	FailOpen bool
	// AllowHeaders and DenyHeaders are expressions of names of headers; without AllowHeaders all may be changed but those that route.
	AllowHeaders []string
	DenyHeaders  []string
	// RequestAttributes and ResponseAttributes are Envoy's names of what is sent along.
	RequestAttributes  []string
	ResponseAttributes []string
}

// ExtProcPart is what of a message is sent.
type ExtProcPart struct {
	Headers bool
	Body    BodyMode
}

// BodyMode says how a body is sent.
type BodyMode string

// Body modes.
const (
	BodyNone            BodyMode = "none"
	BodyBuffered        BodyMode = "buffered"
	BodyBufferedPartial BodyMode = "buffered-partial"
	BodyStreamed        BodyMode = "streamed"
)
