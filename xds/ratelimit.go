package xds

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimitconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	exprv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rate_limit_descriptors/expr/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const (
	localLimitName  = "envoy.filters.http.local_ratelimit"
	sharedLimitName = "envoy.filters.http.ratelimit"
	// limitStats is the same for all limits, as their names would make statistics without bound.
	limitStats = "rate_limit"
	// limitEntry is the entry of a descriptor that names the limit.
	limitEntry = "limit"
	// noKey stands for clients without a key.
	noKey = "none"
)

// Limits of policies and those of filters stand at two places of the chain, since a request must be within both.
func policyLimit(r *ir.Route) *ir.RateLimit { return r.Filters.PolicyLimit }
func filterLimit(r *ir.Route) *ir.RateLimit { return r.Filters.RateLimit }

// localLimits are the limits that a proxy counts itself.
func localLimits(of func(*ir.Route) *ir.RateLimit) func(*ir.Proxy) (validated, error) {
	return func(p *ir.Proxy) (validated, error) {
		return namedChains(p, func(r *ir.Route) (string, func() ([]namedFilter, error)) {
			l := of(r)
			if l == nil || l.Shared != nil {
				return "", nil
			}
			return l.Name, func() ([]namedFilter, error) {
				config, err := localLimit(l)
				return []namedFilter{{localLimitName, config}}, err
			}
		})
	}
}

func routeLocalLimit(of func(*ir.Route) *ir.RateLimit) func(*ir.Route) (validated, error) {
	return func(r *ir.Route) (validated, error) {
		if l := of(r); l != nil && l.Shared == nil {
			return chooseChain(l.Name)
		}
		return nil, nil
	}
}

// routeSharedLimits asks services, which keep the counts; the filter itself keeps none.
func routeSharedLimits(r *ir.Route) (validated, error) {
	var list []namedFilter
	var errs []error
	for _, l := range []*ir.RateLimit{policyLimit(r), filterLimit(r)} {
		if l == nil || l.Shared == nil {
			continue
		}
		config, err := sharedLimit(l)
		if err != nil {
			errs = append(errs, fmt.Errorf("rate limit %s: %w", l.Name, err))
			continue
		}
		list = append(list, namedFilter{sharedLimitName + "/" + l.Name, config})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return ownChain(list)
}

// always is what counts for all requests.
func always() *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
}

// localLimit gives each client a bucket of its own, and one to all that can't be told apart.
func localLimit(l *ir.RateLimit) (*localratelimitv3.LocalRateLimit, error) {
	bucket := &typev3.TokenBucket{MaxTokens: l.Requests, TokensPerFill: wrapperspb.UInt32(l.Requests), FillInterval: durationpb.New(l.Interval)}
	out := &localratelimitv3.LocalRateLimit{
		StatPrefix: limitStats, TokenBucket: bucket, FilterEnabled: always(), FilterEnforced: always(),
		Status: limitStatus(l), ResponseHeadersToAdd: limitHeaders(l), EnableRetryAfterHeader: l.RetryAfter,
		RateLimitedAsResourceExhausted: true,
	}
	if l.Announce {
		out.EnableXRatelimitHeaders = commonratelimitv3.XRateLimitHeadersRFCVersion_DRAFT_VERSION_03
	}
	if len(l.Keys) == 0 {
		return out, nil
	}
	// A request with all keys takes from its client's bucket alone.
	out.AlwaysConsumeDefaultTokenBucket = wrapperspb.Bool(false)
	out.MaxDynamicDescriptors = wrapperspb.UInt32(l.MaxKeys)
	limit := &routev3.RateLimit{}
	descriptor := &commonratelimitv3.LocalRateLimitDescriptor{TokenBucket: bucket}
	for _, k := range l.Keys {
		action, entry, err := keyAction(k)
		if err != nil {
			return nil, err
		}
		limit.Actions = append(limit.Actions, action)
		// An entry without a value stands for each value.
		descriptor.Entries = append(descriptor.Entries, &commonratelimitv3.RateLimitDescriptor_Entry{Key: entry})
	}
	out.RateLimits = []*routev3.RateLimit{limit}
	out.Descriptors = []*commonratelimitv3.LocalRateLimitDescriptor{descriptor}
	return out, nil
}

// sharedUnits are the intervals that the protocol has.
var sharedUnits = map[time.Duration]typev3.RateLimitUnit{
	time.Second: typev3.RateLimitUnit_SECOND, time.Minute: typev3.RateLimitUnit_MINUTE,
	time.Hour: typev3.RateLimitUnit_HOUR, 24 * time.Hour: typev3.RateLimitUnit_DAY,
}

