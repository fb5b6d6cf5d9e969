package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/deploy/demo"
)

const (
	// A workload has replicas that are equal but for their names and addresses, and each of them serves perWorkload services. So
	// 10,000 proxies give 1,000 services 20 endpoints each.
	replicas, perWorkload = 20, 2
	// outbounds is how many services each proxy is a client of.
	outbounds = 30
	// seed makes the choice of these the same each time.
	seed = 5
	// zoneName is that of the zone under test.
	zoneName = "east"
)

// zoneWorld is one zone with simulated proxies, below a global of its own; both are processes of the product.
type zoneWorld struct {
	dir, binary  string
	host         string // address of global; the zone has the next one
	debug        string // debug-address of the zone, empty for none
	profiles     *profiles
	global, zone *child
	api          *global
	scraper      *http.Client
	fleet        *simproxy.Fleet
	workloads    []*workload
	begun        int // proxies
	// clients are, by service, how many proxies have it as an outbound.
	clients []int
}

// workload is what the replicas of one deployment have in common.
type workload struct {
	services, outbounds []int
	token               string
}

func serviceName(i int) string { return fmt.Sprintf("service-%04d", i) }

// plan makes the workloads of a zone of a number of proxies.
func plan(proxies int) (workloads []*workload, clients []int) {
	services := proxies / replicas * perWorkload
	clients = make([]int, services)
	random := rand.New(rand.NewPCG(seed, seed))
	for i := range proxies / replicas {
		w := &workload{outbounds: random.Perm(services)[:min(outbounds, services)]}
		for j := range perWorkload {
			w.services = append(w.services, i*perWorkload+j)
		}
		for _, s := range w.outbounds {
			clients[s] += replicas
		}
		workloads = append(workloads, w)
	}
	return workloads, clients
}

// document is the Dataplane of a replica. Replicas are of two versions, half of them each.
func (w *workload) document(name, address string, replica int) map[string]any {
	var in, out []any
	for i, s := range w.services {
		in = append(in, map[string]any{"port": 15006 + i, "servicePort": 8080 + i, "tags": map[string]any{
			"kuma.io/service": serviceName(s), "kuma.io/protocol": "http", "version": fmt.Sprintf("v%d", 1+replica%2),
		}})
	}
	for _, s := range w.outbounds {
		out = append(out, map[string]any{"port": 20000 + s, "tags": map[string]any{"kuma.io/service": serviceName(s)}})
	}
	networking := map[string]any{"address": address, "inbound": in}
	if len(out) > 0 {
		networking["outbound"] = out
	}
	return dataplaneOf(name, networking)
}

// newZoneWorld starts global and the zone, with a mesh in which everything may call everything over mutual TLS.
func newZoneWorld(ctx context.Context, s *scale, extra ...string) (_ *zoneWorld, err error) {
	dir, err := os.MkdirTemp("", "zoneforge-bench-")
	if err != nil {
		return nil, err
	}
	w := &zoneWorld{dir: dir, binary: s.binary, host: s.prefix + ".1", debug: s.debug, profiles: s.profiles}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(true))
		}
	}()
	if w.global, err = launch(dir, "global", w.binary, "global", "run", "--data-dir", w.path("global"), "--rest-address", w.host+":5682", "--kds-address", w.host+":5685",
		"--hosts", w.host, "--log-level", "warn"); err != nil {
		return nil, err
	}
	if err := until(ctx, "global", time.Minute, []*child{w.global}, func() error {
		token, err := os.ReadFile(w.path("global", "admin-token"))
		if err != nil {
			return err
		}
		if w.api, err = connectTo("https://"+w.host+":5682", w.path("global", "tls", "server-ca.crt"), strings.TrimSpace(string(token)), 1); err != nil {
			return err
		}
		var zones any
		return w.api.ask(ctx, http.MethodGet, "/v1/zones", "", nil, &zones)
	}); err != nil {
		return nil, err
	}
	token, err := w.issue(ctx, "zone", fmt.Sprintf(`{"zone":%q}`, zoneName))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(w.path("zone-token"), []byte(token), 0o600); err != nil {
		return nil, err
	}
	if err := w.startZone(); err != nil {
		return nil, err
	}
	if err := w.ready(ctx); err != nil {
		return nil, err
	}
	_, err = w.api.apply(ctx, strings.Join(append([]string{fmt.Sprintf("type: Mesh\nname: %s\nmtls:\n  enabledBackend: ca-1\n  backends:\n    - name: ca-1\n      type: builtin\n", demo.Mesh),
		fmt.Sprintf("type: TrafficPermission\nmesh: %s\nname: all\nsources:\n  - match: {kuma.io/service: \"*\"}\ndestinations:\n  - match: {kuma.io/service: \"*\"}\n", demo.Mesh)}, extra...), "---\n"))
	return w, err
}

func (w *zoneWorld) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}
func (w *zoneWorld) xds() string       { return w.zoneHost() + ":5678" }
func (w *zoneWorld) zoneHost() string  { return strings.TrimSuffix(w.host, ".1") + ".2" }
func (w *zoneWorld) running() []*child { return []*child{w.global, w.zone} }

