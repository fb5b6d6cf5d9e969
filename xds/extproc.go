package xds

import (
	"errors"
	"fmt"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// routeExtProc is a chain of the whole filter, since what Envoy lets a route override leaves out timeouts and mutations.
func routeExtProc(r *ir.Route) (validated, error) {
	e := r.Filters.ExtProc
	if e == nil {
		return nil, nil
	}
	mode := &extprocv3.ProcessingMode{
		RequestHeaderMode: headersMode(e.Request.Headers), ResponseHeaderMode: headersMode(e.Response.Headers),
	}
	var errs []error
	body := func(m ir.BodyMode) extprocv3.ProcessingMode_BodySendMode {
		out, ok := bodyModes[m]
		if !ok {
			errs = append(errs, fmt.Errorf("ext_proc: body mode %q is not known: use none, buffered, buffered-partial or streamed", m))
		}
		return out
	}
	mode.RequestBodyMode, mode.ResponseBodyMode = body(e.Request.Body), body(e.Response.Body)
	rules := &mutationv3.HeaderMutationRules{}
	if len(e.AllowHeaders) > 0 {
		expression, err := anyRegex(e.AllowHeaders)
		errs = append(errs, err)
		rules.DisallowAll, rules.AllowExpression = wrapperspb.Bool(true), expression
	}
	if len(e.DenyHeaders) > 0 {
		expression, err := anyRegex(e.DenyHeaders)
		errs = append(errs, err)
		rules.DisallowExpression = expression
	}
	if e.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("ext_proc: timeout %s is not above 0", e.Timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return ownChain([]namedFilter{{"envoy.filters.http.ext_proc", &extprocv3.ExternalProcessor{
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: e.Cluster}},
		},
		FailureModeAllow: e.FailOpen, ProcessingMode: mode, MessageTimeout: durationpb.New(e.Timeout),
		RequestAttributes: e.RequestAttributes, ResponseAttributes: e.ResponseAttributes, MutationRules: rules,
		// What was checked before was checked for the route that the request has.
		RouteCacheAction: extprocv3.ExternalProcessor_RETAIN,
		StatusOnError:    &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
	}}})
}

var bodyModes = map[ir.BodyMode]extprocv3.ProcessingMode_BodySendMode{
	ir.BodyNone:            extprocv3.ProcessingMode_NONE,
	ir.BodyBuffered:        extprocv3.ProcessingMode_BUFFERED,
	ir.BodyBufferedPartial: extprocv3.ProcessingMode_BUFFERED_PARTIAL,
	ir.BodyStreamed:        extprocv3.ProcessingMode_STREAMED,
}

// anyRegex matches what any of the expressions matches.
func anyRegex(expressions []string) (*matcherv3.RegexMatcher, error) {
	return fullRegex("(?:" + strings.Join(expressions, ")|(?:") + ")")
}

func headersMode(send bool) extprocv3.ProcessingMode_HeaderSendMode {
	if send {
		return extprocv3.ProcessingMode_SEND
	}
	return extprocv3.ProcessingMode_SKIP
}
