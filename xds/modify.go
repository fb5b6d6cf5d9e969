package xds

import (
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/ir"
)

// modify carries out one modification in Kuma's language.
func (e *editor) modify(m *ir.Modification) (err error) {
	switch m.Target {
	case ir.TargetCluster:
		e.clusters, err = whole(e.clusters, m, &clusterv3.Cluster{})
	case ir.TargetListener:
		e.listeners, err = whole(e.listeners, m, &listenerv3.Listener{})
	case ir.TargetVirtualHost:
		err = e.virtualHosts(m)
	case ir.TargetNetworkFilter:
		err = e.networkFilters(m)
	case ir.TargetHTTPFilter:
		err = e.httpFilters(m)
	default:
		err = fmt.Errorf("target %q is not known", m.Target)
	}
	return err
}

func matchesTags(want, have map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || v != "*" && v != got {
			return false
		}
	}
	return true
}

func matchesResource[M validated](m *ir.Modification, name string, one *edited[M]) bool {
	return (name == "" || name == one.name) && (m.Origin == "" || m.Origin == one.origin) && matchesTags(m.Tags, one.tags)
}

// whole adds a resource, or changes or removes those that match.
func whole[M validated](list []*edited[M], m *ir.Modification, value M) ([]*edited[M], error) {
	if m.Operation != "remove" {
		if err := parse(m.JSON, value); err != nil {
			return nil, err
		}
	}
	switch m.Operation {
	case "add":
		if nameOf(value) == "" {
			return nil, fmt.Errorf("what is added needs a name")
		}
		return put(list, value), nil
	case "remove":
		return slices.DeleteFunc(list, func(one *edited[M]) bool { return matchesResource(m, m.Name, one) }), nil
	case "patch":
		for _, one := range list {
			if matchesResource(m, m.Name, one) {
				if err := mergeInto(one.message.ProtoReflect(), proto.Clone(value).ProtoReflect()); err != nil {
					return nil, err
				}
				one.changed = true
			}
		}
		return list, nil
	}
	return nil, fmt.Errorf("operation %q is not known", m.Operation)
}

func (e *editor) virtualHosts(m *ir.Modification) error {
	for _, table := range e.routes {
		if !matchesResource(m, m.Routes, table) {
			continue
		}
		hosts, changed, err := within(table.message.VirtualHosts, m, &routev3.VirtualHost{})
		if err != nil {
			return err
		}
		if changed {
			table.message.VirtualHosts, table.changed = hosts, true
		}
	}
	return nil
}

func (e *editor) networkFilters(m *ir.Modification) error {
	for _, l := range e.listeners {
		if !matchesResource(m, m.Listener, l) {
			continue
		}
		for _, chain := range l.message.FilterChains {
			filters, changed, err := within(chain.Filters, m, &listenerv3.Filter{})
			if err != nil {
				return err
			}
			if changed {
				chain.Filters, l.changed = filters, true
			}
		}
	}
	return nil
}

func (e *editor) httpFilters(m *ir.Modification) error {
	for _, l := range e.listeners {
		if !matchesResource(m, m.Listener, l) {
			continue
		}
		for _, chain := range l.message.FilterChains {
			for _, f := range chain.Filters {
				var manager hcmv3.HttpConnectionManager
				if f.GetTypedConfig() == nil || !f.GetTypedConfig().MessageIs(&manager) {
					continue
				}
				if err := f.GetTypedConfig().UnmarshalTo(&manager); err != nil {
					return err
				}
				filters, changed, err := within(manager.HttpFilters, m, &hcmv3.HttpFilter{})
				if err != nil {
					return err
				}
				if !changed {
					continue
				}
				manager.HttpFilters = filters
				packed, err := repack(&manager)
				if err != nil {
					return err
				}
				f.ConfigType, l.changed = &listenerv3.Filter_TypedConfig{TypedConfig: packed}, true
			}
		}
	}
	return nil
}

// within adds a value to a list, or changes or removes those that match by name. It says whether it changed anything; where
// addBefore and addAfter find nothing to stand at, nothing is added.
func within[M validated](list []M, m *ir.Modification, value M) ([]M, bool, error) {
	if m.Operation != "remove" {
		if err := parse(m.JSON, value); err != nil {
			return nil, false, err
		}
	}
	fits := func(one M) bool { return m.Name == "" || m.Name == nameOf(one) }
	switch m.Operation {
	case "add", "addLast":
		return append(slices.Clip(list), value), true, nil
	case "addFirst":
		return append([]M{value}, list...), true, nil
	case "addBefore", "addAfter":
		i := slices.IndexFunc(list, fits)
		if i < 0 {
			return list, false, nil
		}
		if m.Operation == "addAfter" {
			i++
		}
		return slices.Insert(slices.Clone(list), i, value), true, nil
	case "remove":
		kept := slices.DeleteFunc(slices.Clone(list), fits)
		return kept, len(kept) != len(list), nil
	case "patch":
		changed := false
		for _, one := range list {
			if fits(one) {
				if err := mergeInto(one.ProtoReflect(), proto.Clone(value).ProtoReflect()); err != nil {
					return nil, false, err
				}
				changed = true
			}
		}
		return list, changed, nil
	}
	return nil, false, fmt.Errorf("operation %q is not known", m.Operation)
}
