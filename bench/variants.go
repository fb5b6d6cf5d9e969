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
	"time"
)

const (
	variantStarts = 6 // of 6 medians the least and the largest are an interval of 97 %
	variantRounds = 20
)

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
	{"the time for headers", func(m document, _ []document, _ document) { delete(m, "stream_idle_timeout") }},
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

// variantSides say what variantFile serves, in the order of its addresses.
func variantSides() []string {
	out := []string{"generated"}
	for _, v := range variants[1:] {
		out = append(out, "generated without "+v.name)
	}
	return append(out, pathSides[1:]...)
}

// variantFile is a file of one Envoy that serves all variants, and behind them what is written by hand.
func (b *bench) variantFile(ctx context.Context, dir, upstream string) (file string, err error) {
	generated, err := b.generated(ctx, b.near().Host(201))
	if err != nil {
		return "", err
	}
	var parts []part
	for _, v := range variants {
		p, err := generatedPart(generated, v)
		if err != nil {
			return "", err
		}
		parts = append(parts, p)
	}
	for _, more := range []string{"", protection} {
		p, err := writtenPart(written("", upstream, more))
		if err != nil {
			return "", err
		}
		parts = append(parts, p)
	}
	config, err := together(parts, b.variantAt)
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "envoy.json")
	return file, os.WriteFile(file, config, 0o600)
}

func (b *bench) variantAt(i int) string { return b.near().Host(220 + i) }

// measureVariants tells what costs what in the configuration that a zone generates for a gateway. One Envoy serves all, so that nothing
// but what they say differs.
func measureVariants(ctx context.Context, b *bench) (rows []Row, err error) {
	host := b.near().Host(upstreamHost)
	sides := variantSides()
	// By start: what a request of the whole takes, and of each side how much less; microseconds.
	var whole []float64
	less := make([][]float64, len(sides))
	err = b.withPaths(ctx, host, func(bind func(int) error) error {
		dir, err := os.MkdirTemp(b.federation.Logs(), "variants-")
		if err != nil {
			return err
		}
		file, err := b.variantFile(ctx, dir, host)
		if err != nil {
			return err
		}
		for range variantStarts {
			samples, err := b.loadTogether(ctx, bind, dir, file, len(sides))
			if err != nil {
				return err
			}
			for side := range sides {
				var costs, saved []float64
				for i, s := range samples[side] {
					costs, saved = append(costs, s.cost()*1e6), append(saved, (samples[0][i].cost()-s.cost())*1e6)
				}
				if side == 0 {
					whole = append(whole, median(costs))
				}
				less[side] = append(less[side], median(saved))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w (what the Envoys said is in %s)", err, b.federation.Logs())
	}
	rows = append(rows, row("processor of Envoy a request, generated", median(whole), "us", variantStarts))
	for side, name := range sides[1:] {
		what := "less: " + name
		lo, hi := interval(less[side+1])
		rows = append(rows, row(what, median(less[side+1]), "us", variantStarts), row(what+", interval from", lo, "us", variantStarts), row(what+", interval to", hi, "us", variantStarts))
	}
	return rows, nil
}

// loadTogether starts one Envoy and loads its gateways in turn.
func (b *bench) loadTogether(ctx context.Context, bind func(pid int) error, dir, file string, sides int) (samples [][]sample, err error) {
	envoy, err := b.startEnvoy(ctx, dir, "variants", file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, envoy.stop()) }()
	all := make([]pathSide, sides)
	for i := range all {
		all[i] = pathSide{at: b.variantAt(i), envoy: envoy}
	}
	return loadPaths(ctx, bind, all, variantRounds)
}

// generated is what a zone configures a gateway with.
func (b *bench) generated(ctx context.Context, at string) (dump []byte, err error) {
	envoy, err := b.startGenerated(ctx, at)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, envoy.stop()) }()
	h, err := hammerOf(ctx, at, receiptTime, 1, []*child{envoy})
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
