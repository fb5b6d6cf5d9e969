package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/dataplane"
	"github.com/zoneforge/zoneforge/e2e/fault"
)

// zoneReplicas is zone east in two replicas, each with a gateway that knows only it, at address 10 + i, and two sidecars of echo, at 31
// and 32, that know both.
type zoneReplicas struct {
	*federation
	grace time.Duration // of endpoints
	// way is that of the second replica to global; nil for the same as the first one has.
	way *fault.Proxy
}

func zoneReplicaHost(i int) int { return []int{2, 6}[i] }

func zoneReplicaName(i int) string { return []string{"east", "east-b"}[i] }

func startZoneReplicas(t *testing.T, grace time.Duration) zoneReplicas {
	t.Helper()
	f := zoneReplicas{federation: newFederation(t), grace: grace}
	f.way = must(fault.Listen(f.at(1, kdsPort)))(t)
	t.Cleanup(func() { _ = f.way.Close() })
	f.startReplicas()
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), gatewayRoute("base", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1))
	echo, edge := f.token("echo", "dataplane", "--mesh", "default", "--service", "echo"), f.token("edge", "dataplane", "--mesh", "default", "--service", "edge")
	for i, n := range []int{31, 32} {
		f.workload(f.at(n, 8080), fmt.Sprint("v", i), nil)
		name := fmt.Sprint("echo-", i)
		args := f.proxyArgs("east", 2, name, sidecarDocument("default", name, f.host(n), inboundOf("echo", "http", f.host(n), 8080, ", version: v1")), echo)
		f.run(name, append(args, "--zone", f.at(zoneReplicaHost(1), xdsPort))...)
	}
	for i := range 2 {
		f.startEdge(i, edge)
	}
	f.settled("east", 4)
	for i := range 2 {
		f.answers(newClient(t), http.StatusOK, "GET", f.edge(i))
	}
	return f
}

// startReplicas runs global and both replicas.
func (f zoneReplicas) startReplicas() {
	f.t.Helper()
	f.write("gossip-keys", gossipKey(1)+"\n")
	f.startGlobal()
	f.token("east", "zone", "east")
	f.startReplica(0)
	f.await("the authority of certificates", func() error {
		for _, name := range []string{"tls/server-ca.crt", "tls/server-ca.key"} {
			text, err := os.ReadFile(f.path("east", name))
			if err != nil {
				return err
			}
			f.write("east-b/"+name, string(text))
		}
		return nil
	})
	f.startReplica(1)
	f.see(2)
}

func (f zoneReplicas) startEdge(i int, token string) {
	f.t.Helper()
	name := fmt.Sprint("edge-", i)
	f.startProxy("east", zoneReplicaHost(i), name, strings.Replace(gatewayDocument("default", "edge", f.host(10+i)), "name: edge", "name: "+name, 1), token)
}

func (f zoneReplicas) edge(i int) string { return "http://" + f.at(10+i, 8080) + "/" }

func (f zoneReplicas) startReplica(i int) {
	f.t.Helper()
	n, other, global := zoneReplicaHost(i), zoneReplicaHost(1-i), f.at(1, kdsPort)
	if i == 1 && f.way != nil {
		global = f.way.Addr()
	}
	f.run(zoneReplicaName(i), "zone", "run", "--name", "east", "--replica", zoneReplicaName(i), "--data-dir", f.path(zoneReplicaName(i)),
		"--global", global, "--global-ca", f.path("global", "tls", "server-ca.crt"), "--token-file", f.path("tokens", "east"),
		"--xds-address", f.at(n, xdsPort), "--rest-address", f.at(n, 5683), "--endpoint-grace", f.grace.String(),
		"--gossip-address", f.at(n, gossipPort), "--gossip-join", f.at(other, gossipPort), "--gossip-key-file", f.path("gossip-keys"))
}

// figure waits for what a replica says of a metric.
func (f zoneReplicas) figure(i int, metric string, want float64) {
	f.t.Helper()
	f.await(fmt.Sprintf("%s of %s", metric, zoneReplicaName(i)), func() error {
		figures, err := f.zoneFigures(zoneReplicaHost(i))
		if err == nil && figures["zoneforge_zone_"+metric] != want {
			err = fmt.Errorf("%v, want %v", figures["zoneforge_zone_"+metric], want)
		}
		return err
	})
}

