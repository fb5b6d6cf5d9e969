//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/netns"
)

// Sites of the federation whose network has partitions. The control plane of east has one of its own, so that it can be cut off from its
// proxies.
const (
	siteGlobal = "global"
	siteZone   = "zone"
	siteB      = "b" // of a second replica of east, where there is one
	siteEast   = "east"
	siteWest   = "west"
	siteClient = "client"
)

// distributed is a federation in network namespaces, under requests.
type distributed struct {
	*federation
	net *netns.Network
	// hosts are the addresses of sites.
	hosts map[string][]int

	kills killings

	mu     sync.Mutex
	failed []string
	sent   int
}

func newDistributed(t *testing.T) *distributed {
	t.Helper()
	d := &distributed{
		federation: &federation{t: t, dir: t.TempDir(), network: fmt.Sprintf("198.18.%d", os.Getpid()%256), running: map[string]*process{}},
		hosts:      map[string][]int{netns.Root: {254}, siteGlobal: {1}, siteZone: {2}, siteB: {6}, siteEast: {10, 11}, siteWest: {3, 20, 21}, siteClient: {100}},
	}
	var err error
	if d.net, err = netns.New(netip.MustParsePrefix(d.network + ".0/24")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.net.Close(); err != nil {
			t.Error(err)
		}
	})
	at := map[string]string{}
	for site, hosts := range d.hosts {
		var addresses []netip.Addr
		for _, n := range hosts {
			addresses, at[d.host(n)] = append(addresses, netip.MustParseAddr(d.host(n))), site
		}
		if err := d.net.Add(site, addresses...); err != nil {
			t.Fatal(err)
		}
	}
	d.net.Start()
	d.sites = &sites{
		command: func(process string) []string {
			switch site := process[strings.LastIndex(process, "-")+1:]; process {
			case "global":
				return d.net.Command(siteGlobal)
			case "east":
				return d.net.Command(siteZone)
			default:
				return d.net.Command(site)
			}
		},
		listen: func(address string) (net.Listener, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return d.net.Listen(at[host], address)
		},
	}
	t.Cleanup(d.stop)
	return d
}

// start runs a gateway in east, and two services in both zones, one by HTTP/1 and one by HTTP/2, which share its requests.
func (d *distributed) start() {
	d.t.Helper()
	d.startGlobal()
	d.startZone("east", 2)
	d.startZone("west", 3)
	d.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"),
		gatewayRoute("routes", "", `      - matches: [{path: {match: PREFIX, value: /one}}]
        backends: [{destination: {kuma.io/service: one}}]
      - matches: [{path: {match: PREFIX, value: /two}}]
        backends: [{destination: {kuma.io/service: two}}]
`))
	for _, service := range []string{"one", "two"} {
		match := fmt.Sprintf("mesh: default\nname: %s\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: %s}}]\nconf:\n", service, service)
		d.apply("type: LocalityPolicy\nmesh: default\nname: "+service+"\ndestinations: [{match: {kuma.io/service: "+service+"}}]\nconf: {localFirst: false}\n",
			"type: Timeout\n"+match+"  connectTimeout: 1s\n  http: {requestTimeout: 15s}\n",
			"type: Retry\n"+match+"  http: {numRetries: 3, perTryTimeout: 1s, retryOn: [connect_failure, reset, gateway_error], avoidPreviousHosts: true, backOff: {baseInterval: 5ms}}\n",
			"type: CircuitBreaker\n"+match+"  interval: 500ms\n  baseEjectionTime: 500ms\n  maxEjectionPercent: 50\n  detectors: {gatewayErrors: {consecutive: 2}}\n")
	}
	for site, n := range map[string]int{siteEast: 11, siteWest: 21} {
		name := "echo-" + site
		d.workload(d.at(n, 8080), name, nil)
		d.workload2(d.at(n, 8081), name)
		d.token(name, "dataplane", "--mesh", "default")
		d.startEcho(site, map[string]int{siteEast: 2, siteWest: 3}[site], n)
	}
	d.startProxy("west", 3, "ingress-west", fmt.Sprintf("type: ZoneIngress\nname: ingress-west\nnetworking: {address: %s, port: 10001}\n", d.host(20)), d.token("ingress", "zone-ingress", "west"))
	d.startProxy("east", 2, "edge-east", gatewayDocument("default", "edge", d.host(10)), d.token("edge", "dataplane", "--mesh", "default", "--service", "edge"))
	d.settled("east", 2)
	d.settled("west", 2)
}

