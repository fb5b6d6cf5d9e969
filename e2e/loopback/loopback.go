// Package loopback owns the ports that tests take on 127.0.0.1 for servers that are started a moment later.
//
// It never gives a port twice in one process, and none of the range from which the kernel takes those of outgoing
// connections: such a port may be another connection's own by the time that its server binds it. Safe for concurrent use.
package loopback

import (
	"fmt"
	"net"
	"os"
	"sync"
)

// first and last bound the ports given out; Linux begins its ephemeral range at 32768.
const (
	first = 10000
	last  = 32000
)

var (
	mu sync.Mutex
	// next begins elsewhere in each process, as test binaries run beside each other.
	next = first + os.Getpid()*131%(last-first)
)

// Port returns a TCP port on which nothing listens at 127.0.0.1. It fails when none of the range is left.
func Port() (uint32, error) {
	mu.Lock()
	defer mu.Unlock()
	for range last - first {
		port := next
		if next++; next == last {
			next = first
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("port %d: %w", port, err)
		}
		return uint32(port), nil
	}
	return 0, fmt.Errorf("no port of 127.0.0.1 from %d to %d is free", first, last-1)
}
