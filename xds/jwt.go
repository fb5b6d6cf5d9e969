package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const jwtFilter = "envoy.filters.http.jwt_authn"

// jwtPayload is the key under which later filters find the claims of a good token, whoever issued it: in the dynamic metadata
// of the filter's name.
const jwtPayload = "jwt_payload"

// jwtProviders are those of all routes of a proxy, with what routes require of them. Both have names that tell their content,
// so that routes of before and of after a change each find what they mean, and equal providers share their keys.
func jwtProviders(p *ir.Proxy) (validated, error) {
	out := &jwtv3.JwtAuthentication{}
	var errs []error
	add := func(j *ir.JWT, former bool) {
		requirement, name, err := jwtRequirement(j, func(name string, provider *jwtv3.JwtProvider) {
			if out.Providers == nil {
				out.Providers = map[string]*jwtv3.JwtProvider{}
			}
			if former {
				if out.Providers[name] != nil {
					return
				}
				// Its keys are fetched only where a request still needs them.
				if remote := provider.GetRemoteJwks(); remote != nil {
					remote.AsyncFetch = nil
				}
			}
			out.Providers[name] = provider
		})
		if err != nil {
			errs = append(errs, err)
			return
		}
		if out.RequirementMap == nil {
			out.RequirementMap = map[string]*jwtv3.JwtRequirement{}
		}
		out.RequirementMap[name] = requirement
	}
	// Split routes and virtual hosts share one value.
	seen := map[*ir.JWT]bool{}
	for i := range p.Routes {
		for j := range p.Routes[i].VirtualHosts {
			routes := p.Routes[i].VirtualHosts[j].Routes
			for k := range routes {
				if jwt := routes[k].Filters.JWT; jwt != nil && !seen[jwt] {
					seen[jwt] = true
					add(jwt, false)
				}
			}
		}
	}
	for _, jwt := range p.FormerJWT {
		add(jwt, true)
	}
	return out, errors.Join(errs...)
}

// routeJWT names what a route requires.
func routeJWT(r *ir.Route) (validated, error) {
	if r.Filters.JWT == nil {
		return nil, nil
	}
	_, name, err := jwtRequirement(r.Filters.JWT, func(string, *jwtv3.JwtProvider) {})
	if err != nil {
		return nil, err
	}
	return &jwtv3.PerRouteConfig{RequirementSpecifier: &jwtv3.PerRouteConfig_RequirementName{RequirementName: name}}, nil
}

// jwtRequirement gives what is required and its name, and tells of the providers.
func jwtRequirement(j *ir.JWT, tell func(string, *jwtv3.JwtProvider)) (*jwtv3.JwtRequirement, string, error) {
	if len(j.Providers) == 0 {
		return nil, "", errors.New("jwt: has no provider: name one")
	}
	var any []*jwtv3.JwtRequirement
	var errs []error
	for i := range j.Providers {
		provider, err := jwtProvider(&j.Providers[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("jwt: provider %s: %w", j.Providers[i].Name, err))
			continue
		}
		name, err := named(j.Providers[i].Name, provider)
		errs = append(errs, err)
		tell(name, provider)
		any = append(any, &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: name}})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, "", err
	}
	if j.Optional {
		any = append(any, &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}}})
	}
	out := any[0]
	if len(any) > 1 {
		out = &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: any}}}
	}
	name, err := named("require", out)
	return out, name, err
}

// named is a name with a hash of what it stands for.
func named(name string, m proto.Message) (string, error) {
	bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(bytes)
	return name + "#" + hex.EncodeToString(sum[:8]), nil
}

func jwtProvider(p *ir.JWTProvider) (*jwtv3.JwtProvider, error) {
	out := &jwtv3.JwtProvider{
		Issuer: p.Issuer, Audiences: p.Audiences, Forward: p.Forward, FromParams: p.Params, FromCookies: p.Cookies,
		ForwardPayloadHeader: p.PayloadHeader, PayloadInMetadata: jwtPayload, FailedStatusInMetadata: jwtFailure,
		ClockSkewSeconds: uint32(p.ClockSkew / time.Second), RequireExpiration: p.RequireExpiration, MaxLifetime: unlessZero(p.MaxLifetime),
	}
	err := notNegative(namedDuration{"clock skew", p.ClockSkew}, namedDuration{"max lifetime", p.MaxLifetime})
	for _, h := range p.Headers {
		out.FromHeaders = append(out.FromHeaders, &jwtv3.JwtHeader{Name: h.Name, ValuePrefix: h.Prefix})
	}
	for _, h := range p.ClaimHeaders {
		to := &jwtv3.JwtClaimToHeader{HeaderName: h.Header}
		for _, key := range h.Path {
			to.ClaimPath = append(to.ClaimPath, &jwtv3.JwtClaimToHeader_PathSegment{Key: key})
		}
		out.ClaimToHeaders = append(out.ClaimToHeaders, to)
	}
	switch {
	case (p.Remote != nil) == (len(p.Local) > 0):
		return nil, errors.Join(err, errors.New("needs either remote or local keys"))
	case p.Remote != nil:
		remote, inRemote := remoteKeys(p.Remote)
		err = errors.Join(err, inRemote)
		out.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: remote}
	default:
		out.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: string(p.Local)}}}
	}
	return out, err
}

// jwtFailure is the key under which the filter says why it refused a token, beside the claims of good ones.
const jwtFailure = "jwt_failure"

