package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	basicauthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/basic_auth/v3"

	"github.com/zoneforge/zoneforge/ir"
)

// routeBasicAuth stands in a chain of the route's own, since Envoy's message for routes tells no backend the user.
func routeBasicAuth(r *ir.Route) (validated, error) {
	b := r.Filters.BasicAuth
	if b == nil {
		return nil, nil
	}
	filters := []namedFilter{{"envoy.filters.http.basic_auth", &basicauthv3.BasicAuth{
		Users:                 &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: b.Users}},
		ForwardUsernameHeader: b.UserHeader,
		Realm:                 b.Realm,
	}}}
	if b.Hide {
		filters = append(filters, withoutHeaders("authorization"))
	}
	return ownChain(filters)
}
