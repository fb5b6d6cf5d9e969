package overload

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// port is a listener whose connections come from addresses of the test's choice.
type port struct {
	*Listener
	t    *testing.T
	next chan net.Conn
	in   chan net.Conn
}

func newPort(t *testing.T, most int) *port {
	t.Helper()
	p := &port{t: t, next: make(chan net.Conn), in: make(chan net.Conn)}
	p.Listener = Listen(incoming{p.next}, most)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := p.Listener.Accept()
			if err != nil {
				return
			}
			p.in <- c
		}
	}()
	t.Cleanup(func() { close(p.next); <-done })
	return p
}

type incoming struct{ next chan net.Conn }

func (i incoming) Accept() (net.Conn, error) {
	c, ok := <-i.next
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (i incoming) Close() error   { return nil }
func (i incoming) Addr() net.Addr { return nil }

type from struct {
	net.Conn
	address string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.address), Port: 1} }

// dial gives the server's end of a new connection; nil when it was refused.
func (p *port) dial(address string) *conn {
	p.t.Helper()
	client, inner := net.Pipe()
	p.next <- from{inner, address}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = client.Read(make([]byte, 1))
	}()
	select {
	case c := <-p.in:
		p.t.Cleanup(func() { _ = c.Close(); <-ended })
		return c.(*conn)
	case <-ended:
		return nil
	}
}

// Whoever floods a port pushes out himself, the newest first; those who were there before, and those who come later with a single
// connection, are served.
func TestFloodPushesOutItself(t *testing.T) {
	p := newPort(t, 10)
	var honest, flood []*conn
	for n := range 3 {
		honest = append(honest, p.dial(fmt.Sprintf("192.0.2.%d", n)))
	}
	for range 7 {
		flood = append(flood, p.dial("198.51.100.1"))
	}
	if p.Open() != 10 || p.Refused() != 0 {
		t.Fatalf("%d open, %d refused", p.Open(), p.Refused())
	}
	honest = append(honest, p.dial("2001:db8::1"))
	if p.Open() != 10 || p.Refused() != 1 {
		t.Fatalf("%d open, %d refused", p.Open(), p.Refused())
	}
	if p.dial("198.51.100.1") != nil || p.Refused() != 2 {
		t.Error("the flood went on")
	}
	for n, c := range honest {
		if c == nil || c.gone {
			t.Errorf("honest one %d has no connection", n)
		}
	}
	for n, c := range flood {
		if c.gone != (n == 6) {
			t.Errorf("connection %d of the flood: gone %v", n, c.gone)
		}
	}
	// All that end make room, once.
	for _, c := range append(honest, flood...) {
		_ = c.Close()
		_ = c.Close()
	}
	if p.Open() != 0 || len(p.of) != 0 || len(p.by) != 0 || p.heaviest != 0 {
		t.Errorf("%d are open after the end of all, of %d addresses, the heaviest has %d", p.Open(), len(p.of), p.heaviest)
	}
}

// What is kept of who has most is what a search finds, whoever comes and goes.
func TestHeaviestIsKnown(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	l := Listen(nil, 50)
	var open []*conn
	for range 5000 {
		if n := len(open); n > 0 && random.IntN(5) < 2 {
			at := random.IntN(n)
			l.remove(open[at])
			l.remove(open[at])
			open = slices.Delete(open, at, at+1)
		} else {
			c := &conn{of: l, from: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(12) * random.IntN(12))}), 32)}
			out := l.admit(c)
			if out != c {
				open = append(open, c)
			}
			if out != nil {
				open = slices.DeleteFunc(open, func(o *conn) bool { return o == out })
			}
		}
		most, addresses := 0, 0
		for _, conns := range l.of {
			most = max(most, len(conns))
		}
		for n, those := range l.by {
			addresses += len(those)
			for from := range those {
				if len(l.of[from]) != n {
					t.Fatalf("%s has %d connections, not %d", from, len(l.of[from]), n)
				}
			}
		}
		if l.heaviest != most || addresses != len(l.of) || l.open != len(open) || l.open > 50 {
			t.Fatalf("heaviest %d of %d, %d of %d addresses, %d of %d open", l.heaviest, most, addresses, len(l.of), l.open, len(open))
		}
	}
	if l.refused == 0 {
		t.Error("none was refused")
	}
}

// Whoever has a /64 has no more than whoever has one address, and between equals those who were there before stay.
func TestEqualsStay(t *testing.T) {
	p := newPort(t, 2)
	open := []*conn{p.dial("2001:db8::1"), p.dial("2001:db8::2")}
	if len(p.of) != 1 {
		t.Errorf("%d addresses", len(p.of))
	}
	if p.dial("2001:db8::3") != nil {
		t.Error("one too many was let in")
	}
	if c := p.dial("192.0.2.1"); c == nil || !open[1].gone || open[0].gone {
		t.Error("the newest of the many had to go")
	}
	if p.dial("192.0.2.2") != nil {
		t.Error("an equal was pushed out")
	}
}

func TestClients(t *testing.T) {
	c, now := NewClients(100*time.Millisecond, 5), time.Unix(1000, 0)
	for n := range 5 {
		if w := c.Ask("a", now); w != 0 {
			t.Fatalf("request %d of a burst has to wait %s", n, w)
		}
	}
	if w := c.Ask("a", now); w != 100*time.Millisecond {
		t.Errorf("the one after the burst: %s", w)
	}
	if w := c.Ask("b", now); w != 0 {
		t.Errorf("another client has to wait %s", w)
	}
	if w := c.Ask("a", now.Add(100*time.Millisecond)); w != 0 {
		t.Errorf("after the wait: %s", w)
	}
	if w := c.Ask("a", now.Add(100*time.Millisecond)); w == 0 {
		t.Error("waiting gave more than one")
	}
	if c.Refused() != 2 {
		t.Errorf("%d refused", c.Refused())
	}
	if w := NewClients(0, 5).Ask("a", now); w != 0 {
		t.Errorf("without a bound: %s", w)
	}
}

// However many clients come, as many are told apart as there is memory for, and the others share an allowance until there is room again.
func TestClientsAreBounded(t *testing.T) {
	c, now := NewClients(time.Second, 2), time.Unix(1000, 0)
	for n := range 3 * maxClients {
		c.Ask(fmt.Sprint(n), now)
	}
	if n := len(c.free); n > maxClients+1 {
		t.Fatalf("%d clients are told apart", n)
	}
	if w := c.Ask("late", now); w == 0 {
		t.Error("whoever comes when there are too many has an allowance of its own")
	}
	if w := c.Ask("0", now); w != 0 {
		t.Errorf("one that was there before has to wait %s", w)
	}
	now = now.Add(time.Minute)
	if w := c.Ask("late", now); w != 0 || len(c.free) > 2 {
		t.Errorf("after a minute it has to wait %s, and %d are remembered", w, len(c.free))
	}
}

func TestRoom(t *testing.T) {
	r := NewRoom(10, 4)
	leave, ok := r.Enter("a", 4)
	if !ok {
		t.Fatal("no room for the first")
	}
	if _, ok := r.Enter("a", 1); ok {
		t.Error("a client got more than its share")
	}
	if _, ok := r.Enter("b", 4); !ok {
		t.Error("no room for another")
	}
	if _, ok := r.Enter("c", 3); ok {
		t.Error("more than there is")
	}
	leave()
	if _, ok := r.Enter("c", 4); !ok {
		t.Error("no room after one left")
	}
	if len(r.of) != 2 {
		t.Errorf("%d clients are remembered", len(r.of))
	}
}
