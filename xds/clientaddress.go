package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/zoneforge/zoneforge/ir"
)

// routeClientAddress is a filter of its own, apart from the one of permissions, as all of them must let a request pass. The address
// is that which the listener believes: of the peer, or as trusted proxies in front of it tell.
func routeClientAddress(r *ir.Route) (validated, error) {
	c := r.Filters.ClientAddress
	if c == nil {
		return nil, nil
	}
	var all []*rbacconfigv3.Principal
	if len(c.Deny) > 0 {
		all = append(all, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: inRanges(c.Deny)}})
	}
	if len(c.Allow) > 0 {
		all = append(all, inRanges(c.Allow))
	}
	if len(all) == 0 {
		return nil, nil
	}
	return &rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{
		Action: rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{"client-address": {
			Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
			Principals:  []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: all}}}},
		}},
	}}}, nil
}

func inRanges(ranges []ir.AddressRange) *rbacconfigv3.Principal {
	set := &rbacconfigv3.Principal_Set{}
	for _, r := range ranges {
		set.Ids = append(set.Ids, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_RemoteIp{
			RemoteIp: &corev3.CidrRange{AddressPrefix: r.Address, PrefixLen: wrapperspb.UInt32(r.Bits)},
		}})
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{OrIds: set}}
}
