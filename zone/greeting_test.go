package zone

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/zoneforge/zoneforge/pki/certfile"
)

// gate lets clients in by handshakes that a greeter gives their turn.
type gate struct {
	*testing.T
	greeter  *greeter
	listener net.Listener
	client   *tls.Config
}

func newGate(t *testing.T, room int, ended <-chan struct{}) *gate {
	t.Helper()
	server, err := certfile.Ensure(t.TempDir(), rand.Reader, time.Now(), "zone", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.CA)
	g := newGreeter(ended)
	g.room = make(chan struct{}, room)
	g.bind(&tls.Config{Certificates: []tls.Certificate{server.Certificate}}, credentials.NewTLS)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &gate{t, g, l, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"h2"}}}
}

// come connects a client, whose handshake is begun at the server's end alone. done gives what comes of that.
func (g *gate) come() (near, far net.Conn, done <-chan error) {
	g.Helper()
	far, err := net.Dial("tcp", g.listener.Addr().String())
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { _ = far.Close() })
	if near, err = g.listener.Accept(); err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { _ = near.Close() })
	ended := make(chan error, 1)
	go func() {
		_, _, err := g.greeter.ServerHandshake(near)
		ended <- err
	}()
	return near, far, ended
}

// greet has a client say its part.
func (g *gate) greet(far net.Conn) <-chan error {
	done := make(chan error, 1)
	go func() { done <- tls.Client(far, g.client).Handshake() }()
	return done
}

// until waits for a condition.
func (g *gate) until(what string, ok func() bool) {
	g.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			g.Fatal(what)
		}
	}
}

func TestHandshakesTakeTurns(t *testing.T) {
	g := newGate(t, 1, nil)
	g.greeter.room <- struct{}{} // somebody has the turn
	var all []<-chan error
	for range 3 {
		_, far, done := g.come()
		all = append(all, done, g.greet(far))
	}
	g.until("nobody waits", func() bool { return g.greeter.waiting.Load() == 3 })
	for _, done := range all {
		select {
		case err := <-done:
			t.Fatalf("a handshake ended while another had the turn: %v", err)
		default:
		}
	}
	<-g.greeter.room
	for _, done := range all {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := len(g.greeter.room); n > 0 {
		t.Errorf("%d turns were not given back", n)
	}
}

func TestWhoSaysNothingKeepsNobodyWaiting(t *testing.T) {
	g := newGate(t, 1, nil)
	var silent []net.Conn
	var ends []<-chan error
	for range 3 {
		near, far, done := g.come()
		silent, ends = append(silent, near), append(ends, done)
		if _, err := far.Write([]byte{22, 3, 1}); err != nil { // the beginning of a record
			t.Fatal(err)
		}
	}
	// This one is answered, and says no more.
	_, far, done := g.come()
	hello := tls.Client(stopAfterHello{far}, g.client)
	if err := hello.Handshake(); !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	ends = append(ends, done)
	_, far, done = g.come()
	if err := <-g.greet(far); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, near := range silent {
		_ = near.Close()
	}
	_ = hello.NetConn().Close()
	for _, done := range ends {
		if err := <-done; err == nil {
			t.Error("a handshake without a client came to a good end")
		}
	}
}

var errEnough = errors.New("enough was said")

// stopAfterHello is a connection over which one message goes, and nothing is taken.
type stopAfterHello struct{ net.Conn }

func (stopAfterHello) Read([]byte) (int, error) { return 0, errEnough }

func TestWhoGaveUpIsNotAnswered(t *testing.T) {
	g := newGate(t, 1, nil)
	g.greeter.room <- struct{}{}
	near, far, done := g.come()
	said := g.greet(far)
	g.until("nobody waits", func() bool { return g.greeter.waiting.Load() == 1 })
	if gone(near) {
		t.Fatal("a client that waits is taken for one that has gone")
	}
	_ = far.Close()
	<-said
	g.until("the end of the connection is not seen", func() bool { return gone(near) })
	<-g.greeter.room
	if err := <-done; !errors.Is(err, errGone) {
		t.Errorf("%v, want %v", err, errGone)
	}
	if n := len(g.greeter.room); n > 0 {
		t.Errorf("%d turns were not given back", n)
	}
}

func TestNobodyWaitsForAZoneThatStops(t *testing.T) {
	ended := make(chan struct{})
	g := newGate(t, 1, ended)
	g.greeter.room <- struct{}{}
	_, far, done := g.come()
	said := g.greet(far)
	g.until("nobody waits", func() bool { return g.greeter.waiting.Load() == 1 })
	close(ended)
	if err := <-done; !errors.Is(err, errEnding) {
		t.Errorf("%v, want %v", err, errEnding)
	}
	_ = far.Close()
	<-said
}
