package policy

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Defaults of Timeout.
const (
	DefaultConnectTimeout    = 5 * time.Second
	DefaultIdleTimeout       = time.Hour
	DefaultRequestTimeout    = 15 * time.Second
	DefaultStreamIdleTimeout = 30 * time.Minute
)

// Timeouts bound the traffic from one proxy to one destination. All but Connect may be 0, which means unbounded: where a
// field of the intermediate representation gives 0 another meaning, its builder must translate.
type Timeouts struct {
	// Connect is always above 0.
	Connect time.Duration
	// TCPIdle ends a plain TCP connection without a byte in either direction.
	TCPIdle time.Duration
	// Request is from the whole request received to the whole response.
	Request time.Duration
	// HTTPIdle ends an HTTP connection without requests.
	HTTPIdle time.Duration
	// StreamIdle ends a request without a byte in either direction.
	StreamIdle time.Duration
	// MaxStream is from start to end of a stream.
	MaxStream time.Duration
}

// MergeTimeout lays a Timeout over the defaults; nil gives the defaults. Durations that validation would have refused
// (negative, out of range, a connect timeout of 0) keep their default.
func MergeTimeout(t *meshv1.Timeout) Timeouts {
	conf := t.GetConf()
	out := Timeouts{
		Connect:    bound(conf.GetConnectTimeout(), DefaultConnectTimeout),
		TCPIdle:    bound(conf.GetTcp().GetIdleTimeout(), DefaultIdleTimeout),
		Request:    bound(conf.GetHttp().GetRequestTimeout(), DefaultRequestTimeout),
		HTTPIdle:   bound(conf.GetHttp().GetIdleTimeout(), DefaultIdleTimeout),
		StreamIdle: bound(conf.GetHttp().GetStreamIdleTimeout(), DefaultStreamIdleTimeout),
		MaxStream:  bound(conf.GetHttp().GetMaxStreamDuration(), 0),
	}
	if out.Connect == 0 {
		out.Connect = DefaultConnectTimeout
	}
	return out
}

// GRPCTimeouts are those of MergeTimeout for a destination that speaks gRPC. By default they bound no request: one of a call that
// streams its answers has ended, so the bound would cut the stream, and callers give deadlines of their own.
func GRPCTimeouts(t *meshv1.Timeout) Timeouts {
	out := MergeTimeout(t)
	out.Request = bound(t.GetConf().GetHttp().GetRequestTimeout(), 0)
	grpc := t.GetConf().GetGrpc()
	out.StreamIdle = bound(grpc.GetStreamIdleTimeout(), out.StreamIdle)
	out.MaxStream = bound(grpc.GetMaxStreamDuration(), out.MaxStream)
	return out
}

// bound reads a duration, and takes the fallback where it is absent or can't bound anything.
func bound(d *durationpb.Duration, fallback time.Duration) time.Duration {
	if d == nil || d.CheckValid() != nil || d.AsDuration() < 0 {
		return fallback
	}
	return d.AsDuration()
}
