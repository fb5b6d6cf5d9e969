package gossip

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// network parts replicas: what goes from one to another that is in another part is lost.
type network struct {
	mu    sync.Mutex
	parts map[string]int // by address
}

func (n *network) lost(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.parts[from] != n.parts[to]
}

func (n *network) part(parts map[string]int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.parts = parts
}

// wire is one replica's end.
type wire struct {
	*memberlist.NetTransport
	network *network
}

func (w wire) self() string { return fmt.Sprintf("127.0.0.1:%d", w.GetAutoBindPort()) }

func (w wire) WriteTo(b []byte, to string) (time.Time, error) {
	if w.network.lost(w.self(), to) {
		return time.Now(), nil
	}
	return w.NetTransport.WriteTo(b, to)
}

func (w wire) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	return w.WriteTo(b, to.Addr)
}

func (w wire) DialTimeout(to string, limit time.Duration) (net.Conn, error) {
	if w.network.lost(w.self(), to) {
		return nil, errors.New("parted")
	}
	return w.NetTransport.DialTimeout(to, limit)
}

func (w wire) DialAddressTimeout(to memberlist.Address, limit time.Duration) (net.Conn, error) {
	return w.DialTimeout(to.Addr, limit)
}

// Two halves of two replicas each take each other for dead, keep what the other half said for the grace, and find each other again.
func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	var c clock
	n := &network{}
	var all []*Gossip
	var address []string
	for i, name := range []string{"a", "b", "d", "e"} {
		g := replica(t, name, 1, &c, address...)
		tune := g.tune
		g.tune = func(m *memberlist.Config) {
			tune(m)
			nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: m.Logger})
			if err != nil {
				t.Error(err)
				return
			}
			m.Transport, m.SuspicionMult, m.GossipToTheDeadTime = wire{nt, n}, 2, 100*time.Millisecond
		}
		run(t, g)
		if s := wait(t, g, "the others", func(s Snapshot) bool { return len(s.Members) == i+1 }); i == 0 {
			address = []string{s.Members[0].Address} // the first is the only one that others are told of
		}
		if err := g.Put("k", []byte(name)); err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	for _, g := range all {
		wait(t, g, "all records", sizes(4, 4))
	}
	// One that is slow may be taken for dead for a moment.
	s := wait(t, all[0], "all replicas", sizes(4, 4))
	parts := map[string]int{}
	for _, m := range s.Members {
		if strings.Contains("de", m.Name) {
			parts[m.Address] = 1
		}
	}
	n.part(parts)
	for _, g := range all {
		wait(t, g, "two replicas, and what all four said", sizes(2, 4))
	}
	// Each half goes on meanwhile.
	for _, g := range all {
		if err := g.Put("k", []byte("new "+g.config.Name)); err != nil {
			t.Fatal(err)
		}
	}
	all[2].Delete("k")
	n.part(nil)
	for _, g := range all {
		wait(t, g, "all four, and what they said last", func(s Snapshot) bool {
			return sizes(4, 3)(s) && !slices.ContainsFunc(s.Records, func(r Record) bool { return string(r.Value) != "new "+r.Owner })
		})
	}
}