// startEcho runs the sidecar of both services at a site.
func (d *distributed) startEcho(site string, zone, n int) {
	d.t.Helper()
	name := "echo-" + site
	d.startProxy(site, zone, name, sidecarDocument("default", name, d.host(n), fmt.Sprintf(`  inbound:
    - {port: 15006, servicePort: 8080, serviceAddress: %[1]s, tags: {kuma.io/service: one, kuma.io/protocol: http}}
    - {port: 15007, servicePort: 8081, serviceAddress: %[1]s, tags: {kuma.io/service: two, kuma.io/protocol: http2}}
`, d.host(n))), d.path("tokens", name))
}

// workload2 answers as workload does, by HTTP/2 without TLS.
func (d *distributed) workload2(address, name string) {
	d.t.Helper()
	l, err := d.listen(address)
	if err != nil {
		d.t.Fatal(err)
	}
	s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Workload", name)
		_ = json.NewEncoder(w).Encode(answer{Workload: name})
	})}
	s.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	d.t.Cleanup(func() { _ = s.Close(); <-done })
}

// client is one at the clients' site.
func (d *distributed) client() *http.Client {
	c := newClient(d.t)
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = d.net.In(siteClient, func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	return c
}

// load sends requests to both services until the test ends, and notes which failed.
func (d *distributed) load() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, path := range []string{"/one", "/two"} {
		client := d.client()
		for range 2 {
			wg.Go(func() {
				tick := time.NewTicker(50 * time.Millisecond)
				defer tick.Stop()
				for ctx.Err() == nil {
					kills := d.kills.now()
					r, a, err := ask(client, "GET", "http://"+d.at(10, 8080)+path)
					if errors.Is(err, io.ErrUnexpectedEOF) && d.kills.met(kills) {
						continue // its answer had begun when its backend was killed, so nobody could ask again
					}
					if err == nil && (r.StatusCode != http.StatusOK || a.Workload == "") {
						err = fmt.Errorf("status %d: %s", r.StatusCode, a.Text)
					}
					d.mu.Lock()
					if d.sent++; err != nil {
						d.failed = append(d.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), path, err))
					}
					d.mu.Unlock()
					select {
					case <-tick.C:
					case <-ctx.Done():
					}
				}
			})
		}
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	d.t.Cleanup(stop)
	return stop
}

// lostNone fails for the requests that were lost since it was asked last.
func (d *distributed) lostNone(while string) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.failed) > 0 {
		d.t.Errorf("%d of %d requests lost while %s:\n%s", len(d.failed), d.sent, while, strings.Join(d.failed[:min(len(d.failed), 10)], "\n"))
	}
	d.failed, d.sent = nil, 0
}

// answered waits until both services are answered by the workloads, and by no other in a row of ten.
func (d *distributed) answered(by ...string) {
	d.t.Helper()
	client := d.client()
	for _, path := range []string{"/one", "/two"} {
		d.await(fmt.Sprintf("%s answered by %v", path, by), func() error {
			seen := map[string]int{}
			for range 10 {
				r, a, err := ask(client, "GET", "http://"+d.at(10, 8080)+path)
				if err != nil {
					return err
				}
				if r.StatusCode != http.StatusOK {
					return fmt.Errorf("status %d", r.StatusCode)
				}
				seen[a.Workload]++
			}
			for _, name := range by {
				if seen[name] == 0 {
					return fmt.Errorf("answers come from %v", seen)
				}
				delete(seen, name)
			}
			if len(seen) > 0 {
				return fmt.Errorf("answers come from %v, too", seen)
			}
			return nil
		})
	}
}

