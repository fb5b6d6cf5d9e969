package xds

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

const (
	// directBodyDefault is the longest body in bytes that Envoy takes for a direct response unless it is told otherwise.
	directBodyDefault = 4096
	// defaultBaseInterval is Envoy's own, which has to be spelled out where only the longest interval is given.
	defaultBaseInterval = 25 * time.Millisecond
	statusCodesCond     = "retriable-status-codes"
)

func routeConfig(c *ir.RouteConfig, names *known) (*Resource, error) {
	// Domains are host names, while clients of any port but 80 and 443 send the port along.
	out := &routev3.RouteConfiguration{Name: c.Name, IgnorePortInHostMatching: true}
	var errs []error
	hostOf := map[string]string{}
	longestBody := 0
	for i := range c.VirtualHosts {
		host := &c.VirtualHosts[i]
		built := &routev3.VirtualHost{Name: host.Name, Domains: host.Domains}
		for _, domain := range host.Domains {
			// Envoy would refuse the whole table.
			if other, ok := hostOf[strings.ToLower(domain)]; ok {
				errs = append(errs, fmt.Errorf("virtual host %q: domain %q is also in virtual host %q: merge them", host.Name, domain, other))
			}
			hostOf[strings.ToLower(domain)] = host.Name
		}
		for n := range host.Routes {
			r := &host.Routes[n]
			one, err := route(r, names)
			if err == nil {
				err = one.ValidateAll()
			}
			if err == nil && names.has(bareRoutes, c.Name) && len(one.TypedPerFilterConfig) > 0 {
				err = errors.New("turns a filter on, and its listener has none: let the listener have them")
			}
			if err != nil {
				errs = append(errs, inEach(err, fmt.Sprintf("virtual host %q: route %q", host.Name, r.Name)))
				continue
			}
			if r.Direct != nil {
				longestBody = max(longestBody, len(r.Direct.Body))
			}
			built.Routes = append(built.Routes, one)
		}
		out.VirtualHosts = append(out.VirtualHosts, built)
	}
	if longestBody > directBodyDefault {
		out.MaxDirectResponseBodySizeBytes = wrapperspb.UInt32(uint32(longestBody))
	}
	add, remove, err := headers(c.ResponseHeaders)
	out.ResponseHeadersToAdd, out.ResponseHeadersToRemove = add, remove
	errs = append(errs, inEach(err, "response headers"))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r, err := build(TypeRoute, c.Name, out)
	if err != nil {
		return nil, err
	}
	r.Behind = c.Behind
	return r, nil
}

func route(r *ir.Route, names *known) (*routev3.Route, error) {
	var errs []error
	match, err := routeMatch(r.Match)
	errs = append(errs, err)
	filters, err := perRoute(r)
	errs = append(errs, err)
	out := &routev3.Route{Name: r.Name, Match: match, TypedPerFilterConfig: filters, Metadata: routeLog(r.Log), Tracing: routeTracing(r.Tracing)}

	switch {
	case actions(r) > 1:
		errs = append(errs, errors.New("has more than one of forward, redirect and direct response: set one"))
	case r.Forward != nil:
		action, err := forward(r.Forward, r.Match.Path, names)
		errs = append(errs, err)
		out.Action = &routev3.Route_Route{Route: action}
	case r.Redirect != nil:
		action, err := redirect(r.Redirect, r.Match.Path)
		errs = append(errs, err)
		out.Action = &routev3.Route_Redirect{Redirect: action}
	case r.Direct != nil:
		direct := &routev3.DirectResponseAction{Status: r.Direct.Status}
		if r.Direct.Body != "" {
			direct.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: r.Direct.Body}}
		}
		out.Action = &routev3.Route_DirectResponse{DirectResponse: direct}
	default:
		errs = append(errs, errors.New("neither forwards, redirects nor answers directly: set one"))
	}

	out.RequestHeadersToAdd, out.RequestHeadersToRemove, err = headers(r.RequestHeaders)
	errs = append(errs, inEach(err, "request headers"))
	out.ResponseHeadersToAdd, out.ResponseHeadersToRemove, err = headers(r.ResponseHeaders)
	errs = append(errs, inEach(err, "response headers"))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// actions counts what a route does.
func actions(r *ir.Route) int {
	n := 0
	for _, set := range []bool{r.Forward != nil, r.Redirect != nil, r.Direct != nil} {
		if set {
			n++
		}
	}
	return n
}

