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
	pathService  = "bench-path"
	pathRoutes   = 10
	pathPairs    = 20
	pathWindow   = 1500 * time.Millisecond
	pathConns    = 32
	upstreamPort = 8081
	gatewayPort  = 18080
)

// measureDataPath compares two Envoys that do the same: one is configured by its zone, the other by a file that says no more than
// the routes need. Both lead to the same upstream outside the mesh without TLS, listen for HTTP without TLS, and have one worker
// thread. They are loaded in turn, so that what else the machine does falls on both.
func measureDataPath(ctx context.Context, b *bench) (_ []Row, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w (what the Envoys said is in %s)", err, b.federation.Logs())
		}
	}()
	host, generatedAt, writtenAt := b.near().Host(203), hostPort(b.near().Host(201), gatewayPort), hostPort(b.near().Host(202), gatewayPort)
	up, err := listenUpstream(hostPort(host, upstreamPort))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, up.close()) }()
	kinds := [][2]string{{"MeshGateway", pathService}, {"MeshGatewayRoute", pathService}, {"ExternalService", pathService}, {"TrafficPermission", pathService}}
	if _, err := b.global.apply(ctx, pathPolicies(hostPort(host, upstreamPort))); err != nil {
		return nil, err
	}
	generated, err := b.startGenerated(ctx, b.near().Host(201))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, generated.stop()) }()
	written, err := b.startWritten(ctx, b.near().Host(202), host)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, written.stop()) }()
	both := []*child{generated, written}
	var hammers []*hammer
	for _, at := range []string{generatedAt, writtenAt} {
		var h *hammer
		if err := until(ctx, "gateway "+at, receiptTime, both, func() (err error) {
			if h, err = newHammer(ctx, at, fmt.Sprintf("/path-%d/x", pathRoutes/2), pathConns); err != nil {
				return err
			}
			if _, _, err = h.run(10 * time.Millisecond); err != nil {
				return errors.Join(err, h.close())
			}
			return nil
		}); err != nil {
			return nil, err
		}
		defer h.close()
		hammers = append(hammers, h)
	}
	// One core is for the Envoy under load.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(1, runtime.NumCPU()-1)))
	var throughput, processor []float64
	sums := make([]sample, len(both))
	for pair := range pathPairs + 1 {
		var now [2]sample
		for turn := range both {
			side := (pair + turn) % len(both)
			if now[side], err = loadOnce(ctx, both[side], hammers[side]); err != nil {
				return nil, err
			}
		}
		if pair == 0 {
			continue // it warmed up
		}
		for side := range both {
			sums[side].add(now[side])
		}
		throughput = append(throughput, now[0].rate()/now[1].rate())
		processor = append(processor, now[1].cost()/now[0].cost())
	}
	for _, k := range kinds {
		if err := b.global.remove(ctx, k[0], k[1]); err != nil {
			return nil, err
		}
	}
	lo, hi := interval(throughput)
	clo, chi := interval(processor)
	return []Row{
		row("throughput, generated over hand-written, median of pairs", median(throughput), "ratio", pathPairs).atLeast(0.97),
		row("throughput, 95 % interval of the median, from", lo, "ratio", pathPairs),
		row("throughput, 95 % interval of the median, to", hi, "ratio", pathPairs),
		row("requests per processor time, generated over hand-written, median of pairs", median(processor), "ratio", pathPairs).atLeast(0.97),
		row("requests per processor time, 95 % interval, from", clo, "ratio", pathPairs),
		row("requests per processor time, 95 % interval, to", chi, "ratio", pathPairs),
		row("requests through the generated configuration", sums[0].rate(), "per second", sums[0].requests),
		row("requests through the hand-written configuration", sums[1].rate(), "per second", sums[1].requests),
		row("processor of Envoy with the generated configuration", sums[0].cost()*1e6, "us per request", sums[0].requests),
		row("processor of Envoy with the hand-written configuration", sums[1].cost()*1e6, "us per request", sums[1].requests),
	}, nil
}

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// sample is what was measured under load.
type sample struct {
	requests        int64
	took, processor time.Duration
}

func (s *sample) add(o sample) {
	s.requests += o.requests
	s.took += o.took
	s.processor += o.processor
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
		ControlPlane: b.near().XDS, CAFile: b.near().CAFile, TokenFile: tokenFile, AdminSocket: filepath.Join(dir, "admin.sock"),
	}.Write(dir)
	if err != nil {
		return nil, err
	}
	return b.startEnvoy(ctx, dir, "path-generated", bootstrap)
}

// startWritten runs an Envoy that has the same routes, with what the demo's Timeout and Retry say of them, and nothing else.
func (b *bench) startWritten(ctx context.Context, at, upstream string) (*child, error) {
	dir, err := os.MkdirTemp(b.federation.Logs(), "path-")
	if err != nil {
		return nil, err
	}
	var routes strings.Builder
	for i := range pathRoutes {
		fmt.Fprintf(&routes, `
                - match: {path_separated_prefix: /path-%d}
                  route: {cluster: upstream, timeout: 10s, retry_policy: {retry_on: "connect-failure,refused-stream", num_retries: 1}}
                  request_headers_to_add: [{header: {key: x-entered-by, value: "%d"}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]`, i, i)
	}
	file := filepath.Join(dir, "envoy.yaml")
	err = os.WriteFile(file, fmt.Appendf(nil, `static_resources:
  listeners:
  - name: edge
    address: {socket_address: {address: %s, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
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
`, at, gatewayPort, &routes, upstream, upstreamPort), 0o600)
	if err != nil {
		return nil, err
	}
	return b.startEnvoy(ctx, dir, "path-written", file)
}

func (b *bench) startEnvoy(ctx context.Context, dir, name, config string) (*child, error) {
	envoy, err := dataplane.Locate(ctx, b.envoy)
	if err != nil {
		return nil, err
	}
	args := append(dataplane.Arguments(config, 0, "warning"), "--concurrency", "1")
	return launch(dir, name, envoy.Path, args...)
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
