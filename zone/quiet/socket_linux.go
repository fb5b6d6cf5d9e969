package quiet

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is that below a connection.
type socket struct {
	net.Conn
	fd syscall.RawConn
}

// socketOf finds the socket of a connection of TCP, also one that others have wrapped.
func socketOf(c net.Conn) (socket, bool) {
	for {
		switch inner := c.(type) {
		case *net.TCPConn:
			fd, err := inner.SyscallConn()
			return socket{inner, fd}, err == nil
		case interface{ NetConn() net.Conn }:
			c = inner.NetConn()
		default:
			return socket{}, false
		}
	}
}

// bound has the kernel end the connection when nobody acknowledges what was sent (TCP_USER_TIMEOUT, RFC 5482). It goes without.
func (s socket) bound(d time.Duration) {
	_ = s.fd.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// waiting gives how many bytes wait for the far end to acknowledge them, and how many for this one to read them.
func (s socket) waiting() (unsent, unread int, err error) {
	var failed error
	err = s.fd.Control(func(fd uintptr) {
		if unsent, failed = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ); failed == nil {
			unread, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		}
	})
	if err == nil {
		err = failed
	}
	return unsent, unread, err
}
