// Package overload owns the bounds that servers set to whoever uses them too much: how many connections a port has, how often and
// how much at once a client may ask.
//
// It never decides who a client is nor what it may do, and nothing in it waits: it tells at once whether there is room. All of it
// takes memory that is bounded, however many clients come.
package overload

import (
	"net"
	"net/netip"
	"slices"
	"sync"
)

// Listener bounds the connections of a port. When there is no room, the address that has most of them gives way, by its newest one:
// so whoever floods a port pushes out himself, and those who were there before stay. Addresses of IPv6 count by their /64.
type Listener struct {
	net.Listener
	most int

	mu sync.Mutex
	// Guarded by mu.
	open    int
	refused uint64
	// of holds the connections of each address, oldest first; by holds the addresses by how many they have, of which heaviest is the
	// largest number. So a flood costs no search.
	of       map[netip.Prefix][]*conn
	by       map[int]map[netip.Prefix]bool
	heaviest int
}

// Listen bounds the connections that a listener takes; 0 sets no bound, and they are only counted.
func Listen(l net.Listener, most int) *Listener {
	return &Listener{Listener: l, most: most, of: map[netip.Prefix][]*conn{}, by: map[int]map[netip.Prefix]bool{}}
}

// Open counts the connections.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Refused counts those that were closed because there were too many.
func (l *Listener) Refused() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// Accept gives the next connection that there is room for.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: inner, of: l, from: origin(inner.RemoteAddr())}
		if out := l.admit(c); out != nil {
			_ = out.Conn.Close() // its client finds out
			if out == c {
				continue
			}
		}
		return c, nil
	}
}

// admit counts a connection and gives the one that has to go for it, which may be itself.
func (l *Listener) admit(c *conn) (out *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most > 0 && l.open >= l.most {
		l.refused++
		// Between equals, those who were there before stay.
		if l.heaviest <= len(l.of[c.from])+1 {
			return c
		}
		for from := range l.by[l.heaviest] {
			out = l.of[from][l.heaviest-1]
			break
		}
		l.removeLocked(out)
	}
	l.open++
	n := len(l.of[c.from])
	l.of[c.from] = append(l.of[c.from], c)
	l.moveLocked(c.from, n, n+1)
	return out
}

// moveLocked notes that an address has another number of connections, one more or one less.
func (l *Listener) moveLocked(from netip.Prefix, before, now int) {
	if delete(l.by[before], from); len(l.by[before]) == 0 {
		delete(l.by, before)
	}
	if now > 0 {
		if l.by[now] == nil {
			l.by[now] = map[netip.Prefix]bool{}
		}
		l.by[now][from] = true
	}
	if now > l.heaviest || before == l.heaviest && l.by[before] == nil {
		l.heaviest = now
	}
}

func (l *Listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removeLocked(c)
}

func (l *Listener) removeLocked(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	l.open--
	left := slices.DeleteFunc(l.of[c.from], func(other *conn) bool { return other == c })
	l.moveLocked(c.from, len(left)+1, len(left))
	if len(left) == 0 {
		delete(l.of, c.from)
		return
	}
	l.of[c.from] = left
}

// origin is whom a connection counts for; all that are not of an IP address count for one.
func origin(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	out, _ := ip.Prefix(bits) // the zero prefix for an invalid address
	return out
}

// conn counts as long as it is open.
type conn struct {
	net.Conn
	of   *Listener
	from netip.Prefix
	// gone says that it doesn't count any more; guarded by the listener's mu.
	gone bool
}

// NetConn gives the connection below, for its socket alone.
func (c *conn) NetConn() net.Conn { return c.Conn }

// Close is net.Conn's.
func (c *conn) Close() error {
	c.of.remove(c)
	return c.Conn.Close()
}