// see waits until both replicas know each other, share all that there is, and are both known to global.
func (f zoneReplicas) see(records float64) {
	f.t.Helper()
	for i := range 2 {
		f.figure(i, "replicas", 2)
		f.figure(i, "replica_records", records)
	}
	f.await("both replicas at global", func() error {
		s, err := f.status("east")
		connected := 0
		for _, r := range s.Replicas {
			if r.Connected {
				connected++
			}
		}
		if err == nil && (connected != 2 || !s.InSync) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
}

// serving waits until global knows of n endpoints of echo.
func (f zoneReplicas) serving(n int) {
	f.t.Helper()
	f.await("endpoints of echo at global", func() error {
		s, err := f.status("east")
		if err == nil && (len(s.Services) != 1 || s.Services[0].Count != n) {
			err = fmt.Errorf("%+v, want %d", s.Services, n)
		}
		return err
	})
}

// holder is the replica with most proxies.
func (f zoneReplicas) holder() int {
	f.t.Helper()
	var n [2]float64
	for i := range 2 {
		figures, err := f.zoneFigures(zoneReplicaHost(i))
		if err != nil {
			f.t.Fatal(err)
		}
		n[i] = figures["zoneforge_zone_proxies"]
	}
	f.t.Logf("proxies are at %v", n)
	if n[1] > n[0] {
		return 1
	}
	return 0
}

// looking follows the endpoints that an Envoy has, and finds when one of them is missing.
type looking struct {
	stop   chan struct{}
	wg     sync.WaitGroup
	looks  atomic.Int64
	missed []string
}

func (f zoneReplicas) look(i int) *looking {
	return f.lookAt(fmt.Sprint("edge-", i), f.at(31, 15006), f.at(32, 15006))
}

// lookAt follows whether a proxy has all endpoints of the addresses.
func (f *federation) lookAt(proxy string, addresses ...string) *looking {
	l := &looking{stop: make(chan struct{})}
	l.wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			text, err := adminGet(f.path("run", proxy, "admin.sock"), "/clusters")
			if err != nil {
				continue
			}
			l.looks.Add(1)
			for _, address := range addresses {
				if !strings.Contains(text, "::"+address+"::") {
					l.missed = append(l.missed, time.Now().Format(time.TimeOnly)+" "+address)
				}
			}
		}
	})
	f.t.Cleanup(l.end)
	return l
}

func (l *looking) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

func (l *looking) allThere(t *testing.T) {
	t.Helper()
	enough(t, "looks at a gateway's endpoints", &l.looks, 50)
	if l.end(); len(l.missed) > 0 {
		t.Errorf("of %d looks at a gateway's endpoints, %d lacked one: %v", l.looks.Load(), len(l.missed), l.missed[:min(5, len(l.missed))])
	}
}

// rotate replaces the key of gossip in the three steps that part no replica from another.
func (f zoneReplicas) rotate() {
	f.t.Helper()
	for round, keys := range [][]byte{{1, 2}, {2, 1}, {2}} {
		var text strings.Builder
		for _, k := range keys {
			text.WriteString(gossipKey(k) + "\n")
		}
		f.write("gossip-keys", text.String())
		f.await("rotated keys", func() error {
			for i := range 2 {
				if said := f.said(zoneReplicaName(i)); strings.Count(said, "keys of the replicas rotated") <= round {
					return fmt.Errorf("%s has not rotated to round %d", zoneReplicaName(i), round)
				}
			}
			return nil
		})
	}
}

