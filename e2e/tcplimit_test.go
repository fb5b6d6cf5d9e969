package e2e

import (
	"fmt"
	"net"
	"testing"
)

// TestConnectionsUnderWay closes connections of TCP that are beyond a CircuitBreaker's limit, at a gateway's listener and at a sidecar,
// and takes new ones when those that were under way have ended.
func TestConnectionsUnderWay(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, permit("default", "all", "*", "*", "ALLOW"), edgeWith("{port: 5432, protocol: TCP}"), bytesRoute("db", "", "{destination: {kuma.io/service: db}}"))
	f.startTalker(f.at(31, 9000), "db")
	f.startProxy("east", 2, "db", sidecarDocument("default", "db", f.host(31), inboundOf("db", "tcp", f.host(31), 9000, "")), f.serviceToken("db"))
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.serviceToken("edge"))
	f.startProxy("east", 2, "client", sidecarDocument("default", "client", f.host(40), inboundOf("client", "http", f.host(40), 8080, "")+
		fmt.Sprintf("  outbound:\n    - {port: 7002, address: %s, tags: {kuma.io/service: db}}\n", f.host(40))), f.serviceToken("client"))
	f.settled("east", 3)
	f.apply("type: CircuitBreaker\nmesh: default\nname: db\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: db}}]\nconf: {thresholds: {maxConnections: 1}}\n")
	for way, address := range map[string]string{"gateway": f.at(10, 5432), "sidecar": f.at(40, 7002)} {
		t.Run(way, func(t *testing.T) {
			answered := func() error { _, err := saysHello(address); return err }
			f.await("an answer", answered)
			// Each worker of a proxy may have one. Of 15 connections for each of two workers, one of them gets none less than once in 500
			// million runs.
			proxy := map[string]string{"gateway": "edge", "sidecar": "client"}[way]
			workers := f.workers(proxy)
			var held []net.Conn
			for range 15 * workers {
				conn, err := net.DialTimeout("tcp", address, answerTime)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				held = append(held, conn)
			}
			f.await("connections beyond the limit", func() error {
				n, err := f.stat(proxy, "upstream_cx_overflow")
				if err == nil && n < len(held)-workers {
					err = fmt.Errorf("%d are refused", n)
				}
				return err
			})
			for range 5 {
				if answered() == nil {
					t.Error("a connection beyond the limit is answered")
				}
			}
			for _, conn := range held {
				conn.Close()
			}
			f.await("an answer once there is room", answered)
		})
	}
}
