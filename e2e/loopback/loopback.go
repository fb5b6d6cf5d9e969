// Package loopback owns the ports that tests take on 127.0.0.1 for servers that are started a moment later.
//
// It never gives a port twice in one process, nor one that another process was given and still runs with, as test binaries run beside
// each other; and none of the range from which the kernel takes those of outgoing connections: such a port may be another connection's
// own by the time that its server binds it. Safe for concurrent use.
package loopback

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// first and last bound the ports given out; Linux begins its ephemeral range at 32768.
const (
	first = 10000
	last  = 32000
)

var (
	mu sync.Mutex
	// next begins elsewhere in each process, so that few are taken.
	next = first + os.Getpid()*131%(last-first)
	// held are the locks of the ports given out, which end with the process; a File that nobody refers to is closed.
	held []*os.File
)

// Port returns a TCP port on which nothing listens at 127.0.0.1. It fails when none of the range is left, or the locks of ports can't
// be kept in the folder for temporary files.
func Port() (uint32, error) {
	mu.Lock()
	defer mu.Unlock()
	for range last - first {
		port := next
		if next++; next == last {
			next = first
		}
		lock, err := reserve(port)
		if err != nil {
			return 0, err
		}
		if lock == nil {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			_ = lock.Close() // whoever listens has no need of it
			continue
		}
		held = append(held, lock)
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("port %d: %w", port, err)
		}
		return uint32(port), nil
	}
	return 0, fmt.Errorf("no port of 127.0.0.1 from %d to %d is free", first, last-1)
}

// reserve gives the lock of a port, which any other process is refused as long as this one keeps it; nil when another has it.
func reserve(port int) (*os.File, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("zoneforge-test-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("locks of ports: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of port %d: %w", port, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("lock of port %d: %w", port, err)
	}
	return f, nil
}
