package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/dataplane"
	"github.com/zoneforge/zoneforge/deploy/demo"
)

const (
	pathService = "bench-path"
	pathRoutes  = 10
	// One Envoy differs from the next of the same configuration by some percent, as its memory lies otherwise. So all are started
	// often; within a start they alternate often, so that what else the machine does falls on all.
	pathStarts   = 24
	pathRounds   = 20
	pathWindow   = 50 * time.Millisecond
	pathConns    = 32
	upstreamPort = 8081
	upstreamHost = 210
	gatewayPort  = 18080
)

// protection is what Envoy's documentation advises for a proxy at the edge, as every gateway has it: the client's address is taken from
// the connection and told to the upstream, paths are resolved before anything compares them, headers have a time to come in.
const protection = `
          use_remote_address: true
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
          request_headers_timeout: 10s
          common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}`

// pathSides are the Envoys that are compared, in the order of their addresses; the first is the one that its zone configures.
var pathSides = []string{"generated", "minimal", "protected"}

// measureDataPath compares Envoys that do the same: one is configured by its zone, one by a file that says no more than the routes need,
// and one by the same file with the protection of an edge. All lead to the same upstream outside the mesh without TLS, listen for HTTP
// without TLS, and have one worker thread. They are loaded in turn, so that what else the machine does falls on all, and started anew
// some times.
func measureDataPath(ctx context.Context, b *bench) (_ []Row, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w (what the Envoys said is in %s)", err, b.federation.Logs())
		}
	}()
	at := func(side int) string { return b.near().Host(201 + side) }
	host := b.near().Host(upstreamHost)
	var starts [][][]sample
	err = b.withPaths(ctx, host, func(bind func(int) error) error {
		for range pathStarts {
			samples, err := loadAnew(ctx, bind, []string{at(0), at(1), at(2)}, func(side int) (*child, error) {
				switch side {
				case 0:
					return b.startGenerated(ctx, at(side))
				case 1:
					return b.startWritten(ctx, at(side), host, "")
				default:
					return b.startWritten(ctx, at(side), host, protection)
				}
			})
			if err != nil {
				return err
			}
			starts = append(starts, samples)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var rows []Row
	for side, name := range pathSides[1:] {
		var rate, cost []float64
		for _, samples := range starts {
			r, c := compare(samples[0], samples[side+1])
			rate, cost = append(rate, median(r)), append(cost, median(c))
		}
		for _, of := range []struct {
			what   string
			ratios []float64
		}{{"throughput", rate}, {"requests per processor time", cost}} {
			what := fmt.Sprintf("%s, generated over %s", of.what, name)
			lo, hi := interval(of.ratios)
			middle := row(what, median(of.ratios), "ratio", pathStarts)
			if of.what == "throughput" {
				middle = middle.atLeast(0.97)
			}
			rows = append(rows, middle, row(what+", interval from", lo, "ratio", pathStarts), row(what+", interval to", hi, "ratio", pathStarts))
		}
	}
	for side, name := range pathSides {
		var sum sample
		for _, samples := range starts {
			for _, s := range samples[side] {
				sum.requests, sum.took, sum.processor = sum.requests+s.requests, sum.took+s.took, sum.processor+s.processor
			}
		}
		rows = append(rows, row("requests, "+name, sum.rate(), "per second", sum.requests), row("processor of Envoy, "+name, sum.cost()*1e6, "us per request", sum.requests))
	}
	return rows, nil
}

// withPaths calls load while there are the upstream and the policies that lead to it.
func (b *bench) withPaths(ctx context.Context, host string, load func(bind func(pid int) error) error) (err error) {
	up, err := listenUpstream(hostPort(host, upstreamPort))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, up.close()) }()
	if _, err := b.global.apply(ctx, pathPolicies(hostPort(host, upstreamPort))); err != nil {
		return err
	}
	// One core is for the Envoy under load.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(1, runtime.NumCPU()-1)))
	bind, restore, err := apart()
	if err != nil {
		return err
	}
	if err := errors.Join(load(bind), restore()); err != nil {
		return err
	}
	for _, kind := range []string{"MeshGateway", "MeshGatewayRoute", "ExternalService", "TrafficPermission"} {
		if err := b.global.remove(ctx, kind, pathService); err != nil {
			return err
		}
	}
	return nil
}

