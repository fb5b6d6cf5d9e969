package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestProxyTakesNoMoreConnections floods a gateway with connections. It takes as many as its launcher was told, those that it has go on,
// and there is room again once some end.
func TestProxyTakesNoMoreConnections(t *testing.T) {
	f := startEdge(t)
	f.apply(gatewayRoute("all", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1))
	const most = 20
	args := f.proxyArgs("east", 2, "edge-b", strings.Replace(gatewayDocument("default", "edge-b", f.host(12)), "kuma.io/service: edge-b}", "kuma.io/service: edge}", 1), f.path("tokens", "edge"))
	f.run("edge-b", append(args, "--max-connections", fmt.Sprint(most))...)
	f.settled("east", 4)
	f.answers(newClient(t), http.StatusOK, "GET", "http://"+f.at(12, 8080)+"/")
	request := func(c net.Conn) error {
		if err := c.SetDeadline(time.Now().Add(answerTime)); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: edge\r\n\r\n"); err != nil {
			return err
		}
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if _, err = io.Copy(io.Discard, r.Body); err == nil && r.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", r.StatusCode)
		}
		return err
	}
	open := func() (net.Conn, error) {
		c, err := net.DialTimeout("tcp", f.at(12, 8080), answerTime)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, request(c)
	}
	var taken []net.Conn
	f.await("connections that are taken", func() error { // those of before may not have ended yet
		for len(taken) < most {
			c, err := open()
			if err != nil {
				return err
			}
			taken = append(taken, c)
		}
		return nil
	})
	for range 2 * most {
		if _, err := open(); err == nil {
			t.Fatal("one too many was answered")
		} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatal("one too many is kept waiting")
		}
	}
	for n, c := range taken {
		if err := request(c); err != nil {
			t.Errorf("connection %d: %v", n, err)
		}
	}
	// The admin socket doesn't count, so its launcher still learns how it is.
	text, err := adminGet(f.path("run", "edge-b", "admin.sock"), "/stats?filter=downstream_global_cx_overflow")
	if err != nil || !strings.Contains(text, "downstream_global_cx_overflow: ") || strings.Contains(text, "8080.downstream_global_cx_overflow: 0") {
		t.Errorf("refused connections are not counted: %q %v", text, err)
	}
	for _, c := range taken {
		_ = c.Close()
	}
	f.answers(newClient(t), http.StatusOK, "GET", "http://"+f.at(12, 8080)+"/")
}
