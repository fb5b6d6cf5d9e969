package fault

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/e2e/goroutines"
)

func TestMain(m *testing.M) { goroutines.Verify(m) }

// brief is how long silence is watched for; anything on loopback comes much sooner.
const brief = 100 * time.Millisecond

// echo is a target that gives back what it gets, and tells of connections that end.
func echo(t *testing.T) (address string, ended <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ends := make(chan struct{}, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
				ends <- struct{}{}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String(), ends
}

func start(t *testing.T) (*Proxy, <-chan struct{}) {
	t.Helper()
	target, ended := echo(t)
	p, err := Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, ended
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v; want %q", got, err, want)
	}
}

// silent fails unless nothing comes, not even an end.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(brief))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes, %v; want silence", n, err)
	}
}

// lost waits until the proxy has lost bytes of a connection, and so will lose all that come after them.
func lost(t *testing.T, p *Proxy) {
	t.Helper()
	silenced := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for l := range p.links {
			if l.silent {
				return true
			}
		}
		return false
	}
	late := time.After(time.Minute)
	for !silenced() {
		select {
		case <-late:
			t.Fatal("nothing was lost")
		case <-time.After(time.Millisecond):
		}
	}
}

func ends(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes, %v; want the connection's end", n, err)
	}
}

func TestPassesAndDrops(t *testing.T) {
	p, ended := start(t)
	c := dial(t, p)
	say(t, c, "one")
	hear(t, c, "one")
	p.Drop()
	ends(t, c)
	<-ended
	c = dial(t, p)
	say(t, c, "two")
	hear(t, c, "two")
	if n := p.Accepted(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	_ = c.Close()
	<-ended // an end is passed on
}

func TestPauseLosesNothing(t *testing.T) {
	p, _ := start(t)
	c := dial(t, p)
	say(t, c, "a")
	hear(t, c, "a")
	p.Pause()
	say(t, c, "held")
	silent(t, c)
	p.Heal()
	hear(t, c, "held")
}

func TestBlackholeStaysSilent(t *testing.T) {
	p, ended := start(t)
	c := dial(t, p)
	say(t, c, "a")
	hear(t, c, "a")
	p.Blackhole()
	say(t, c, "lost")
	lost(t, p)
	silent(t, c)
	p.Heal()
	say(t, c, "lost, too")
	silent(t, c)
	select {
	case <-ended:
		t.Error("the target heard of an end")
	default:
	}
	c = dial(t, p)
	say(t, c, "b")
	hear(t, c, "b")
}

func TestSilenceAndHalfOpen(t *testing.T) {
	for _, fault := range []string{"silence", "half-open"} {
		t.Run(fault, func(t *testing.T) {
			p, ended := start(t)
			c := dial(t, p)
			say(t, c, "a")
			hear(t, c, "a")
			if err := p.Do(fault); err != nil {
				t.Fatal(err)
			}
			if fault == "half-open" {
				<-ended
			}
			say(t, c, "lost")
			silent(t, c)
			other := dial(t, p)
			say(t, other, "b")
			hear(t, other, "b")
		})
	}
}

func TestRefuse(t *testing.T) {
	p, _ := start(t)
	old := dial(t, p)
	say(t, old, "a")
	hear(t, old, "a")
	p.Refuse()
	ends(t, dial(t, p))
	say(t, old, "b")
	hear(t, old, "b")
	p.Heal()
	c := dial(t, p)
	say(t, c, "c")
	hear(t, c, "c")
}

func TestLimit(t *testing.T) {
	p, _ := start(t)
	c := dial(t, p)
	p.Limit(10_000)
	text := strings.Repeat("x", 2_000)
	began := time.Now()
	say(t, c, text)
	hear(t, c, text)
	if took := time.Since(began); took < brief {
		t.Errorf("2000 bytes took %s at 10000 a second", took)
	}
}

func TestTargetThatIsNotThere(t *testing.T) {
	p, _ := start(t)
	target, _ := echo(t)
	p.SetTarget("127.0.0.1:1")
	ends(t, dial(t, p))
	p.SetTarget(target)
	c := dial(t, p)
	say(t, c, "a")
	hear(t, c, "a")
}

func TestUnknownFault(t *testing.T) {
	p, _ := start(t)
	if err := p.Do("earthquake"); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
	for _, f := range Faults {
		if err := p.Do(f); err != nil {
			t.Error(err)
		}
	}
}
