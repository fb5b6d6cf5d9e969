package xds

import (
	"errors"
	"fmt"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"

	"github.com/zoneforge/zoneforge/ir"
)

// namedFilter is a filter within a chain of a route's own.
type namedFilter struct {
	name   string
	config validated
}

func typedFilters(list []namedFilter) ([]*corev3.TypedExtensionConfig, error) {
	var out []*corev3.TypedExtensionConfig
	var errs []error
	for _, f := range list {
		packed, err := pack(f.config)
		if err != nil {
			errs = append(errs, fmt.Errorf("filter %s: %w", f.name, err))
			continue
		}
		out = append(out, &corev3.TypedExtensionConfig{Name: f.name, TypedConfig: packed})
	}
	return out, errors.Join(errs...)
}

// ownChain runs filters that have no configuration per route, or of which a route has several. They are made anew with each
// change of the route's table, so they must keep nothing that matters.
func ownChain(list []namedFilter) (validated, error) {
	if len(list) == 0 {
		return nil, nil
	}
	filters, err := typedFilters(list)
	if err != nil {
		return nil, err
	}
	return &filterchainv3.FilterChainConfigPerRoute{FilterChain: &filterchainv3.FilterChain{Filters: filters}}, nil
}

// namedChains are filters that count: they stand in the configuration of the whole proxy, under the names by which routes choose
// them, so that no change of a route begins their counts again. what gives the chain of a route, or an empty name.
func namedChains(p *ir.Proxy, what func(*ir.Route) (string, func() ([]namedFilter, error))) (validated, error) {
	out := &compositev3.Composite{}
	var errs []error
	for _, table := range p.Routes {
		for _, host := range table.VirtualHosts {
			for i := range host.Routes {
				name, make := what(&host.Routes[i])
				if name == "" || out.NamedFilterChains[name] != nil {
					continue
				}
				list, err := make()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", name, err))
					continue
				}
				filters, err := typedFilters(list)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", name, err))
					continue
				}
				if out.NamedFilterChains == nil {
					out.NamedFilterChains = map[string]*compositev3.FilterChainConfiguration{}
				}
				out.NamedFilterChains[name] = &compositev3.FilterChainConfiguration{TypedConfig: filters}
			}
		}
	}
	return out, errors.Join(errs...)
}

// chooseChain chooses one of the named chains for a route.
func chooseChain(name string) (validated, error) {
	action, err := pack(&compositev3.ExecuteFilterAction{FilterChainName: name})
	if err != nil {
		return nil, err
	}
	return &compositev3.CompositePerRoute{Matcher: &matcherv3.Matcher{OnNoMatch: &matcherv3.Matcher_OnMatch{
		OnMatch: &matcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{Name: "chain", TypedConfig: action}},
	}}}, nil
}
