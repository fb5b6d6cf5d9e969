//go:build unix

package zone

import (
	"errors"
	"net"
	"syscall"
)

// gone says whether the far end has closed a connection of which all that came was read, or its time is over.
func gone(c net.Conn) bool {
	for {
		switch inner := c.(type) {
		case syscall.Conn:
			raw, err := inner.SyscallConn()
			if err != nil {
				return true
			}
			var n int
			var failed error
			err = raw.Read(func(fd uintptr) bool {
				var one [1]byte
				n, _, failed = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
				return true
			})
			return err != nil || failed == nil && n == 0 || failed != nil && !errors.Is(failed, syscall.EAGAIN) && !errors.Is(failed, syscall.EINTR)
		case interface{ NetConn() net.Conn }:
			c = inner.NetConn()
		default:
			return false
		}
	}
}