// pathSide is a gateway to load: its address and its Envoy.
type pathSide struct {
	at    string
	envoy *child
}

// loadAnew starts an Envoy for each address and loads them in turn.
func loadAnew(ctx context.Context, bind func(pid int) error, at []string, start func(side int) (*child, error)) (samples [][]sample, err error) {
	var sides []pathSide
	for i := range at {
		envoy, err := start(i)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, envoy.stop()) }()
		sides = append(sides, pathSide{at[i], envoy})
	}
	return loadPaths(ctx, bind, sides, pathRounds)
}

// loadPaths loads gateways in turn; it gives what was measured, by side and round, but for a first round that warms up.
func loadPaths(ctx context.Context, bind func(pid int) error, sides []pathSide, rounds int) (samples [][]sample, err error) {
	hammers := make([]*hammer, len(sides))
	for i, side := range sides {
		if hammers[i], err = hammerOf(ctx, side.at, receiptTime, pathConns, []*child{side.envoy}); err != nil {
			return nil, err
		}
		defer hammers[i].close()
		if err := bind(side.envoy.cmd.Process.Pid); err != nil {
			return nil, err
		}
	}
	samples = make([][]sample, len(sides))
	for round := range rounds + 1 {
		for turn := range sides {
			i := (round + turn) % len(sides)
			s, err := loadOnce(ctx, sides[i].envoy, hammers[i])
			if err != nil {
				return nil, err
			}
			if round > 0 { // the first warms up
				samples[i] = append(samples[i], s)
			}
		}
	}
	return samples, nil
}

// hammerOf waits until a gateway answers.
func hammerOf(ctx context.Context, at string, limit time.Duration, conns int, running []*child) (h *hammer, err error) {
	err = until(ctx, "gateway "+at, limit, running, func() error {
		one, err := newHammer(ctx, hostPort(at, gatewayPort), fmt.Sprintf("/path-%d/x", pathRoutes/2), conns)
		if err != nil {
			return err
		}
		if err = one.send(1); err != nil {
			return errors.Join(err, one.close())
		}
		h = one
		return nil
	})
	return h, err
}

// compare gives the ratios of a's throughput to b's, and of the requests for the same processor time, round by round.
func compare(a, b []sample) (rate, cost []float64) {
	for i := range a {
		rate, cost = append(rate, a[i].rate()/b[i].rate()), append(cost, b[i].cost()/a[i].cost())
	}
	return rate, cost
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// sample is what was measured under load.
type sample struct {
	requests        int64
	took, processor time.Duration
}

func (s sample) rate() float64 { return float64(s.requests) / s.took.Seconds() }
func (s sample) cost() float64 { return s.processor.Seconds() / float64(s.requests) }

func loadOnce(ctx context.Context, envoy *child, h *hammer) (s sample, err error) {
	if err := errors.Join(ctx.Err(), envoy.ended()); err != nil {
		return s, err
	}
	before, err := onProcessor(envoy.cmd.Process.Pid)
	if err != nil {
		return s, err
	}
	if s.requests, s.took, err = h.run(pathWindow); err != nil {
		return s, err
	}
	after, err := onProcessor(envoy.cmd.Process.Pid)
	s.processor = after - before
	return s, err
}

// pathPolicies are a gateway of its own with some routes to an upstream outside the mesh; the demo's Timeout and Retry hold for them.
func pathPolicies(upstream string) string {
	var rules strings.Builder
	for i := range pathRoutes {
		fmt.Fprintf(&rules, `      - matches:
          - path: {match: PREFIX, value: /path-%d}
        filters:
          - requestHeader: {set: [{name: x-entered-by, value: "%d"}]}
        backends:
          - destination: {kuma.io/service: %s}
`, i, i, pathService)
	}
	head := func(kind string) string {
		return fmt.Sprintf("type: %s\nmesh: %s\nname: %s\n", kind, demo.Mesh, pathService)
	}
	// The gateway and the upstream share a name, but never as a service of the mesh.
	edge := pathService + "-edge"
	return strings.Join([]string{
		head("ExternalService") + fmt.Sprintf("tags: {kuma.io/service: %s, kuma.io/protocol: http}\nnetworking: {address: %q}\n", pathService, upstream),
		head("TrafficPermission") + fmt.Sprintf("sources:\n  - match: {kuma.io/service: %s}\ndestinations:\n  - match: {kuma.io/service: %s}\n", edge, pathService),
		head("MeshGateway") + fmt.Sprintf("selectors:\n  - match: {kuma.io/service: %s}\nconf:\n  listeners:\n    - {port: %d, protocol: HTTP}\n", edge, gatewayPort),
		head("MeshGatewayRoute") + fmt.Sprintf("selectors:\n  - match: {kuma.io/service: %s}\nconf:\n  http:\n    rules:\n%s", edge, &rules),
	}, "---\n")
}

// startGenerated runs an Envoy as `dataplane run` does, but with one worker thread.
func (b *bench) startGenerated(ctx context.Context, at string) (*child, error) {
	edge := pathService + "-edge"
	token, err := b.token(ctx, edge)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.federation.Logs(), "path-")
	if err != nil {
		return nil, err
	}
	tokenFile := filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		return nil, err
	}
	document, err := json.Marshal(gateway(pathService, edge, at))
	if err != nil {
		return nil, err
	}
	bootstrap, err := dataplane.Bootstrap{
		Kind: "Dataplane", Mesh: demo.Mesh, Name: pathService, Service: edge, Document: document,
		ControlPlanes: []string{b.near().XDS}, CAFile: b.near().CAFile, TokenFile: tokenFile, AdminSocket: filepath.Join(dir, "admin.sock"),
	}.Write(dir)
	if err != nil {
		return nil, err
	}
	return b.startEnvoy(ctx, dir, "path-generated", bootstrap)
}

