package proxyir

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// What a policy that says nothing of it gets.
const (
	defaultCallTimeout   = 5 * time.Second
	defaultKeyCache      = 10 * time.Minute
	defaultKeyRefetch    = time.Second
	defaultKeyRetries    = 2
	defaultKeyRetryAfter = 100 * time.Millisecond
)

// jwt is what a filter asks of tokens.
func (b *builder) jwt(j *meshv1.Jwt) (*ir.JWT, error) {
	out := &ir.JWT{Optional: j.GetOptional()}
	for _, name := range slices.Sorted(maps.Keys(j.GetProviders())) {
		p, err := b.jwtProvider(name, j.GetProviders()[name])
		if err != nil {
			return nil, fmt.Errorf("jwt: provider %s: %w", name, err)
		}
		out.Providers = append(out.Providers, p)
	}
	for _, c := range j.GetRequireClaims() {
		claim := ir.JWTClaim{Path: resource.ClaimPath(c.GetClaim()), Values: c.GetValues(), Words: c.GetClaim() == "scope" || c.GetClaim() == "scp"}
		if c.Contains != nil {
			claim.Words = c.GetContains()
		}
		out.Claims = append(out.Claims, claim)
	}
	return out, nil
}

func (b *builder) jwtProvider(name string, p *meshv1.JwtProvider) (ir.JWTProvider, error) {
	out := ir.JWTProvider{
		Name: name, Issuer: p.GetIssuer(), Audiences: p.GetAudiences(), Forward: p.GetForward(), Params: p.GetFromParams(), Cookies: p.GetFromCookies(),
		PayloadHeader: p.GetForwardPayloadHeader(), ClockSkew: p.GetClockSkew().AsDuration(), RequireExpiration: p.GetRequireExpiration(),
		MaxLifetime: p.GetMaxLifetime().AsDuration(),
	}
	for _, h := range p.GetFromHeaders() {
		out.Headers = append(out.Headers, ir.TokenHeader{Name: h.GetName(), Prefix: h.GetValuePrefix()})
	}
	for _, c := range p.GetClaimToHeaders() {
		out.ClaimHeaders = append(out.ClaimHeaders, ir.ClaimHeader{Header: strings.ToLower(c.GetHeader()), Path: resource.ClaimPath(c.GetClaim())})
	}
	if remote := p.GetRemoteJwks(); remote != nil {
		call, err := b.call(remote.GetHttpUri())
		if err != nil {
			return out, fmt.Errorf("remoteJwks: %w", err)
		}
		out.Remote = &ir.RemoteKeys{
			Call: call, Cache: orDefault(remote.GetCacheDuration(), defaultKeyCache),
			Ahead: true, Refetch: orDefault(remote.GetAsyncFetch().GetFailedRefetchDuration(), defaultKeyRefetch),
			Retries: defaultKeyRetries, BaseInterval: orDefault(remote.GetRetry().GetBaseInterval(), defaultKeyRetryAfter),
			MaxInterval: remote.GetRetry().GetMaxInterval().AsDuration(),
		}
		if f := remote.GetAsyncFetch(); f != nil && f.Enabled != nil {
			out.Remote.Ahead = f.GetEnabled()
		}
		if r := remote.GetRetry(); r != nil && r.Attempts != nil {
			out.Remote.Retries = r.GetAttempts()
		}
		return out, nil
	}
	keys, err := b.data(p.GetLocalJwks())
	if err == nil {
		// A document is checked when it is applied, a Secret only here.
		err = resource.CheckKeys(keys)
	}
	if err != nil {
		return out, fmt.Errorf("localJwks: %w", err)
	}
	out.Local = keys
	return out, nil
}

func orDefault(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

// call is an address that the proxy itself calls.
func (b *builder) call(u *meshv1.HttpUri) (ir.HTTPCall, error) {
	out := ir.HTTPCall{URI: u.GetUri(), Timeout: orDefault(u.GetTimeout(), defaultCallTimeout)}
	var err error
	if u.GetCluster() == "" {
		out.Cluster, err = b.urlCluster(u.GetUri(), u.GetCaCert(), ir.HTTP1)
		return out, err
	}
	b.expect("cluster", u.GetCluster(), "or leave cluster out to call the host of the uri")
	out.Cluster, err = b.cluster(map[string]string{resource.TagService: u.GetCluster()})
	return out, err
}
