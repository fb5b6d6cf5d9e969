package gossip

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// patience is how long tests wait for what happens at once on a machine that does nothing else.
const patience = 2 * time.Minute

type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.offset.Load())) }

func replica(t *testing.T, name string, key byte, c *clock, join ...string) *Gossip {
	t.Helper()
	g, err := New(Config{Name: name, BindAddress: "127.0.0.1", Join: join, Keys: [][]byte{aes(key)}, Grace: time.Hour, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	g.tune = func(m *memberlist.Config) {
		m.ProbeInterval, m.ProbeTimeout, m.GossipInterval = 100*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond
	}
	return g
}

func aes(b byte) []byte {
	key := make([]byte, 16)
	key[0] = b
	return key
}

func run(t *testing.T, g *Gossip) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func wait(t *testing.T, g *Gossip, what string, ok func(Snapshot) bool) Snapshot {
	t.Helper()
	deadline := time.After(patience)
	for {
		s, changed := g.Watch()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: waiting for %s, have %v", g.config.Name, what, s)
		}
	}
}

func sizes(members, records int) func(Snapshot) bool {
	return func(s Snapshot) bool { return len(s.Members) == members && len(s.Records) == records }
}

func TestThreeReplicasConvergeAndOutliveOne(t *testing.T) {
	t.Parallel()
	var c clock
	a := replica(t, "a", 1, &c)
	run(t, a)
	address := wait(t, a, "itself", sizes(1, 0)).Members[0].Address
	b, d := replica(t, "b", 1, &c, address), replica(t, "d", 1, &c, address)
	d.leaveTimeout = 0
	stop := run(t, b)
	crash := run(t, d)
	for _, g := range []*Gossip{a, b, d} {
		if err := g.Put("k", []byte(g.config.Name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []*Gossip{a, b, d} {
		wait(t, g, "three records", sizes(3, 3))
	}
	b.Delete("k")
	wait(t, a, "the deletion", sizes(3, 2))
	wait(t, d, "the deletion", sizes(3, 2))
	crash()
	wait(t, a, "the death with its record kept", sizes(2, 2))
	wait(t, b, "the death with its record kept", sizes(2, 2))
	c.offset.Store(int64(2 * time.Hour))
	wait(t, a, "the end of the grace", sizes(2, 1))
	wait(t, b, "the end of the grace", sizes(2, 1))

	// One that stops says so, before or after it is missed.
	stop()
	wait(t, a, "the other one's end", sizes(1, 1))
	for deadline := time.After(patience); !a.Left(b.config.Name); {
		select {
		case <-deadline:
			t.Fatal("a goodbye is taken for a death")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if _, departed := a.Others(); len(departed) != 1 {
		t.Errorf("departed are %v", departed)
	}
}

func TestWrongKeyIsRefusedUntilRotated(t *testing.T) {
	var c clock
	a, stranger := replica(t, "a", 1, &c), replica(t, "stranger", 2, &c)
	run(t, a)
	address := wait(t, a, "itself", sizes(1, 0)).Members[0].Address
	if err := stranger.start(); err != nil {
		t.Fatal(err)
	}
	defer stranger.list.Shutdown()
	if _, err := stranger.list.Join([]string{address}); err == nil {
		t.Fatal("joined with a wrong key")
	}
	if s, _ := a.Watch(); len(s.Members) != 1 {
		t.Fatalf("a stranger came in: %v", s)
	}
	if err := stranger.Rotate([][]byte{aes(1)}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; {
		if _, err := stranger.list.Join([]string{address}); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	wait(t, a, "the stranger", sizes(2, 0))
}

func TestNewDemandsKeys(t *testing.T) {
	if _, err := New(Config{Name: "a"}); err == nil {
		t.Error("no keys and not insecure was accepted")
	}
	if _, err := New(Config{Name: "a", Insecure: true}); err != nil {
		t.Error(err)
	}
	if _, err := New(Config{Name: "a", Keys: [][]byte{{1}}}); err == nil {
		t.Error("a short key was accepted")
	}
}