func (w *zoneWorld) startZone() (err error) {
	args := []string{"zone", "run", "--name", zoneName, "--data-dir", w.path("zone"), "--global", w.host + ":5685", "--global-ca", w.path("global", "tls", "server-ca.crt"),
		"--token-file", w.path("zone-token"), "--xds-address", w.xds(), "--rest-address", w.zoneHost() + ":5683", "--hosts", w.zoneHost(), "--log-level", "warn"}
	if w.debug != "" {
		args = append(args, "--debug-address", w.debug)
	}
	w.zone, err = launch(w.dir, "zone", w.binary, args...)
	return err
}

// ready returns when the zone serves and has heard of global.
func (w *zoneWorld) ready(ctx context.Context) error {
	return until(ctx, "zone", time.Minute, w.running(), func() error {
		if w.scraper == nil {
			roots, err := pool(w.path("zone", "tls", "server-ca.crt"))
			if err != nil {
				return err
			}
			w.scraper = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
		}
		resp, err := w.scraper.Get("https://" + w.zoneHost() + ":5683/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// metrics are those of the zone without labels, by name.
func (w *zoneWorld) metrics() (map[string]float64, error) {
	resp, err := w.scraper.Get("https://" + w.zoneHost() + ":5683/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok && name != "#" {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				out[name] = v
			}
		}
	}
	return out, nil
}

// settled returns when the zone says that a number of proxies acknowledged all that they were given.
func (w *zoneWorld) settled(ctx context.Context, proxies int, limit time.Duration) error {
	return until(ctx, fmt.Sprintf("acknowledgements of %d proxies", proxies), limit, w.running(), func() error {
		m, err := w.metrics()
		if err != nil {
			return err
		}
		if m["zoneforge_zone_proxies"] != float64(proxies) || m["zoneforge_zone_proxies_acked"] != float64(proxies) {
			return fmt.Errorf("%g proxies, %g of them have everything", m["zoneforge_zone_proxies"], m["zoneforge_zone_proxies_acked"])
		}
		return nil
	})
}

func (w *zoneWorld) issue(ctx context.Context, kind, body string) (string, error) {
	var answer struct {
		Token string `json:"token"`
	}
	if err := w.api.ask(ctx, http.MethodPost, "/v1/tokens/"+kind, "application/json", []byte(body), &answer); err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", fmt.Errorf("global's answer holds no %s token", kind)
	}
	return answer.Token, nil
}

// serviceToken is of the proxies of services.
func (w *zoneWorld) serviceToken(ctx context.Context, services ...string) (string, error) {
	body, err := json.Marshal(map[string]any{"mesh": demo.Mesh, "services": services})
	if err != nil {
		return "", err
	}
	return w.issue(ctx, "dataplane", string(body))
}

// open makes the fleet, still without proxies.
func (w *zoneWorld) open(cfg simproxy.Config) error {
	roots, err := pool(w.path("zone", "tls", "server-ca.crt"))
	if err != nil {
		return err
	}
	// The key exchanges are those that Envoy offers by itself.
	cfg.Address, cfg.TLS = w.xds(), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}}
	w.fleet = simproxy.New(cfg)
	return nil
}

// populate begins proxies of a zone that will have a number of them until there are so many, some at a time as a scheduler does, and
// returns when each has all that it should.
func (w *zoneWorld) populate(ctx context.Context, all, until int) error {
	if w.workloads == nil {
		w.workloads, w.clients = plan(all)
	}
	for i := w.begun / replicas; i < until/replicas; i++ {
		load := w.workloads[i]
		names := make([]string, 0, perWorkload)
		for _, s := range load.services {
			names = append(names, serviceName(s))
		}
		var err error
		if load.token, err = w.serviceToken(ctx, names...); err != nil {
			return err
		}
		for r := range replicas {
			who, err := node(load.document(fmt.Sprintf("w-%03d-%02d", i, r), proxyAddress(w.begun), r))
			if err != nil {
				return err
			}
			w.fleet.Add(ctx, who, load.token)
			w.begun++
		}
		if err := w.fleet.Await(ctx, "proxies begin", time.Minute, func(c simproxy.Counts) bool { return c.Complete > int64(w.begun)-200 }); err != nil {
			return err
		}
	}
	if err := w.fleet.Await(ctx, "proxies get what they should have", 5*time.Minute, func(c simproxy.Counts) bool { return c.Complete == int64(w.begun) }); err != nil {
		return err
	}
	return w.settled(ctx, w.begun, 5*time.Minute)
}

func proxyAddress(n int) string { return fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255) }

// close ends all processes, and removes their files unless something went wrong.
func (w *zoneWorld) close(keep bool) error {
	errs := []error{w.profiles.mark()}
	for _, c := range []*child{w.zone, w.global} {
		if c == nil {
			continue
		}
		select {
		case <-c.done:
		default:
			errs = append(errs, c.stop())
		}
	}
	if w.scraper != nil {
		w.scraper.CloseIdleConnections()
	}
	if w.api != nil {
		w.api.close()
	}
	if keep {
		return errors.Join(append(errs, fmt.Errorf("what the processes said is in %s", w.dir))...)
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}
