package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// variantRounds are fewer than pathRounds, as there are more Envoys to load.
const variantRounds = 5

// document is a part of Envoy's configuration in JSON.
type document = map[string]any

// variant is the generated configuration with one thing less.
type variant struct {
	name string
	// change takes it out of the listener's connection manager, its routes or the cluster.
	change func(manager document, routes []document, cluster document)
}

// variants are told apart from the first, which lacks nothing; the second is the same again, and tells what chance does.
var variants = []variant{
	{"nothing", func(document, []document, document) {}},
	{"nothing, again", func(document, []document, document) {}},
	{"filters that are turned off", func(m document, _ []document, _ document) {
		all, _ := m["http_filters"].([]any)
		m["http_filters"] = all[len(all)-1:]
	}},
	{"the client's address", func(m document, _ []document, _ document) { delete(m, "use_remote_address") }},
	{"the time for headers", func(m document, _ []document, _ document) { delete(m, "request_headers_timeout") }},
	{"resolving paths", func(m document, _ []document, _ document) {
		delete(m, "normalize_path")
		delete(m, "merge_slashes")
		delete(m, "path_with_escaped_slashes_action")
	}},
	{"changes of local answers", func(m document, _ []document, _ document) { delete(m, "local_reply_config") }},
	{"WebSockets", func(m document, _ []document, _ document) { delete(m, "upgrade_configs") }},
	{"idle timeouts of routes", func(_ document, routes []document, _ document) {
		for _, r := range routes {
			delete(r, "idle_timeout")
		}
	}},
	{"options of the cluster", func(_ document, _ []document, c document) {
		delete(c, "typed_extension_protocol_options")
		delete(c, "upstream_connection_options")
	}},
}

// measureVariants tells what costs what in the configuration that a zone generates for a gateway.
func measureVariants(ctx context.Context, b *bench) (rows []Row, err error) {
	host := b.near().Host(upstreamHost)
	var starts [][][]sample
	err = b.withPaths(ctx, host, func() error {
		generated, err := b.generated(ctx, b.near().Host(201))
		if err != nil {
			return err
		}
		var sides []pathSide
		for i, v := range variants {
			at := b.near().Host(220 + i)
			sides = append(sides, pathSide{at, func() (*child, error) { return b.startVariant(ctx, generated, at, v) }})
		}
		for range pathStarts {
			samples, err := loadPaths(ctx, sides, variantRounds)
			if err != nil {
				return err
			}
			starts = append(starts, samples)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w (what the Envoys said is in %s)", err, b.federation.Logs())
	}
	for side, v := range variants[1:] {
		var cost []float64
		for _, samples := range starts {
			_, c := compare(samples[side+1], samples[0])
			cost = append(cost, median(c))
		}
		lo, hi := interval(cost)
		what := "requests per processor time, without " + v.name
		rows = append(rows, row(what, median(cost), "ratio", pathStarts), row(what+", interval from", lo, "ratio", pathStarts), row(what+", interval to", hi, "ratio", pathStarts))
	}
	return rows, nil
}

// generated is what a zone configures a gateway with.
func (b *bench) generated(ctx context.Context, at string) (dump []byte, err error) {
	envoy, err := b.startGenerated(ctx, at)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, envoy.stop()) }()
	h, err := hammerOf(ctx, at, []*child{envoy})
	if err != nil {
		return nil, err
	}
	if err := h.close(); err != nil {
		return nil, err
	}
	socket := filepath.Join(envoy.cmd.Dir, "admin.sock")
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/config_dump", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var all struct{ Configs []json.RawMessage }
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		return nil, fmt.Errorf("Envoy's configuration: %w", err)
	}
	return json.Marshal(all.Configs)
}

// startVariant runs an Envoy with a file of what a zone configured another with, but for what the variant lacks.
func (b *bench) startVariant(ctx context.Context, generated []byte, at string, v variant) (*child, error) {
	config, err := static(generated, at, v)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.federation.Logs(), "variant-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	return b.startEnvoy(ctx, dir, "variant-"+at, file)
}

// static makes a file of the gateway's listener, routes, filters and cluster in a dump of an Envoy's configuration.
func static(dump []byte, at string, v variant) ([]byte, error) {
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
		return nil, fmt.Errorf("Envoy's configuration: %w", err)
	}
	name := fmt.Sprintf("gateway:%d", gatewayPort)
	var listener, table, cluster document
	discovered := map[any]any{}
	for _, p := range parts {
		for _, l := range p.Listeners {
			if l.State.Listener["name"] == name {
				listener = l.State.Listener
			}
		}
		for _, r := range p.Routes {
			if r.Config["name"] == name {
				table = r.Config
			}
		}
		for _, c := range p.Clusters {
			if s, _ := c.Cluster["name"].(string); strings.HasPrefix(s, pathService) {
				cluster = c.Cluster
			}
		}
		for _, f := range p.Filters {
			discovered[f.Filter["name"]] = f.Filter["typed_config"]
		}
	}
	var managers, routes []document
	for _, c := range members(listener["filter_chains"]) {
		for _, f := range members(c["filters"]) {
			if m, ok := f["typed_config"].(document); ok && m["http_filters"] != nil {
				managers = append(managers, m)
			}
		}
	}
	for _, h := range members(table["virtual_hosts"]) {
		for _, r := range members(h["routes"]) {
			if action, ok := r["route"].(document); ok {
				routes = append(routes, action)
			}
		}
	}
	if len(managers) != 1 || len(routes) < pathRoutes || cluster == nil {
		return nil, fmt.Errorf("Envoy's configuration has %d connection managers, %d routes and the cluster %v: not what was applied", len(managers), len(routes), cluster)
	}
	manager := managers[0]
	for _, f := range members(manager["http_filters"]) {
		if f["config_discovery"] != nil {
			delete(f, "config_discovery")
			f["typed_config"] = discovered[f["name"]]
		}
	}
	delete(manager, "rds")
	for _, part := range []document{listener, table, cluster} {
		delete(part, "@type")
	}
	manager["route_config"] = table
	listener["address"] = document{"socket_address": document{"address": at, "port_value": gatewayPort}}
	v.change(manager, routes, cluster)
	return json.Marshal(document{"static_resources": document{"listeners": []any{listener}, "clusters": []any{cluster}}})
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