// TestReplicasOfAZone rotates the key of gossip of a zone in replicas, kills one of them, and restarts both in order. Their proxies go to
// the other one; no request is lost, and no gateway ever misses an endpoint.
func TestReplicasOfAZone(t *testing.T) {
	f := startZoneReplicas(t, 20*time.Second)
	f.see(6)
	f.serving(2)
	requests := []*sending{f.send(f.edge(0)), f.send(f.edge(1))}
	dead := f.holder()
	lives := 1 - dead
	endpoints := []*looking{f.look(0), f.look(1)}
	n := 0
	change := func(i int) {
		t.Helper()
		n++
		path := fmt.Sprint("change-", n)
		f.apply(gatewayRoute(path, "", pathRule("/"+path)))
		f.answers(newClient(t), http.StatusOK, "GET", f.edge(i)+path)
	}

	f.rotate()
	f.see(6)
	f.kill(zoneReplicaName(dead))
	f.figure(lives, "proxies", 3)
	f.figure(lives, "replicas", 1)
	// Its gateway knows no other replica, so that one is all that the grace ends for.
	f.figure(lives, "replica_records", 4)
	f.serving(2)
	change(lives)

	f.startReplica(dead)
	f.see(6)
	f.settled("east", 4)
	change(dead)

	for _, i := range []int{lives, dead} {
		if code := f.end(zoneReplicaName(i)); code != 0 {
			t.Errorf("%s ended with %d", zoneReplicaName(i), code)
		}
		f.figure(1-i, "proxies", 3)
		f.startReplica(i)
		f.settled("east", 4)
		f.figure(1-i, "replica_records", 6)
	}
	change(0)
	change(1)
	f.see(6)
	f.serving(2)
	for i := range 2 {
		endpoints[i].allThere(t)
	}
	for _, r := range requests {
		r.noneLost(t)
	}

	// One that is cut off from global and behind the other lets no proxy in, so a proxy that tries it first goes to the other.
	f.way.Blackhole()
	f.apply(gatewayRoute("ahead", "", pathRule("/ahead")))
	f.answers(newClient(t), http.StatusOK, "GET", f.edge(0)+"ahead")
	f.figure(1, "replica_aside", 1)
	before, err := f.zoneFigures(zoneReplicaHost(0))
	if err != nil {
		t.Fatal(err)
	}
	late, addresses := "", []string{f.at(zoneReplicaHost(0), xdsPort), f.at(zoneReplicaHost(1), xdsPort)}
	for i := 0; late == ""; i++ {
		b := dataplane.Bootstrap{Kind: "Dataplane", Mesh: "default", Name: fmt.Sprint("late-", i), Service: "late", Document: []byte("{}"), ControlPlanes: addresses,
			CAFile: "/ca", TokenFile: "/token", AdminSocket: "/admin"}
		if text := string(must(b.JSON())(t)); strings.Contains(text, "ipv4:"+addresses[1]) {
			late = b.Name
		}
	}
	args := f.proxyArgs("east", zoneReplicaHost(0), late, gatewayDocument("default", late, f.host(33)), f.token("late", "dataplane", "--mesh", "default", "--service", late))
	f.run(late, append(args, "--zone", addresses[1])...)
	f.figure(0, "proxies", before["zoneforge_zone_proxies"]+1)
	f.way.Heal()
	f.way.Drop()
	f.figure(1, "replica_aside", 0)
	f.settled("east", 5)

	// A proxy that is killed is gone at once, at both.
	f.kill("echo-1")
	for i := range 2 {
		f.await("the end of an endpoint", func() error {
			text, err := adminGet(f.path("run", fmt.Sprint("edge-", i), "admin.sock"), "/clusters")
			if err == nil && strings.Contains(text, "::"+f.at(32, 15006)+"::") {
				err = errors.New("it is still there")
			}
			return err
		})
	}
	f.serving(1)
}

// TestPausedReplicaOfAZone lets a replica of a zone stand still: its connections stay open, and the other one takes it for dead. Its
// proxies notice and go to the other one before their endpoints end, and nothing is lost by that, nor when it goes on.
func TestPausedReplicaOfAZone(t *testing.T) {
	f := startZoneReplicas(t, awaitTime)
	f.see(6)
	requests := []*sending{f.send(f.edge(0)), f.send(f.edge(1))}
	endpoints := []*looking{f.look(0), f.look(1)}
	paused := f.holder()
	f.signal(zoneReplicaName(paused), syscall.SIGSTOP)
	f.figure(1-paused, "replicas", 1)
	f.figure(1-paused, "proxies", 3)
	f.signal(zoneReplicaName(paused), syscall.SIGCONT)
	f.see(6)
	f.settled("east", 4)
	f.serving(2)
	f.apply(gatewayRoute("after", "", pathRule("/after")))
	for i := range 2 {
		f.answers(newClient(t), http.StatusOK, "GET", f.edge(i)+"after")
		endpoints[i].allThere(t)
	}
	for _, r := range requests {
		r.noneLost(t)
	}
}
