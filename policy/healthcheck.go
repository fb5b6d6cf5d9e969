package policy

import (
	"cmp"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// Defaults of HealthCheck, beside those of Envoy.
const (
	DefaultCheckInterval      = time.Minute
	DefaultCheckTimeout       = 15 * time.Second
	DefaultUnhealthyThreshold = 3
	DefaultHealthyThreshold   = 1
)

// HealthCheckOf returns how endpoints of a destination are checked that speaks a protocol, where grpc tells more than the
// cluster's protocol does; nil without a policy. What doesn't fit the protocol is passed over.
func HealthCheckOf(check *meshv1.HealthCheck, protocol ir.Protocol, grpc bool) *ir.HealthCheck {
	conf := check.GetConf()
	if conf == nil {
		return nil
	}
	out := &ir.HealthCheck{
		Interval:            cmp.Or(bound(conf.GetInterval(), 0), DefaultCheckInterval),
		Timeout:             cmp.Or(bound(conf.GetTimeout(), 0), DefaultCheckTimeout),
		UnhealthyThreshold:  max(1, or(conf.UnhealthyThreshold, DefaultUnhealthyThreshold)),
		HealthyThreshold:    max(1, or(conf.HealthyThreshold, DefaultHealthyThreshold)),
		InitialJitter:       bound(conf.GetInitialJitter(), 0),
		IntervalJitter:      bound(conf.GetIntervalJitter(), 0),
		IntervalJitterShare: conf.GetIntervalJitterPercent(),
		NoTrafficInterval:   bound(conf.GetNoTrafficInterval(), 0),
		OneConnectionEach:   !or(conf.ReuseConnection, true),
		PanicShare:          conf.HealthyPanicThreshold,
		FailOnPanic:         conf.GetFailTrafficOnPanic(),
		EventLog:            conf.GetEventLogPath(),
		LogAllFailures:      conf.GetAlwaysLogHealthCheckFailures(),
	}
	switch h, t, g := conf.GetHttp(), conf.GetTcp(), conf.GetGrpc(); {
	case g != nil && grpc:
		out.GRPC = &ir.GRPCCheck{Service: g.GetServiceName(), Authority: g.GetAuthority()}
	case h != nil && protocol != ir.TCP:
		out.HTTP = &ir.HTTPCheck{Path: cmp.Or(h.GetPath(), "/"), Statuses: sortedSet(h.GetExpectedStatuses())}
		for _, add := range h.GetRequestHeadersToAdd() {
			header := ir.Header{Name: add.GetHeader().GetKey(), Value: add.GetHeader().GetValue()}
			if or(add.Append, true) {
				out.HTTP.Headers.Add = append(out.HTTP.Headers.Add, header)
			} else {
				out.HTTP.Headers.Set = append(out.HTTP.Headers.Set, header)
			}
		}
	case t != nil:
		out.TCP = &ir.TCPCheck{Send: t.GetSend(), Receive: t.GetReceive()}
	}
	return out
}
