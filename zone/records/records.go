// Package records has servers read connections of TLS a record at a time, so that thousands of them take less memory.
//
// crypto/tls keeps, for as long as a connection lives, the largest buffer that it ever read into. It reads as much as is there, and when
// that ends within the next record, the buffer is made twice as large: 36 KiB for records of 16, as Envoy's first request has them. Who is
// given no byte of the next record needs 18. It costs one more read a record, so small buffers are filled as ever, except that a long record
// is taken to be followed by one as long, as the pieces of a request are.
//
// It decides nothing: what comes is handed on as it is, whether it is TLS or not.
package records

import "net"

const (
	// A record of TLS has a header of 5 bytes, of which the last two are the length of what follows (RFC 8446, section 5.1).
	header = 5
	// small is a buffer that may as well be twice as large.
	small = 4 << 10
	// long is a record that is a piece of something, more likely than all of it.
	long = 512
)

// Listener gives connections that are read a record at a time.
type Listener struct{ net.Listener }

// Accept is net.Listener's.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

// conn must be read by one goroutine at a time, as crypto/tls does.
type conn struct {
	net.Conn
	// got counts the bytes of the header, of which length is the end, and left those of the record behind it. Before a header length is
	// that of the record before.
	got, length, left int
}

// NetConn gives the connection below, for its socket alone.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Read is net.Conn's.
func (c *conn) Read(p []byte) (int, error) {
	switch {
	case c.left > 0:
		p = p[:min(c.left, len(p))]
	case len(p) > small:
		p = p[:header-c.got]
	case c.got == 0 && c.length > long:
		p = p[:min(header+c.length, len(p))]
	}
	n, err := c.Conn.Read(p)
	c.pass(p[:n])
	return n, err
}

// pass goes over what was read.
func (c *conn) pass(p []byte) {
	for len(p) > 0 {
		if c.left > 0 {
			n := min(c.left, len(p))
			c.left -= n
			p = p[n:]
			continue
		}
		c.length = c.length<<8&0xffff | int(p[0])
		p = p[1:]
		if c.got++; c.got == header {
			c.got, c.left = 0, c.length
		}
	}
}
