package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/deploy/demo/talk"
)

// startAcross runs zone east with a gateway at address 10, and zone west with its ingress at address 20. The gateway alone may
// reach services.
func startAcross(t *testing.T, documents ...string) *federation {
	t.Helper()
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.startZone("west", 3)
	f.apply(append([]string{strictMesh, permit("default", "edge", "edge", "*", "ALLOW")}, documents...)...)
	f.startProxy("west", 3, "ingress", fmt.Sprintf("type: ZoneIngress\nname: ingress\nnetworking: {address: %s, port: 10001}\n", f.host(20)), f.token("ingress", "zone-ingress", "west"))
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.token("edge", "dataplane", "--mesh", "default", "--service", "edge"))
	return f
}

// startInWest runs a sidecar in zone west for a workload at port 8080 of the same address.
func (f *federation) startInWest(name, service, protocol string, n int, tags string) {
	f.t.Helper()
	f.startProxy("west", 3, name, sidecarDocument("default", name, f.host(n), inboundOf(service, protocol, f.host(n), 8080, tags)),
		f.token(name, "dataplane", "--mesh", "default", "--service", service))
}

// startTLSTalker is a talker that speaks TLS itself.
func (f *federation) startTLSTalker(address, name string, chain, key []byte) {
	f.t.Helper()
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		f.t.Fatal(err)
	}
	l, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
	go talk.ServeLines(l, name)
}

// converse sends a word over a connection and reads the answer to its end.
func converse(conn net.Conn) (string, error) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return "", err
	}
	out, err := io.ReadAll(conn)
	if err == nil && len(out) == 0 {
		err = errors.New("closed without an answer")
	}
	return string(out), err
}

// overTLS talks to a server name at an address; serial is that of the certificate it was shown.
func overTLS(address string, config *tls.Config) (answer string, serial int64, err error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: answerTime}, "tcp", address, config)
	if err != nil {
		return "", 0, err
	}
	serial = conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	answer, err = converse(conn)
	return answer, serial, err
}
