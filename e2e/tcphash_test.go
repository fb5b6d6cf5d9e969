package e2e

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// TestConnectionsByAddress has connections of one client go to one endpoint, and those of many to all, by each algorithm that hashes:
// through a listener of a gateway and through a sidecar.
func TestConnectionsByAddress(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, permit("default", "all", "*", "*", "ALLOW"), edgeWith("{port: 5432, protocol: TCP}"), bytesRoute("db", "", "{destination: {kuma.io/service: db}}"))
	const members = 3
	for i := range members {
		name := fmt.Sprintf("db-%d", i)
		f.startTalker(f.at(31+i, 9000), name)
		f.startProxy("east", 2, name, sidecarDocument("default", name, f.host(31+i), inboundOf("db", "tcp", f.host(31+i), 9000, "")), f.serviceToken("db"))
	}
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.serviceToken("edge"))
	f.startProxy("east", 2, "client", sidecarDocument("default", "client", f.host(40), inboundOf("client", "http", f.host(40), 8080, "")+
		fmt.Sprintf("  outbound:\n    - {port: 7002, address: %s, tags: {kuma.io/service: db}}\n", f.host(40))), f.serviceToken("client"))
	f.settled("east", members+2)

	// from says who answers a client of an address.
	from := func(n int, address string) (string, error) {
		d := net.Dialer{Timeout: answerTime, LocalAddr: &net.TCPAddr{IP: net.ParseIP(f.host(n))}}
		conn, err := d.Dial("tcp", address)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
			return "", err
		}
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return "", err
		}
		out, err := io.ReadAll(conn)
		if err == nil && len(out) == 0 {
			err = io.ErrUnexpectedEOF
		}
		return string(out), err
	}
	for _, algorithm := range []string{"maglev: {}", "ringHash: {}"} {
		f.apply(fmt.Sprintf("type: TrafficRoute\nmesh: default\nname: db\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: db}}]\nconf:\n  loadBalancer: {%s}\n", algorithm))
		for way, address := range map[string]string{"gateway": f.at(10, 5432), "sidecar": f.at(40, 7002)} {
			f.await(algorithm+" at a "+way, func() error {
				all := map[string]bool{}
				// Of three endpoints, none is left out by 30 addresses but once in 60,000 ways to place them, and the places are fixed.
				for n := range 30 {
					first := ""
					for range 4 {
						got, err := from(100+n, address)
						if err != nil {
							return err
						}
						if first != "" && got != first {
							return fmt.Errorf("client %d is answered by %q and %q", n, first, got)
						}
						first = got
					}
					all[first] = true
				}
				if len(all) != members {
					return fmt.Errorf("all clients are answered by %v", all)
				}
				return nil
			})
		}
	}
}
