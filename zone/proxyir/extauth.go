package proxyir

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// defaultExtAuthTimeout bounds how long a service may take that is asked about a request.
const defaultExtAuthTimeout = time.Second

func (b *builder) extAuth(e *meshv1.ExtAuth, r *ir.Route) error {
	out := &ir.ExtAuth{Timeout: defaultExtAuthTimeout, FailOpen: e.GetFailOpen(), StatusOnError: e.GetStatusOnError()}
	if e.GetTimeout() != nil {
		out.Timeout = e.GetTimeout().AsDuration()
	}
	if body := e.GetBody(); body != nil {
		out.Body = &ir.ExtAuthBody{MaxBytes: body.GetMaxBytes(), Partial: body.GetAllowPartial()}
	}
	var err error
	if grpc := e.GetGrpc(); grpc != nil {
		out.GRPC = &ir.ExtAuthGRPC{Context: grpc.GetContextExtensions()}
		out.RequestHeaders = lower(grpc.GetRequestHeaders())
		if out.Cluster, err = b.target(grpc.GetTarget(), ir.HTTP2); err != nil {
			return fmt.Errorf("extAuth: %w", err)
		}
		out.GRPC.Authority = grpc.GetTarget().GetDestination()[resource.TagService]
		if u, err := url.Parse(grpc.GetTarget().GetUrl()); err == nil && u.Host != "" {
			out.GRPC.Authority = u.Host
		}
		// A service that isn't known yet gets its protocol with its first workload.
		service := grpc.GetTarget().GetDestination()[resource.TagService]
		if tag, known := b.Protocols[service]; known && protocolOf(tag) != ir.HTTP2 {
			return fmt.Errorf("extAuth: service %s has no %s grpc or http2: it is asked by gRPC", service, resource.TagProtocol)
		}
	} else {
		http := e.GetHttp()
		out.HTTP = &ir.ExtAuthHTTP{PathPrefix: http.GetPathPrefix(), BackendHeaders: lower(http.GetBackendHeaders()), ClientHeaders: lower(http.GetClientHeaders())}
		out.RequestHeaders = lower(http.GetRequestHeaders())
		for _, name := range out.HTTP.BackendHeaders {
			if name != "authorization" && !slices.Contains(out.RequestHeaders, name) {
				out.HTTP.UnseenHeaders = append(out.HTTP.UnseenHeaders, name)
			}
		}
		if out.Cluster, err = b.target(http.GetTarget(), ir.HTTP1); err != nil {
			return fmt.Errorf("extAuth: %w", err)
		}
	}
	r.Filters.ExtAuth = out
	return nil
}

// lower writes names of headers as Envoy does.
func lower(names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, strings.ToLower(name))
	}
	return out
}
