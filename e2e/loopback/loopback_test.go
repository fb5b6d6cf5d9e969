package loopback

import (
	"fmt"
	"net"
	"testing"
)

// TestPort holds that no port is given twice, nor one on which somebody listens, nor one that another process was given. A lock is of
// the file that was opened, so one that is opened again here stands for another process.
func TestPort(t *testing.T) {
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", next))
	if err == nil {
		defer taken.Close()
	}
	seen := map[uint32]bool{uint32(next): true}
	lock, err := reserve(next + 1)
	if err != nil {
		t.Fatal(err)
	}
	if lock != nil {
		defer lock.Close()
	}
	seen[uint32(next+1)] = true
	for range 200 {
		port, err := Port()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < first || port >= last {
			t.Fatalf("port %d is taken, was given before or is out of range", port)
		}
		seen[port] = true
		if again, err := reserve(int(port)); err != nil || again != nil {
			t.Fatalf("another process gets port %d as well: %v", port, err)
		}
	}
}
