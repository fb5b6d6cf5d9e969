package quiet

import (
	"net"
	"sync"
	"sync/atomic"
)

// A frame of HTTP/2 has a header of 9 bytes: three of the payload's length, one of its type, one of flags and four of the stream (RFC 9113,
// section 4.1).
const frameHeader = 9

var (
	// nothing is a frame of a type that nobody knows and everybody ignores (RFC 9113, section 5.5).
	nothing = []byte{0, 0, 0, 0x0b, 0, 0, 0, 0, 0}
	ping    = []byte{0, 0, 8, 0x06, 0, 0, 0, 0, 0, 'q', 'u', 'i', 'e', 't', 'n', 'e', 's'}
)

// conn is a connection of HTTP/2, from the server's first frame on.
type conn struct {
	net.Conn
	// Set once.
	socket socket
	keeper *Keeper
	slot   int

	// heard says that something came since it was asked.
	heard atomic.Bool

	mu sync.Mutex
	// Guarded by mu: where in its frames the server is, and whether it wrote since all of it was acknowledged.
	frames frames
	wrote  bool

	// On the goroutine of the Keeper alone: how often it spoke, and the turn in which it asked, 0 while no answer is outstanding.
	spoke int
	asked uint64
}

// Read is net.Conn's.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard.Load() {
		c.heard.Store(true)
	}
	return n, err
}

// Write is net.Conn's.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.Conn.Write(p)
	c.wrote = true
	c.frames.pass(p[:n])
	return n, err
}

// Close is net.Conn's.
func (c *conn) Close() error {
	c.keeper.remove(c)
	return c.Conn.Close()
}

// speak sends the next frame, or ends the connection if the last question has no answer.
func (c *conn) speak(turn, void uint64) {
	if c.asked > void && !c.heard.Load() {
		if unread, err := c.socket.unread(); err != nil || unread == 0 {
			_ = c.socket.Close() // whoever reads finds out
			return
		}
	}
	c.asked = 0
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if !c.frames.between() {
		return
	}
	// What the server wrote and nobody has acknowledged yet speaks for itself, and there might be no room for more. A frame of this goroutine
	// that nobody acknowledged needs no look: the kernel ends the connection before the next turn.
	if c.wrote {
		if unsent, err := c.socket.unsent(); err != nil || unsent > 0 {
			return
		}
		c.wrote = false
	}
	frame := nothing
	if c.spoke++; c.spoke%asks == 0 {
		frame, c.asked = ping, turn
		c.heard.Store(false)
	}
	_, _ = c.Conn.Write(frame) // whoever reads finds out
}

// frames follows where frames begin and end.
type frames struct {
	begun  bool
	header [3]byte
	got    int // bytes of the header
	left   int // bytes of the payload
}

// between says whether a frame may begin.
func (f *frames) between() bool { return f.begun && f.got == 0 && f.left == 0 }

// pass goes over what was sent.
func (f *frames) pass(p []byte) {
	f.begun = f.begun || len(p) > 0
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, len(p))
			f.left -= n
			p = p[n:]
			continue
		}
		n := min(frameHeader-f.got, len(p))
		if f.got < len(f.header) {
			copy(f.header[f.got:], p[:n])
		}
		p = p[n:]
		if f.got += n; f.got == frameHeader {
			f.got, f.left = 0, int(f.header[0])<<16|int(f.header[1])<<8|int(f.header[2])
		}
	}
}
