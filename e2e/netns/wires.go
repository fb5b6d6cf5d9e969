//go:build linux

package netns

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Fault is how packets fare on one way between two sites; the zero Fault carries all at once.
type Fault struct {
	// Cut drops all, without a word to whoever sent them.
	Cut bool
	// Loss is the share of packets that is dropped, from 0 to 1.
	Loss float64
	// Delay is how long each takes, Jitter by how much longer it may take: packets overtake each other by that.
	Delay, Jitter time.Duration
}

// Count is what became of the packets of a way.
type Count struct{ Carried, Dropped, Overtaken int }

// maxUnderWay bounds the packets that are delayed.
const maxUnderWay = 4096

type way struct{ from, to string }

// wires are the faults between sites, and what is under way.
type wires struct {
	mu sync.Mutex
	// Guarded by mu.
	faults   map[way]Fault
	counts   map[way]Count
	underWay int
	closed   bool
	// latest is when the packet that was sent last will arrive, by way.
	latest map[way]time.Time
	idle   sync.WaitGroup
}

// Set says how packets fare from one site to another from now on; the way back is another one.
func (n *Network) Set(from, to string, f Fault) {
	n.wires.mu.Lock()
	defer n.wires.mu.Unlock()
	n.wires.faults[way{from, to}] = f
}

// Between sets both ways.
func (n *Network) Between(a, b string, f Fault) {
	n.Set(a, b, f)
	n.Set(b, a, f)
}

// Heal takes all faults away.
func (n *Network) Heal() {
	n.wires.mu.Lock()
	defer n.wires.mu.Unlock()
	clear(n.wires.faults)
}

// Count is what became of the packets from one site to another so far.
func (n *Network) Count(from, to string) Count {
	n.wires.mu.Lock()
	defer n.wires.mu.Unlock()
	return n.wires.counts[way{from, to}]
}

// carry reads the packets that leave a site, and takes them to where they go.
func (n *Network) carry(s *site) {
	buffer := make([]byte, mtu)
	for {
		size, err := s.tun.Read(buffer)
		if err != nil {
			return // it was closed
		}
		const version4, destinationAt, least = 4, 16, 20
		if size < least || buffer[0]>>4 != version4 {
			continue
		}
		to := n.owners[netip.AddrFrom4([4]byte(buffer[destinationAt:least]))]
		if to == nil {
			continue
		}
		wait, ok := n.wires.fate(way{s.name, to.name})
		switch {
		case !ok:
		case wait == 0:
			_, _ = to.tun.Write(buffer[:size]) // a queue that is full drops it, as networks do
			n.wires.arrived(false)
		default:
			packet := append([]byte(nil), buffer[:size]...)
			time.AfterFunc(wait, func() {
				_, _ = to.tun.Write(packet)
				n.wires.arrived(true)
			})
		}
	}
}

// fate decides over one packet.
func (w *wires) fate(on way) (wait time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.counts == nil {
		w.counts, w.latest = map[way]Count{}, map[way]time.Time{}
	}
	f, count := w.faults[on], w.counts[on]
	defer func() { w.counts[on] = count }()
	if w.closed || f.Cut || f.Loss > 0 && rand.Float64() < f.Loss || f.Delay+f.Jitter > 0 && w.underWay >= maxUnderWay {
		count.Dropped++
		return 0, false
	}
	count.Carried++
	w.idle.Add(1)
	if wait = f.Delay; f.Jitter > 0 {
		wait += rand.N(f.Jitter)
	}
	if wait > 0 {
		w.underWay++
	}
	at := time.Now().Add(wait)
	if at.Before(w.latest[on]) {
		count.Overtaken++
	} else {
		w.latest[on] = at
	}
	return wait, true
}

func (w *wires) arrived(delayed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delayed {
		w.underWay--
	}
	w.idle.Done()
}

// close drops all packets from now on, and waits for those that are under way.
func (w *wires) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.idle.Wait()
}
