//go:build !linux

package quiet

import (
	"errors"
	"net"
	"time"
)

// socket is that below a connection. Where the kernel can't be asked what waits, nobody is spoken to, and the far ends ask.
type socket struct{ net.Conn }

func socketOf(net.Conn) (socket, bool) { return socket{}, false }

func (socket) bound(time.Duration) {}

func (socket) unsent() (int, error) { return 0, errors.ErrUnsupported }

func (socket) unread() (int, error) { return 0, errors.ErrUnsupported }
