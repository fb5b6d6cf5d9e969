package quiet

import (
	"cmp"
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

// unsent is how many bytes wait for the far end to acknowledge them.
func (s socket) unsent() (int, error) { return s.ask(unix.TIOCOUTQ) }

// unread is how many bytes wait for this end to read them.
func (s socket) unread() (int, error) { return s.ask(unix.TIOCINQ) }

func (s socket) ask(request uint) (n int, err error) {
	failed := s.fd.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), request) })
	return n, cmp.Or(failed, err)
}
