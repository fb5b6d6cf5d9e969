package loopback

import (
	"fmt"
	"net"
	"testing"
)

func TestPort(t *testing.T) {
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", next))
	if err == nil {
		defer taken.Close()
	}
	seen := map[uint32]bool{uint32(next): true}
	for range 200 {
		port, err := Port()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < first || port >= last {
			t.Fatalf("port %d is taken, was given before or is out of range", port)
		}
		seen[port] = true
	}
}
