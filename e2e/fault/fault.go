// Package fault is a TCP proxy for tests that does to connections what networks do: it drops them, holds their bytes back, loses
// them without a word, leaves one end open, refuses new ones and is slow.
//
// It owns the connections that go through it, and never looks into what they carry: it changes, reorders and invents no byte. A
// connection that lost a byte is never used again, as TCP would not either.
package fault

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Proxy passes connections on to a target. All methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	target   string
	links    map[*link]bool
	paused   bool
	lossy    bool
	refusing bool
	rate     int
	accepted int
	closed   bool
	changed  chan struct{} // closed and made anew when any of these changes
}

// link is one connection with its continuation.
type link struct {
	client, server net.Conn
	// gone is closed when both ends are.
	gone chan struct{}
	once sync.Once
	// silent, guarded by the proxy's mu: bytes were lost, so that none may follow.
	silent bool
}

// Listen starts a proxy on a free port of loopback. Target is host:port, and need not be there yet.
func Listen(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	p := &Proxy{listener: l, target: target, links: map[*link]bool{}, changed: make(chan struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is the host:port that clients use instead of the target's.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetTarget is for new connections.
func (p *Proxy) SetTarget(target string) { p.set(func() { p.target = target }) }

// Accepted counts connections since the start.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Open counts connections that are not closed, silent ones among them.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Drop closes all connections by a reset, as a process that is killed or a firewall that rejects.
func (p *Proxy) Drop() {
	p.each(func(l *link) {
		for _, c := range []net.Conn{l.client, l.server} {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		}
		l.close()
	})
}

// Pause holds all bytes back, in both directions, until Heal; none is lost.
func (p *Proxy) Pause() { p.set(func() { p.paused = true }) }

// Blackhole swallows all bytes until Heal, and tells nobody. Connections that lost any stay silent after that.
func (p *Proxy) Blackhole() { p.set(func() { p.lossy = true }) }

// Silence makes all connections of now silent for good, as a router does that forgot them. New ones pass.
func (p *Proxy) Silence() { p.each(func(l *link) { l.silent = true }) }

// HalfOpen closes the target's end of all connections and leaves the clients' open and silent. New ones pass.
func (p *Proxy) HalfOpen() {
	p.each(func(l *link) {
		l.silent = true
		_ = l.server.Close()
	})
}

// Refuse closes new connections as soon as they come, until Heal; those of now stay.
func (p *Proxy) Refuse() { p.set(func() { p.refusing = true }) }

// Limit passes at most so many bytes a second, of each connection and direction, until Heal.
func (p *Proxy) Limit(bytesPerSecond int) { p.set(func() { p.rate = max(bytesPerSecond, 1) }) }

// Heal ends all faults. What was held back goes on; connections that became silent stay so until an end gives up.
func (p *Proxy) Heal() {
	p.set(func() { p.paused, p.lossy, p.refusing, p.rate = false, false, false, 0 })
}

// Close ends all connections and joins all goroutines.
func (p *Proxy) Close() error {
	p.set(func() { p.closed = true })
	err := p.listener.Close()
	p.each(func(l *link) { l.close() })
	p.wg.Wait()
	return err
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) each(do func(*link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		do(l)
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.mu.Lock()
		p.accepted++
		refusing, target := p.refusing || p.closed, p.target
		p.mu.Unlock()
		if refusing {
			_ = client.Close()
			continue
		}
		p.wg.Go(func() { p.serve(client, target) })
	}
}

func (p *Proxy) serve(client net.Conn, target string) {
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, server: server, gone: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = true
	closed := p.closed
	p.mu.Unlock()
	if closed {
		l.close()
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(l, l.client, l.server) })
	both.Go(func() { p.pump(l, l.server, l.client) })
	both.Wait()
	l.close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.gone)
		_, _ = l.client.Close(), l.server.Close()
	})
}

// pump copies one direction until an end closes. An end that closes is told to the other only while bytes pass.
func (p *Proxy) pump(l *link, from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		rate, ok := p.wait(l)
		if !ok {
			return
		}
		size := len(buf)
		if rate > 0 {
			size = min(size, max(rate/20, 1))
		}
		n, err := from.Read(buf[:size])
		if rate, ok = p.wait(l); !ok {
			return
		}
		// Before they pass, as they may have been read before there was a limit.
		if rate > 0 && !l.rest(time.Duration(n)*time.Second/time.Duration(rate)) {
			return
		}
		if p.swallow(l) {
			if err != nil {
				// The other end learns nothing; it goes when it gives up, or with the proxy.
				if from == l.client {
					l.close()
				}
				return
			}
			continue
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				if !p.swallow(l) {
					l.close()
				}
				return
			}
		}
		if err != nil {
			l.close()
			return
		}
	}
}

// wait blocks while bytes are held back, and tells how many may pass in a second; ok is false once the link is gone.
func (p *Proxy) wait(l *link) (rate int, ok bool) {
	for {
		p.mu.Lock()
		paused, rate, changed := p.paused && !l.silent, p.rate, p.changed
		p.mu.Unlock()
		if !paused {
			select {
			case <-l.gone:
				return 0, false
			default:
				return rate, true
			}
		}
		select {
		case <-changed:
		case <-l.gone:
			return 0, false
		}
	}
}

// swallow tells whether what was read is lost.
func (p *Proxy) swallow(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.silent = l.silent || p.lossy
	return l.silent
}

// rest waits, unless the link ends before.
func (l *link) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.gone:
		return false
	}
}

// ErrUnknown is of Do.
var ErrUnknown = errors.New("unknown fault")

// Faults are the names that Do knows.
var Faults = []string{"drop", "pause", "blackhole", "silence", "half-open", "refuse", "limit"}

// Do begins a fault by its name, for scripts and random runs.
func (p *Proxy) Do(fault string) error {
	switch fault {
	case "drop":
		p.Drop()
	case "pause":
		p.Pause()
	case "blackhole":
		p.Blackhole()
	case "silence":
		p.Silence()
	case "half-open":
		p.HalfOpen()
	case "refuse":
		p.Refuse()
		p.Drop()
	case "limit":
		p.Limit(16 << 10)
	default:
		return fmt.Errorf("fault proxy: %w: %q", ErrUnknown, fault)
	}
	return nil
}
