package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is a part of Envoy's configuration in JSON.
type document = map[string]any

// part is what an Envoy needs for one gateway.
type part struct{ listener, cluster document }

// together makes a file of several gateways with an address each, so that one process, whose memory lies as it does, serves all.
func together(parts []part, at func(i int) string) ([]byte, error) {
	var listeners, clusters []any
	for i, p := range parts {
		name := fmt.Sprintf("upstream-%d", i)
		manager, err := p.manager()
		if err != nil {
			return nil, err
		}
		routes := actions(manager)
		if len(routes) < pathRoutes || p.cluster == nil {
			return nil, fmt.Errorf("Envoy's configuration has %d routes and the cluster %v: not what was applied", len(routes), p.cluster)
		}
		for _, r := range routes {
			r["cluster"] = name
		}
		p.cluster["name"] = name
		if assigned, ok := p.cluster["load_assignment"].(document); ok {
			assigned["cluster_name"] = name
		}
		p.listener["name"] = fmt.Sprintf("gateway-%d", i)
		p.listener["address"] = document{"socket_address": document{"address": at(i), "port_value": gatewayPort}}
		listeners, clusters = append(listeners, p.listener), append(clusters, p.cluster)
	}
	return json.Marshal(document{"static_resources": document{"listeners": listeners, "clusters": clusters}})
}

// manager is the one connection manager of the part's listener.
func (p part) manager() (document, error) {
	var managers []document
	for _, c := range members(p.listener["filter_chains"]) {
		for _, f := range members(c["filters"]) {
			if m, ok := f["typed_config"].(document); ok && m["http_filters"] != nil {
				managers = append(managers, m)
			}
		}
	}
	if len(managers) != 1 {
		return nil, fmt.Errorf("Envoy's configuration has %d connection managers: not what was applied", len(managers))
	}
	return managers[0], nil
}

// actions are those of a manager's own routes that lead to a cluster.
func actions(manager document) []document {
	table, _ := manager["route_config"].(document)
	var out []document
	for _, h := range members(table["virtual_hosts"]) {
		for _, r := range members(h["routes"]) {
			if action, ok := r["route"].(document); ok {
				out = append(out, action)
			}
		}
	}
	return out
}

// writtenPart is what a file that is written by hand has.
func writtenPart(file []byte) (p part, err error) {
	var all struct {
		Static struct{ Listeners, Clusters []document } `yaml:"static_resources"`
	}
	if err := yaml.Unmarshal(file, &all); err != nil {
		return p, err
	}
	return part{all.Static.Listeners[0], all.Static.Clusters[0]}, nil
}

// generatedPart is the gateway's listener with its routes and filters in it, and the cluster, of a dump of an Envoy's configuration,
// but for what the variant lacks.
func generatedPart(dump []byte, v variant) (p part, err error) {
	var parts []struct {
		Listeners []struct {
			State struct{ Listener document } `json:"active_state"`
		} `json:"dynamic_listeners"`
		Routes []struct {
			Config document `json:"route_config"`
		} `json:"dynamic_route_configs"`
		Clusters []struct{ Cluster document } `json:"dynamic_active_clusters"`
		Filters  []struct {
			Filter document `json:"ecds_filter"`
		} `json:"ecds_filters"`
	}
	if err := json.Unmarshal(dump, &parts); err != nil {
		return p, fmt.Errorf("Envoy's configuration: %w", err)
	}
	name := fmt.Sprintf("gateway:%d", gatewayPort)
	var table document
	discovered := map[any]any{}
	for _, d := range parts {
		for _, l := range d.Listeners {
			if l.State.Listener["name"] == name {
				p.listener = l.State.Listener
			}
		}
		for _, r := range d.Routes {
			if r.Config["name"] == name {
				table = r.Config
			}
		}
		for _, c := range d.Clusters {
			if s, _ := c.Cluster["name"].(string); strings.HasPrefix(s, pathService) {
				p.cluster = c.Cluster
			}
		}
		for _, f := range d.Filters {
			discovered[f.Filter["name"]] = f.Filter["typed_config"]
		}
	}
	manager, err := p.manager()
	if err != nil {
		return p, err
	}
	for _, f := range members(manager["http_filters"]) {
		if f["config_discovery"] != nil {
			delete(f, "config_discovery")
			f["typed_config"] = discovered[f["name"]]
		}
	}
	delete(manager, "rds")
	for _, d := range []document{p.listener, table, p.cluster} {
		delete(d, "@type")
	}
	manager["route_config"] = table
	v.change(manager, actions(manager), p.cluster)
	return p, nil
}

// members are the objects of a list.
func members(list any) []document {
	all, _ := list.([]any)
	var out []document
	for _, m := range all {
		if d, ok := m.(document); ok {
			out = append(out, d)
		}
	}
	return out
}
