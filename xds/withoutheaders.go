package xds

import (
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
)

// withoutHeaders takes headers out of requests at its place among the filters; what a route says of headers comes last.
func withoutHeaders(names ...string) namedFilter {
	mutations := &headermutationv3.Mutations{}
	for _, name := range names {
		mutations.RequestMutations = append(mutations.RequestMutations, &mutationv3.HeaderMutation{
			Action: &mutationv3.HeaderMutation_Remove{Remove: name},
		})
	}
	return namedFilter{"envoy.filters.http.header_mutation", &headermutationv3.HeaderMutation{Mutations: mutations}}
}