// localReplies has tokens for another audience answered as all others that don't hold, with 401 (RFC 6750, section 3.1). Envoy
// answers them with 403, which is for good tokens that lack a claim.
func localReplies() *hcmv3.LocalReplyConfig {
	forbidden := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
		Comparison: &accesslogv3.ComparisonFilter{Op: accesslogv3.ComparisonFilter_EQ, Value: &corev3.RuntimeUInt32{DefaultValue: 403, RuntimeKey: "zoneforge.forbidden"}},
	}}}
	// One provider may refuse what another took.
	untaken := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{MetadataFilter: &accesslogv3.MetadataFilter{
		Matcher: &matcherv3.MetadataMatcher{
			Filter: jwtFilter,
			Path:   []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: jwtPayload}}},
			// No claims are null, and without any the filter matches.
			Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_NullMatch_{NullMatch: &matcherv3.ValueMatcher_NullMatch{}}},
		},
	}}}
	audience := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{MetadataFilter: &accesslogv3.MetadataFilter{
		Matcher: &matcherv3.MetadataMatcher{
			Filter: jwtFilter,
			Path: []*matcherv3.MetadataMatcher_PathSegment{
				{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: jwtFailure}}, {Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: "message"}},
			},
			Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: exactly("Audiences in Jwt are not allowed")}},
		},
		MatchIfKeyNotFound: wrapperspb.Bool(false),
	}}}
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
			AndFilter: &accesslogv3.AndFilter{Filters: []*accesslogv3.AccessLogFilter{forbidden, audience, untaken}}}},
		StatusCode: wrapperspb.UInt32(401),
	}}}
}

func remoteKeys(k *ir.RemoteKeys) (*jwtv3.RemoteJwks, error) {
	call, err := httpURI(&k.Call)
	err = errors.Join(err, notNegative(namedDuration{"cache", k.Cache}, namedDuration{"refetch", k.Refetch},
		namedDuration{"base interval", k.BaseInterval}, namedDuration{"max interval", k.MaxInterval}))
	out := &jwtv3.RemoteJwks{HttpUri: call, CacheDuration: unlessZero(k.Cache)}
	if k.Ahead {
		// A listener doesn't wait for keys: one provider that is down must not keep all routes from being served.
		out.AsyncFetch = &jwtv3.JwksAsyncFetch{FastListener: true, FailedRefetchDuration: unlessZero(k.Refetch)}
	}
	if k.Retries > 0 {
		out.RetryPolicy = &corev3.RetryPolicy{NumRetries: wrapperspb.UInt32(k.Retries)}
		if k.BaseInterval > 0 {
			out.RetryPolicy.RetryBackOff = &corev3.BackoffStrategy{BaseInterval: durationpb.New(k.BaseInterval), MaxInterval: unlessZero(k.MaxInterval)}
		}
	}
	return out, err
}

func httpURI(c *ir.HTTPCall) (*corev3.HttpUri, error) {
	if c.URI == "" || c.Cluster == "" || c.Timeout <= 0 {
		return nil, errors.New("a call needs an address, a cluster and a timeout above 0s")
	}
	return &corev3.HttpUri{Uri: c.URI, HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: c.Cluster}, Timeout: durationpb.New(c.Timeout)}, nil
}

// routeClaims refuses tokens that don't say what a route requires. It is a filter of its own right after the one that verifies,
// since that one knows only who issued a token.
func routeClaims(r *ir.Route) (validated, error) {
	j := r.Filters.JWT
	if j == nil || len(j.Claims) == 0 {
		return nil, nil
	}
	var all []*rbacconfigv3.Principal
	for _, c := range j.Claims {
		if len(c.Path) == 0 {
			return nil, errors.New("jwt: a required claim has no name: give it one")
		}
		all = append(all, claimed(c.Path, claimValue(c)))
	}
	principal := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: all}}}
	if j.Optional {
		none := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: claimed(nil, present())}}
		principal = &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{OrIds: &rbacconfigv3.Principal_Set{
			Ids: []*rbacconfigv3.Principal{principal, none}}}}
	}
	return &rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{
		Action: rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{"claims": {
			Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
			Principals:  []*rbacconfigv3.Principal{principal},
		}},
	}}}, nil
}

// claimed compares a claim of the token that was verified.
func claimed(path []string, value *matcherv3.ValueMatcher) *rbacconfigv3.Principal {
	matcher := &matcherv3.MetadataMatcher{Filter: jwtFilter, Value: value}
	for _, key := range append([]string{jwtPayload}, path...) {
		matcher.Path = append(matcher.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}})
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_SourcedMetadata{SourcedMetadata: &rbacconfigv3.SourcedMetadata{
		MetadataMatcher: matcher, MetadataSource: rbacconfigv3.MetadataSource_DYNAMIC,
	}}}
}

func present() *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}
}

// claimValue matches a claim that is one of the values, or a list that holds one. Values are texts, claims may be numbers or
// booleans, too.
func claimValue(c ir.JWTClaim) *matcherv3.ValueMatcher {
	if len(c.Values) == 0 {
		return present()
	}
	var any []*matcherv3.ValueMatcher
	one := func(m *matcherv3.ValueMatcher) {
		list := &matcherv3.ListMatcher{MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: m}}
		any = append(any, m, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: list}})
	}
	for _, v := range c.Values {
		one(&matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: exactly(v)}})
		if b, err := strconv.ParseBool(v); err == nil && v == strconv.FormatBool(b) {
			one(&matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_BoolMatch{BoolMatch: b}})
		}
		if n, err := strconv.ParseFloat(v, 64); err == nil {
			one(&matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_DoubleMatch{DoubleMatch: &matcherv3.DoubleMatcher{
				MatchPattern: &matcherv3.DoubleMatcher_Exact{Exact: n}}}})
		}
		if c.Words {
			any = append(any, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: `(?s:.* )?` + regexp.QuoteMeta(v) + `(?s: .*)?`}}}}})
		}
	}
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{ValueMatchers: any}}}
}
