package xds

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/zoneforge/zoneforge/ir"
)

// rbac allows what one of the rules matches. Without rules it denies all, as RBAC with the action ALLOW does.
func rbac(a *ir.Authorization) (*rbacconfigv3.RBAC, error) {
	out := &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_ALLOW, Policies: map[string]*rbacconfigv3.Policy{}}
	var errs []error
	for _, rule := range a.Rules {
		if len(rule.Allow) == 0 {
			continue // It matches nobody, and Envoy refuses an empty list.
		}
		principal, err := rulePrincipal(rule)
		if err != nil {
			errs = append(errs, fmt.Errorf("authorization rule %q: %w", rule.Name, err))
			continue
		}
		out.Policies[freeName(out.Policies, rule.Name)] = &rbacconfigv3.Policy{
			Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
			Principals:  []*rbacconfigv3.Principal{principal},
		}
	}
	return out, errors.Join(errs...)
}

// freeName keeps rules apart that came from one resource: they count together, and none may replace another.
func freeName(taken map[string]*rbacconfigv3.Policy, name string) string {
	if name == "" {
		name = "rule"
	}
	free := name
	for n := 2; ; n++ {
		if _, ok := taken[free]; !ok {
			return free
		}
		free = fmt.Sprintf("%s#%d", name, n)
	}
}

func rulePrincipal(rule ir.AuthorizationRule) (*rbacconfigv3.Principal, error) {
	allow, err := anyPrincipal(rule.Allow)
	if err != nil {
		return nil, fmt.Errorf("allow: %w", err)
	}
	if len(rule.Except) == 0 {
		return allow, nil
	}
	except, err := anyPrincipal(rule.Except)
	if err != nil {
		return nil, fmt.Errorf("except: %w", err)
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{
		Ids: []*rbacconfigv3.Principal{allow, {Identifier: &rbacconfigv3.Principal_NotId{NotId: except}}},
	}}}, nil
}

// anyPrincipal matches a peer that any of the matches does. Envoy compares them with each URI of the peer's certificate.
func anyPrincipal(matches []ir.TextMatch) (*rbacconfigv3.Principal, error) {
	var ids []*rbacconfigv3.Principal
	var errs []error
	for _, m := range matches {
		id, err := peer(m)
		errs = append(errs, err)
		ids = append(ids, id)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(ids) == 1 {
		return ids[0], nil
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{OrIds: &rbacconfigv3.Principal_Set{Ids: ids}}}, nil
}

func peer(m ir.TextMatch) (*rbacconfigv3.Principal, error) {
	authenticated := &rbacconfigv3.Principal_Authenticated{}
	out := &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_Authenticated_{Authenticated: authenticated}}
	switch m.Kind {
	case ir.TextPresent:
		return out, nil
	case ir.TextAbsent:
		return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: out}}, nil
	}
	name, err := text(m)
	if err != nil {
		return nil, err
	}
	authenticated.PrincipalName = name
	return out, nil
}

// extension is a TCP chain's authorization, which travels by ECDS so that a change of it drains no connection.
func extension(a *ir.NamedAuthorization) (*Resource, error) {
	rules, err := rbac(&a.Authorization)
	if err != nil {
		return nil, err
	}
	config, err := pack(&networkrbacv3.RBAC{StatPrefix: a.Name, Rules: rules})
	if err != nil {
		return nil, err
	}
	return build(TypeExtension, a.Name, &corev3.TypedExtensionConfig{Name: a.Name, TypedConfig: config})
}

func routeRBAC(r *ir.Route) (validated, error) {
	if r.Filters.Authorization == nil {
		return nil, nil
	}
	rules, err := rbac(r.Filters.Authorization)
	if err != nil {
		return nil, err
	}
	return &httprbacv3.RBACPerRoute{Rbac: &httprbacv3.RBAC{Rules: rules}}, nil
}
