package xds

import (
	"errors"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
)

const extAuthFilter = "envoy.filters.http.ext_authz"

// failedOpen is the header by which Envoy tells the backend that nobody answered whether the request may pass.
const failedOpen = "x-envoy-auth-failure-mode-allowed"

// routeExtAuth stands in a chain of the route's own: Envoy's message for routes can name the service, but says nothing of what
// happens when that fails.
func routeExtAuth(r *ir.Route) (validated, error) {
	e := r.Filters.ExtAuth
	if e == nil {
		return nil, nil
	}
	if (e.HTTP == nil) == (e.GRPC == nil) {
		return nil, errors.New("external authorization: set one of HTTP and gRPC")
	}
	if e.Timeout <= 0 {
		return nil, errors.New("external authorization: needs a timeout above 0")
	}
	out := &extauthzv3.ExtAuthz{
		TransportApiVersion:       corev3.ApiVersion_V3,
		FailureModeAllow:          e.FailOpen,
		FailureModeAllowHeaderAdd: e.FailOpen,
		AllowedHeaders:            anyOf(e.RequestHeaders),
		// A service may be anybody's; what it answers must not break the request.
		ValidateMutations:           true,
		EnforceResponseHeaderLimits: true,
	}
	if e.StatusOnError != 0 {
		out.StatusOnError = &typev3.HttpStatus{Code: typev3.StatusCode(e.StatusOnError)}
	}
	if e.Body != nil {
		out.WithRequestBody = &extauthzv3.BufferSettings{MaxRequestBytes: e.Body.MaxBytes, AllowPartialMessage: e.Body.Partial, PackAsBytes: true}
	}
	var remove []string
	if h := e.HTTP; h != nil {
		out.Services = &extauthzv3.ExtAuthz_HttpService{HttpService: &extauthzv3.HttpService{
			// Of the address only the cluster counts.
			ServerUri: &corev3.HttpUri{
				Uri: "http://" + e.Cluster, HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: e.Cluster}, Timeout: durationpb.New(e.Timeout),
			},
			PathPrefix: h.PathPrefix,
			AuthorizationResponse: &extauthzv3.AuthorizationResponse{
				AllowedUpstreamHeaders: anyOf(h.BackendHeaders), AllowedClientHeaders: anyOf(h.ClientHeaders),
			},
		}}
		remove = slices.Clone(h.UnseenHeaders)
	} else {
		out.Services = &extauthzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: e.Cluster, Authority: e.GRPC.Authority}},
			Timeout:         durationpb.New(e.Timeout),
		}}
	}
	if e.FailOpen {
		remove = append(remove, failedOpen)
	}
	var filters []namedFilter
	if len(remove) > 0 {
		filters = append(filters, withoutHeaders(remove...))
	}
	return ownChain(append(filters, namedFilter{extAuthFilter, out}))
}

// routeExtAuthContext is for the filter in the chain of routeExtAuth, which finds it under its own name: what a service is told
// beside the request can only be said to a route.
func routeExtAuthContext(r *ir.Route) (validated, error) {
	e := r.Filters.ExtAuth
	if e == nil || e.GRPC == nil || len(e.GRPC.Context) == 0 {
		return nil, nil
	}
	return &extauthzv3.ExtAuthzPerRoute{Override: &extauthzv3.ExtAuthzPerRoute_CheckSettings{
		CheckSettings: &extauthzv3.CheckSettings{ContextExtensions: e.GRPC.Context},
	}}, nil
}

// anyOf matches the names of a list, or is nil for none, which leaves Envoy's default.
func anyOf(names []string) *matcherv3.ListStringMatcher {
	if len(names) == 0 {
		return nil
	}
	out := &matcherv3.ListStringMatcher{}
	for _, name := range names {
		out.Patterns = append(out.Patterns, exactly(name))
	}
	return out
}