// connections counts those that a site holds open with another one, and of these the busy ones: bytes are on their way that the other
// end didn't acknowledge.
func (d *distributed) connections(site, with string) (n, busy int) {
	d.t.Helper()
	var lines []string
	if err := d.net.In(site, func() error {
		for _, table := range []string{"tcp", "tcp6"} { // gRPC's client of Envoy has sockets of IPv6 for addresses of IPv4
			text, err := os.ReadFile("/proc/thread-self/net/" + table)
			if err != nil {
				return err
			}
			lines = append(lines, strings.Split(string(text), "\n")[1:]...)
		}
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	for _, line := range lines {
		const established, nothing = "01", "00000000"
		f := strings.Fields(line)
		if len(f) < 5 || f[3] != established {
			continue
		}
		remote := socketAddress(d.t, f[2])
		for _, host := range d.hosts[with] {
			if !strings.HasPrefix(remote, d.host(host)+":") {
				continue
			}
			n++
			if sending, _, _ := strings.Cut(f[4], ":"); sending != nothing {
				busy++
			}
		}
	}
	return n, busy
}

// joined waits until two sites have as many connections as that, at both ends.
func (d *distributed) joined(site, with string, least int) {
	d.t.Helper()
	d.await("connections of "+site+" with "+with, func() error {
		here, _ := d.connections(site, with)
		there, _ := d.connections(with, site)
		if min(here, there) < least {
			return fmt.Errorf("%d at one end and %d at the other, want %d", here, there, least)
		}
		return nil
	})
}

// noticed waits until a site holds no connection with another one any more, and says how long that took. What is busy is the kernel's
// where the site doesn't ask by itself.
func (d *distributed) noticed(site, with string, within time.Duration, since time.Time, butBusy bool) {
	d.t.Helper()
	deadline := time.After(time.Until(since.Add(within)))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, busy := d.connections(site, with)
		if butBusy {
			n -= busy
		}
		if n == 0 {
			d.t.Logf("%s noticed that %s is cut off within %s", site, with, time.Since(since).Round(100*time.Millisecond))
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			d.t.Errorf("%s still has %d connections with %s, %s after it was cut off", site, n, with, within)
			return
		}
	}
}

// cutOff cuts one site off from others.
func (d *distributed) cutOff(site string, from ...string) {
	for _, other := range from {
		d.net.Between(site, other, netns.Fault{Cut: true})
	}
}

// TestPartitions cuts sites off from each other, both ways and one, and makes the network lose, delay and reorder packets. No request
// is lost where any way leads to a workload; whoever holds a connection that leads nowhere notices; and all comes back by itself.
func TestPartitions(t *testing.T) {
	d := newDistributed(t)
	d.start()
	client := d.client()
	d.answered("echo-east", "echo-west")
	defer d.load()()
	zoneIs := func(zone string, connected bool) {
		t.Helper()
		d.await(zone, func() error {
			s, err := d.status(zone)
			if err == nil && s.Connected != connected {
				err = fmt.Errorf("connected: %v", s.Connected)
			}
			return err
		})
	}
	// Three heartbeats of a second, and what a busy machine takes; without them the kernel would take a quarter of an hour.
	const heartbeats = time.Minute

	t.Run("global is cut off from all zones", func(t *testing.T) {
		began := time.Now()
		d.cutOff(siteGlobal, siteZone, siteWest)
		zoneIs("east", false)
		zoneIs("west", false)
		if took := time.Since(began); took > heartbeats {
			t.Errorf("global noticed after %s", took)
		}
		d.noticed(siteZone, siteGlobal, heartbeats, began, false)
		d.noticed(siteWest, siteGlobal, heartbeats, began, false)
		d.cli("apply", "-f", d.write("meanwhile.yaml", gatewayRoute("meanwhile", "", "      - matches: [{path: {match: EXACT, value: /meanwhile}}]\n        backends: [{destination: {kuma.io/service: one}}]\n")))
		// It starts from its disk.
		d.kill("east")
		d.run("east", d.zoneArgs("east", 2)...)
		d.answered("echo-east", "echo-west")
		// A proxy leaves and joins.
		d.kills.step()
		d.kill("echo-east")
		d.answered("echo-west")
		d.kills.step()
		d.startEcho(siteEast, 2, 11)
		d.answered("echo-east", "echo-west")
		d.net.Heal()
		d.settled("east", 2)
		d.settled("west", 2)
		d.answers(client, http.StatusOK, "GET", "http://"+d.at(10, 8080)+"/meanwhile")
		d.lostNone("global was cut off")
	})

	t.Run("proxies of east are cut off from their zone and from west", func(t *testing.T) {
		d.joined(siteEast, siteZone, 2)
		began := time.Now()
		d.cutOff(siteEast, siteZone, siteWest)
		d.answered("echo-east")
		d.lostNone("east was cut off")
		d.noticed(siteEast, siteWest, 45*time.Second, began, true)
		d.noticed(siteWest, siteEast, 45*time.Second, began, true)
		d.noticed(siteEast, siteZone, 65*time.Second, began, false)
		d.noticed(siteZone, siteEast, 70*time.Second, began, false)
		d.await("the word of the launchers", func() error {
			for _, name := range []string{"edge-east", "echo-east"} {
				if said := d.said(name); !strings.Contains(said, "the zone control plane is away") || !strings.Contains(said, `"until":"2`) {
					return fmt.Errorf("%s says nothing of its zone", name)
				}
			}
			return nil
		})
		d.net.Heal()
		d.settled("east", 2)
		d.answered("echo-east", "echo-west")
		d.lostNone("east came back")
	})

	t.Run("what the proxies of east send to their zone is lost", func(t *testing.T) {
		d.joined(siteEast, siteZone, 2)
		d.net.Set(siteEast, siteZone, netns.Fault{Cut: true})
		// Both are told something, and nobody hears that they have it: neither end waits until it would have asked the other one.
		d.cli("apply", "-f", d.write("unheard.yaml", gatewayRoute("unheard", "", "      - matches: [{path: {match: EXACT, value: /unheard}}]\n        backends: [{destination: {kuma.io/service: one}}]\n")),
			"-f", d.write("unheard-permit.yaml", permit("default", "unheard", "edge", "one", "ALLOW")))
		began := time.Now() // nothing was unheard before
		d.noticed(siteEast, siteZone, 30*time.Second, began, false)
		d.noticed(siteZone, siteEast, 30*time.Second, began, false)
		d.net.Heal()
		d.settled("east", 2)
		d.answers(client, http.StatusOK, "GET", "http://"+d.at(10, 8080)+"/unheard")
		d.answered("echo-east", "echo-west")
		d.lostNone("the zone did not hear its proxies")
	})

	t.Run("what west sends to east is lost", func(t *testing.T) {
		d.net.Set(siteWest, siteEast, netns.Fault{Cut: true})
		d.answered("echo-east")
		d.net.Heal()
		d.answered("echo-east", "echo-west")
		d.lostNone("west was heard by nobody")
	})

	t.Run("packets are lost, late and out of order", func(t *testing.T) {
		sites := []string{siteGlobal, siteZone, siteEast, siteWest}
		for i, a := range sites {
			for _, b := range sites[i+1:] {
				d.net.Between(a, b, netns.Fault{Loss: 0.03, Delay: 2 * time.Millisecond, Jitter: 10 * time.Millisecond})
			}
		}
		d.apply(gatewayRoute("late", "", "      - matches: [{path: {match: EXACT, value: /late}}]\n        backends: [{destination: {kuma.io/service: one}}]\n"))
		d.answers(client, http.StatusOK, "GET", "http://"+d.at(10, 8080)+"/late")
		d.answered("echo-east", "echo-west")
		d.await("requests, and packets that were lost and overtaken", func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if c := d.net.Count(siteWest, siteEast); d.sent < 300 || c.Dropped == 0 || c.Overtaken == 0 {
				return fmt.Errorf("%d were sent, over %+v", d.sent, c)
			}
			return nil
		})
		d.net.Heal()
		d.lostNone("packets were lost")
	})
}