// sharedLimit sends the limit along with each question, so that the service needs to know no more than the domain.
func sharedLimit(l *ir.RateLimit) (*ratelimitv3.RateLimit, error) {
	unit, ok := sharedUnits[l.Interval]
	if !ok {
		return nil, fmt.Errorf("a shared limit counts in 1s, 1m, 1h or 24h, not in %s", l.Interval)
	}
	out := &ratelimitv3.RateLimit{
		Domain: l.Shared.Domain, Timeout: durationpb.New(l.Shared.Timeout), FailureModeDeny: l.Shared.Deny, StatPrefix: limitStats,
		RateLimitService: &ratelimitconfigv3.RateLimitServiceConfig{
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: l.Shared.Cluster},
			}},
		},
		RateLimitedStatus: limitStatus(l), ResponseHeadersToAdd: limitHeaders(l), EnableRetryAfterHeader: l.RetryAfter,
		RateLimitedAsResourceExhausted: true,
	}
	if l.Announce {
		out.EnableXRatelimitHeaders = ratelimitv3.RateLimit_DRAFT_VERSION_03
	}
	add := func(actions ...*routev3.RateLimit_Action) {
		name := &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
			GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: limitEntry, DescriptorValue: l.Name},
		}}
		out.RateLimits = append(out.RateLimits, &routev3.RateLimit{
			Actions: append([]*routev3.RateLimit_Action{name}, actions...),
			Limit: &routev3.RateLimit_Override{OverrideSpecifier: &routev3.RateLimit_Override_RateLimit{
				RateLimit: &routev3.RateLimit_Override_RateLimitOverride{RequestsPerUnit: l.Requests, Unit: unit},
			}},
		})
	}
	var all []*routev3.RateLimit_Action
	for _, k := range l.Keys {
		action, _, err := keyAction(k)
		if err != nil {
			return nil, err
		}
		all = append(all, action)
	}
	add(all...)
	for _, k := range l.Keys {
		if action := absentAction(k); action != nil {
			add(action)
		}
	}
	return out, nil
}

func limitStatus(l *ir.RateLimit) *typev3.HttpStatus {
	if l.Status == 0 {
		return nil
	}
	return &typev3.HttpStatus{Code: typev3.StatusCode(l.Status)}
}

func limitHeaders(l *ir.RateLimit) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, h := range l.Headers {
		action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		if h.Append {
			action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
		out = append(out, &corev3.HeaderValueOption{
			// Values are meant literally; to Envoy a percent sign begins a command.
			Header: &corev3.HeaderValue{Key: h.Name, Value: strings.ReplaceAll(h.Value, "%", "%%")}, AppendAction: action,
			KeepEmptyValue: h.Value == "",
		})
	}
	return out
}

// keyAction reads a key from requests, and names the entry that it gives.
func keyAction(k ir.LimitKey) (*routev3.RateLimit_Action, string, error) {
	entry := string(k.Kind)
	if k.Name != "" {
		entry += ":" + k.Name
	}
	out := &routev3.RateLimit_Action{}
	switch k.Kind {
	case ir.KeyAddress:
		entry = "masked_remote_address"
		out.ActionSpecifier = &routev3.RateLimit_Action_MaskedRemoteAddress_{MaskedRemoteAddress: &routev3.RateLimit_Action_MaskedRemoteAddress{
			V4PrefixMaskLen: wrapperspb.UInt32(k.IPv4Prefix), V6PrefixMaskLen: wrapperspb.UInt32(k.IPv6Prefix),
		}}
	case ir.KeyHeader:
		out.ActionSpecifier = &routev3.RateLimit_Action_RequestHeaders_{RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{
			HeaderName: k.Name, DescriptorKey: entry,
		}}
	case ir.KeyClaim:
		out.ActionSpecifier = &routev3.RateLimit_Action_Metadata{Metadata: &routev3.RateLimit_Action_MetaData{
			DescriptorKey: entry, Source: routev3.RateLimit_Action_MetaData_DYNAMIC, DefaultValue: noKey,
			MetadataKey: &metadatav3.MetadataKey{Key: "envoy.filters.http.jwt_authn", Path: []*metadatav3.MetadataKey_PathSegment{
				{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: "jwt_payload"}},
				{Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: k.Name}},
			}},
		}}
	case ir.KeyQuery:
		out.ActionSpecifier = &routev3.RateLimit_Action_QueryParameters_{QueryParameters: &routev3.RateLimit_Action_QueryParameters{
			QueryParameterName: k.Name, DescriptorKey: entry,
		}}
	case ir.KeyPath:
		path, err := pack(&exprv3.Descriptor{DescriptorKey: entry, ExprSpecifier: &exprv3.Descriptor_Text{Text: "request.url_path"}})
		if err != nil {
			return nil, "", err
		}
		out.ActionSpecifier = &routev3.RateLimit_Action_Extension{Extension: &corev3.TypedExtensionConfig{Name: "envoy.rate_limit_descriptors.expr", TypedConfig: path}}
	default:
		return nil, "", fmt.Errorf("key %q is not known", k.Kind)
	}
	return out, entry, nil
}

// absentAction is for requests without a key; nil where each has one.
func absentAction(k ir.LimitKey) *routev3.RateLimit_Action {
	entry := "no " + string(k.Kind) + ":" + k.Name
	switch k.Kind {
	case ir.KeyHeader:
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_HeaderValueMatch_{
			HeaderValueMatch: &routev3.RateLimit_Action_HeaderValueMatch{
				DescriptorKey: entry, DescriptorValue: noKey, ExpectMatch: wrapperspb.Bool(false), Headers: []*routev3.HeaderMatcher{{
					Name: k.Name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
				}},
			},
		}}
	case ir.KeyQuery:
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_QueryParameterValueMatch_{
			QueryParameterValueMatch: &routev3.RateLimit_Action_QueryParameterValueMatch{
				DescriptorKey: entry, DescriptorValue: noKey, ExpectMatch: wrapperspb.Bool(false),
				QueryParameters: []*routev3.QueryParameterMatcher{{
					Name:                         k.Name,
					QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true},
				}},
			},
		}}
	}
	return nil
}
