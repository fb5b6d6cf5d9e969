package ir

import "time"

// ExtAuth asks a service whether a request may pass; exactly one of HTTP and GRPC is set.
type ExtAuth struct {
	// Cluster is that of the service.
	Cluster string
	HTTP    *ExtAuthHTTP
	GRPC    *ExtAuthGRPC
	Timeout time.Duration
	// FailOpen lets requests pass for which there is no answer.
	FailOpen bool
	// StatusOnError answers those that don't pass; 0 means 403.
	StatusOnError uint32
	// RequestHeaders are what the service sees, in lower case; empty means Authorization alone to HTTP, and all to gRPC.
	RequestHeaders []string
	// Body is sent along; nil sends none.
	Body *ExtAuthBody
}

// ExtAuthHTTP asks by HTTP.
type ExtAuthHTTP struct {
	// PathPrefix stands before the path of the request.
	PathPrefix string
	// BackendHeaders of the answer go to the backend, in lower case.
	BackendHeaders []string
	// UnseenHeaders are those of BackendHeaders that are taken out of the request first, as the service doesn't see them.
	UnseenHeaders []string
	// ClientHeaders of a refusal go to the client, in lower case; empty means all.
	ClientHeaders []string
}

// ExtAuthGRPC asks by Envoy's protocol.
type ExtAuthGRPC struct {
	// Authority is the name by which the service is called.
	Authority string
	// Context is what the service is told beside the request.
	Context map[string]string
}

// ExtAuthBody bounds a body that is sent along.
type ExtAuthBody struct {
	MaxBytes uint32
	// Partial sends the beginning of a longer one, which is refused otherwise.
	Partial bool
}
