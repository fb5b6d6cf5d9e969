package dataplane

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/e2e/loopback"
)

// TestARealEnvoyDrainsUntilItsLastConnectionIsClosed holds the name of the statistic that the drain looks at, which is
// Envoy's, and that an open connection is neither cut off nor outlived.
func TestARealEnvoyDrainsUntilItsLastConnectionIsClosed(t *testing.T) {
	envoy := findEnvoy(t)
	workload, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer workload.Close()
	go func() {
		for {
			conn, err := workload.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 16)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					if _, err := conn.Write(buffer[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	dir, err := os.MkdirTemp("", "zf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port, err := loopback.Port()
	if err != nil {
		t.Fatal(err)
	}
	address := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)}
	socket := filepath.Join(dir, "admin.sock")
	bootstrap := put(t, filepath.Join(dir, "bootstrap.json"), fmt.Sprintf(`{
 "admin": {"address": {"pipe": {"path": %q}}},
 "static_resources": {
  "listeners": [{"name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}, "filter_chains": [{"filters": [
   {"name": "envoy.filters.network.tcp_proxy", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "stat_prefix": "in", "cluster": "workload"}}]}]}],
  "clusters": [{"name": "workload", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": "workload", "endpoints": [{"lb_endpoints": [
   {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}}}]}]}}]}}`,
		socket, address.Port, workload.Addr().(*net.TCPAddr).Port))
	var log bytes.Buffer
	s, err := New(Config{
		Path: envoy.Path, Args: Arguments(bootstrap, time.Hour, "warning"), AdminSocket: socket, Drain: time.Hour, Stderr: &log, Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer stop()

	echo := func(conn net.Conn, text string) error {
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			return err
		}
		buffer := make([]byte, 16)
		n, err := conn.Read(buffer)
		if err == nil && string(buffer[:n]) != text {
			err = fmt.Errorf("got %q, want %q", buffer[:n], text)
		}
		return err
	}
	var conn net.Conn
	limit := time.After(2 * time.Minute)
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for conn == nil {
		c, err := net.Dial("tcp", address.String())
		if err == nil {
			if err = echo(c, "hello"); err == nil {
				conn = c
				continue
			}
			c.Close()
		}
		select {
		case <-retry.C:
		case err := <-done:
			t.Fatalf("Envoy ended: %v\n%s", err, log.String())
		case <-limit:
			t.Fatalf("no connection through Envoy: %v", err)
		}
	}
	if s.idle() {
		t.Error("a proxy with an open connection counts as idle")
	}
	stop()
	// Many looks later the connection still works.
	busy := time.NewTimer(10 * lookInterval)
	defer busy.Stop()
	select {
	case err := <-done:
		t.Fatalf("it left with a connection open: %v", err)
	case <-busy.C:
	}
	if err := echo(conn, "still here"); err != nil {
		t.Errorf("an open connection while it drains: %v", err)
	}
	conn.Close()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("it did not leave after its last connection was closed")
	}
}