func forward(f *ir.Forward, path ir.PathMatch, names *known) (*routev3.RouteAction, error) {
	// Envoy's defaults are 15 seconds and 5 minutes; a zero that is spelled out means none.
	out := &routev3.RouteAction{Timeout: durationpb.New(f.Timeout), IdleTimeout: durationpb.New(f.IdleTimeout)}
	errs := []error{notNegative(namedDuration{"timeout", f.Timeout},
		namedDuration{"idle timeout", f.IdleTimeout}, namedDuration{"maximal duration", f.MaxDuration})}
	if f.MaxDuration != 0 {
		out.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(f.MaxDuration)}
	}
	weighted, err := shares(f.Clusters, names)
	errs = append(errs, err)
	if len(weighted) == 1 {
		out.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: weighted[0].Cluster}
	} else {
		split := &routev3.WeightedCluster{}
		for _, w := range weighted {
			split.Clusters = append(split.Clusters, &routev3.WeightedCluster_ClusterWeight{
				Name: w.Cluster, Weight: wrapperspb.UInt32(w.Weight),
			})
		}
		out.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: split}
	}
	if f.Path != nil {
		rewrite, err := rewritePath(f.Path, path)
		errs = append(errs, err)
		out.RegexRewrite = rewrite
	}
	if f.Host != "" {
		out.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: f.Host}
	}
	for _, m := range f.Mirrors {
		mirror, err := mirrorTo(m, names)
		errs = append(errs, err)
		out.RequestMirrorPolicies = append(out.RequestMirrorPolicies, mirror)
	}
	if f.Retry != nil {
		retry, err := retryPolicy(f.Retry)
		errs = append(errs, err)
		out.RetryPolicy = retry
	}
	out.HashPolicy, err = hashPolicies(f.Hash)
	errs = append(errs, err)
	return out, errors.Join(errs...)
}

// shares are the clusters that have a share at all. A cluster on its own needs no weight.
func shares(all []ir.WeightedCluster, names *known) ([]ir.WeightedCluster, error) {
	var out []ir.WeightedCluster
	var errs []error
	var sum uint64
	for _, w := range all {
		if !names.has(aCluster, w.Cluster) {
			errs = append(errs, fmt.Errorf("cluster %q is not among the proxy's clusters: add it", w.Cluster))
		}
		if w.Weight == 0 && len(all) > 1 {
			continue
		}
		sum += uint64(w.Weight)
		out = append(out, w)
	}
	switch {
	case len(all) == 0:
		errs = append(errs, errors.New("names no cluster: name one"))
	case len(out) == 0:
		errs = append(errs, errors.New("all its clusters have weight 0: give one a weight"))
	case sum > math.MaxUint32:
		errs = append(errs, fmt.Errorf("weights of its clusters sum to %d: at most %d is possible", sum, uint32(math.MaxUint32)))
	}
	return out, errors.Join(errs...)
}

// retryPolicy repeats a request up to Attempts times after the first try.
func retryPolicy(r *ir.Retry) (*routev3.RetryPolicy, error) {
	err := notNegative(namedDuration{"retry: timeout per try", r.PerTryTimeout},
		namedDuration{"retry: base interval", r.BaseInterval}, namedDuration{"retry: maximal interval", r.MaxInterval})
	out := &routev3.RetryPolicy{
		RetryOn:              strings.Join(retryConditions(r), ","),
		NumRetries:           wrapperspb.UInt32(r.Attempts),
		PerTryTimeout:        unlessZero(r.PerTryTimeout),
		RetriableStatusCodes: r.StatusCodes,
	}
	if r.BaseInterval != 0 || r.MaxInterval != 0 {
		base := r.BaseInterval
		if base == 0 {
			base = min(defaultBaseInterval, r.MaxInterval)
		}
		if r.MaxInterval != 0 && r.MaxInterval < base {
			err = errors.Join(err, fmt.Errorf("retry: maximal interval %s is shorter than the base interval %s: lengthen it", r.MaxInterval, base))
		}
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{
			BaseInterval: durationpb.New(base),
			MaxInterval:  unlessZero(r.MaxInterval),
		}
	}
	for _, method := range r.Methods {
		out.RetriableRequestHeaders = append(out.RetriableRequestHeaders, &routev3.HeaderMatcher{
			Name:                 ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exactly(method)},
		})
	}
	return out, errors.Join(err, setRetryDetails(out, r))
}

func headers(c ir.HeaderChange) (add []*corev3.HeaderValueOption, remove []string, err error) {
	var errs []error
	check := func(name string) {
		if strings.HasPrefix(name, ":") || strings.EqualFold(name, "host") {
			errs = append(errs, fmt.Errorf("header %q can't be changed: Envoy refuses it", name))
		}
	}
	option := func(h ir.Header, action corev3.HeaderValueOption_HeaderAppendAction) {
		check(h.Name)
		add = append(add, &corev3.HeaderValueOption{
			// Values are meant literally; to Envoy a percent sign begins a command.
			Header:         &corev3.HeaderValue{Key: h.Name, Value: strings.ReplaceAll(h.Value, "%", "%%")},
			AppendAction:   action,
			KeepEmptyValue: h.Value == "",
		})
	}
	for _, h := range c.Set {
		option(h, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	}
	for _, h := range c.Add {
		option(h, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	}
	for _, name := range c.Remove {
		check(name)
	}
	return add, c.Remove, errors.Join(errs...)
}
