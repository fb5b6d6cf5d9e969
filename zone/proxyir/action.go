package proxyir

import (
	"cmp"
	"errors"
	"math"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// action is a route with what a rule does: it forwards, redirects or answers.
func (b *builder) action(rule *meshv1.MeshGatewayRoute_Rule) (ir.Route, error) {
	for _, f := range rule.GetFilters() {
		if r := f.GetRedirect(); r != nil {
			return ir.Route{Redirect: &ir.Redirect{
				Scheme: r.GetScheme(), Host: r.GetHostname(), Port: redirectPort(r), Status: cmp.Or(r.GetStatusCode(), 302),
				Path: rewrite(r.GetReplaceFull(), r.GetReplacePrefixMatch()),
			}}, nil
		}
		if d := f.GetDirectResponse(); d != nil {
			return ir.Route{Direct: &ir.DirectResponse{Status: d.GetStatus(), Body: d.GetBody()}}, nil
		}
	}
	if len(rule.GetBackends()) == 0 {
		return ir.Route{}, errors.New("needs backends")
	}
	var to []ir.WeightedCluster
	var errs []error
	sum := uint64(0)
	for _, backend := range rule.GetBackends() {
		name, err := b.cluster(backend.GetDestination())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		weight := uint32(1)
		if backend.Weight != nil {
			weight = backend.GetWeight()
		}
		sum += uint64(weight)
		to = append(to, ir.WeightedCluster{Cluster: name, Weight: weight})
	}
	if err := errors.Join(errs...); err != nil {
		return ir.Route{}, err
	}
	if err := checkSum(sum); err != nil {
		return ir.Route{}, err
	}
	forward := b.forward(to, rule.GetBackends()[0].GetDestination())
	for _, f := range rule.GetFilters() {
		if w := f.GetRewrite(); w != nil {
			if path := rewrite(w.GetReplaceFull(), w.GetReplacePrefixMatch()); path != nil {
				forward.Path = path
			}
			forward.Host = cmp.Or(w.GetHostname(), forward.Host)
		}
		if m := f.GetMirror(); m != nil {
			name, err := b.cluster(m.GetDestination())
			if err != nil {
				return ir.Route{}, err
			}
			share := 100.0
			if m.Percentage != nil {
				share = m.GetPercentage()
			}
			forward.Mirrors = append(forward.Mirrors, ir.Mirror{Cluster: name, Millionths: uint32(math.Round(share * 10_000))})
		}
	}
	return ir.Route{Forward: forward}, nil
}

// redirectPort is that of the scheme where the scheme changes and no port is given, as the request's port speaks another. A
// hostname that is given leaves the request's port behind by itself.
func redirectPort(r *meshv1.Redirect) uint32 {
	switch {
	case r.GetPort() != 0:
		return r.GetPort()
	case r.GetHostname() != "":
		return 0
	case r.GetScheme() == "https":
		return 443
	case r.GetScheme() == "http":
		return 80
	}
	return 0
}

func rewrite(full, prefix string) *ir.PathRewrite {
	switch {
	case full != "":
		return &ir.PathRewrite{Kind: ir.RewriteFull, Value: full}
	case prefix != "":
		return &ir.PathRewrite{Kind: ir.RewritePrefix, Value: prefix}
	}
	return nil
}
