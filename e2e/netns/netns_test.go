//go:build linux

package netns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func address(t *testing.T, text string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestWires sends lines between sites through each fault.
func TestWires(t *testing.T) {
	n, err := New(netip.MustParsePrefix("198.19.255.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat("/run/netns/" + n.sites["one"].namespace); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the namespace is left: %v", err)
		}
	})
	for name, a := range map[string]string{"one": "198.19.255.1", "two": "198.19.255.2", Root: "198.19.255.254"} {
		if err := n.Add(name, address(t, a)); err != nil {
			t.Fatal(err)
		}
	}
	n.Start()
	l, err := n.Listen("two", "198.19.255.2:7")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	// dial connects from a site; a packet that is lost is sent again after a second.
	dial := func(from string, timeout time.Duration) (c net.Conn, err error) {
		err = n.In(from, func() error {
			c, err = net.DialTimeout("tcp", "198.19.255.2:7", timeout)
			return err
		})
		return c, err
	}
	echo := func(c net.Conn, timeout time.Duration) error {
		if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "hello"); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 5))
		return err
	}
	c, err := dial("one", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := echo(c, time.Minute); err != nil {
		t.Fatal(err)
	}
	fromRoot, err := dial(Root, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer fromRoot.Close()

	// One way is enough to keep an answer from coming; the other site sees what is sent, and the third one is not concerned.
	n.Set("two", "one", Fault{Cut: true})
	var timeout net.Error
	if err := echo(c, 300*time.Millisecond); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("through a cut: %v", err)
	}
	if err := echo(fromRoot, time.Minute); err != nil {
		t.Error(err)
	}
	if got := n.Count("two", "one"); got.Dropped == 0 {
		t.Errorf("%+v", got)
	}
	n.Heal()

	n.Between("one", "two", Fault{Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond})
	later, err := dial("one", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	for range 20 {
		began := time.Now()
		if err := echo(later, time.Minute); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 40*time.Millisecond {
			t.Errorf("there and back in %s", took)
		}
	}
	sent := make([]byte, 64<<10)
	if err := later.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = later.Write(sent) }()
	if _, err := io.ReadFull(later, make([]byte, len(sent))); err != nil {
		t.Fatal(err)
	}
	if got := n.Count("one", "two"); got.Overtaken == 0 {
		t.Errorf("no packet overtook another: %+v", got)
	}

	n.Between("one", "two", Fault{Loss: 0.2})
	before := n.Count("one", "two")
	if err := later.SetDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = later.Write(sent) }()
	if _, err := io.ReadFull(later, make([]byte, len(sent))); err != nil {
		t.Fatal(err)
	}
	if got := n.Count("one", "two"); got.Dropped == before.Dropped {
		t.Errorf("no packet was lost: %+v", got)
	}
	n.Heal()

	// A program runs where its site is.
	command := append(n.Command("one"), "ip", "-4", "-brief", "addr", "show", "dev", device)
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil || !strings.Contains(string(out), "198.19.255.1/24") {
		t.Errorf("%s %v", out, err)
	}
}
