//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/netns"
)

// TestPartedReplicasOfAZone parts the replicas of a zone from each other, for longer than the grace of endpoints, with a gateway at one and what it
// leads to at the other. While the other one may live, as global says or as nobody can say, no endpoint goes, and no request is lost; also not when a
// replica starts again meanwhile. The endpoints of one that dies behind the partition go.
func TestPartedReplicasOfAZone(t *testing.T) {
	d := newDistributed(t)
	z := zoneReplicas{federation: d.federation, grace: 2 * time.Second}
	z.startReplicas()
	d.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"),
		gatewayRoute("routes", "", `      - matches: [{path: {match: PREFIX, value: /one}}]
        backends: [{destination: {kuma.io/service: one}}]
      - matches: [{path: {match: PREFIX, value: /two}}]
        backends: [{destination: {kuma.io/service: two}}]
`))
	d.workload(d.at(11, 8080), "echo-east", nil)
	d.workload2(d.at(11, 8081), "echo-east")
	d.token("echo-east", "dataplane", "--mesh", "default")
	d.startEcho(siteEast, zoneReplicaHost(1), 11)
	d.startProxy("east", zoneReplicaHost(0), "edge-east", gatewayDocument("default", "edge", d.host(10)), d.token("edge", "dataplane", "--mesh", "default", "--service", "edge"))
	d.settled("east", 2)
	z.see(4)
	d.answered("echo-east")
	endpoints := d.lookAt("edge-east", d.at(11, 15006), d.at(11, 15007))
	stop := d.load()

	parted := func(want float64) {
		t.Helper()
		for i := range 2 {
			z.figure(i, "replicas", 2-want)
			z.figure(i, "replicas_parted", want)
		}
	}
	// outlast waits until the grace has passed, which is longer while proxies come back, and requests were sent all the while.
	outlast := func(grace time.Duration) {
		t.Helper()
		d.mu.Lock()
		sent := d.sent
		d.mu.Unlock()
		began := time.Now()
		d.await("the end of the grace", func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if took := time.Since(began); took < grace || d.sent < sent+20 {
				return fmt.Errorf("%d requests within %s", d.sent-sent, took)
			}
			return nil
		})
	}
	lostNone := func(while string) {
		t.Helper()
		d.answered("echo-east")
		d.lostNone(while)
	}

	d.cutOff(siteZone, siteB)
	parted(1)
	outlast(2 * z.grace)
	lostNone("the replicas were parted")

	// The one that the gateway has starts again, and knows of the other's proxy from its disk.
	d.kill("east")
	z.startReplica(0)
	z.figure(0, "proxies", 1)
	parted(1)
	outlast(5 * z.grace)
	lostNone("a replica started again behind the partition")

	d.net.Heal()
	parted(0)
	z.see(4)
	lostNone("they found each other again")

	// Global can't be asked either. To the other one it says that this one is gone.
	d.cutOff(siteZone, siteB, siteGlobal)
	z.figure(0, "replicas_parted", 1)
	z.figure(1, "replicas", 1)
	z.figure(1, "replicas_parted", 0)
	outlast(2 * z.grace)
	lostNone("a replica was cut off from the other one and from global")

	// Global is back, and the other one dies behind the partition. Its proxy knows no other replica.
	d.net.Between(siteZone, siteGlobal, netns.Fault{})
	parted(1)
	lostNone("global came back")
	stop()
	endpoints.allThere(t)
	d.kill("east-b")
	d.await("the end of the endpoints of a replica that died", func() error {
		text, err := adminGet(d.path("run", "edge-east", "admin.sock"), "/clusters")
		if err == nil && strings.Contains(text, "::"+d.at(11, 15006)+"::") {
			err = errors.New("they are still there")
		}
		return err
	})
	z.figure(0, "replicas_parted", 0)
}