// startWritten runs an Envoy with a file that is written by hand, and what more says of its connections.
func (b *bench) startWritten(ctx context.Context, at, upstream, more string) (*child, error) {
	dir, err := os.MkdirTemp(b.federation.Logs(), "path-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, written(at, upstream, more), 0o600); err != nil {
		return nil, err
	}
	return b.startEnvoy(ctx, dir, "path-written-"+at, file)
}

// written is a file of the same routes, with what the demo's Timeout and Retry say of them, and what more says of its connections.
func written(at, upstream, more string) []byte {
	var routes strings.Builder
	for i := range pathRoutes {
		fmt.Fprintf(&routes, `
                - match: {path_separated_prefix: /path-%d}
                  route: {cluster: upstream, timeout: 10s, retry_policy: {retry_on: "connect-failure,refused-stream", num_retries: 2}}
                  request_headers_to_add: [{header: {key: x-entered-by, value: "%d"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]`, i, i)
	}
	return fmt.Appendf(nil, `static_resources:
  listeners:
  - name: edge
    address: {socket_address: {address: %s, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge%s
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:%s
  clusters:
  - name: upstream
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: upstream
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %d}}}}]}]
`, at, gatewayPort, more, &routes, upstream, upstreamPort)
}

// startEnvoy runs an Envoy with one worker thread, by another program if one is named with its arguments.
func (b *bench) startEnvoy(ctx context.Context, dir, name, config string, by ...string) (*child, error) {
	envoy, err := dataplane.Locate(ctx, b.envoy)
	if err != nil {
		return nil, err
	}
	args := slices.Concat(by, []string{envoy.Path}, dataplane.Arguments(config, 0, "warning"), []string{"--concurrency", "1"})
	return launch(dir, name, args[0], args[1:]...)
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// interval holds the median of what was sampled with 95 % confidence, whatever the distribution: the k-th smallest and largest, where
// fewer than k of n throws of a coin are heads in at most 2.5 % of all cases.
func interval(all []float64) (lo, hi float64) {
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	k, tail, ways := 0, 0.0, math.Pow(0.5, float64(n))
	for tail+ways <= 0.025 {
		tail += ways
		k++
		ways *= float64(n-k+1) / float64(k)
	}
	k = max(k, 1)
	return sorted[k-1], sorted[n-k]
}
