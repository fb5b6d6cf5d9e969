package quiet

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// soon is after how long a test gives up.
const soon = 2 * time.Minute

// pair is a kept connection and the far end of it.
type pair struct {
	testing.TB
	keeper *Keeper
	near   *conn
	far    *tls.Conn
	frames *http2.Framer
}

func connect(t testing.TB, k *Keeper) *pair {
	t.Helper()
	// Its certificate is all that is wanted of it.
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- result{nil, err}
			return
		}
		c, _, err := k.Credentials(&tls.Config{Certificates: web.TLS.Certificates}).ServerHandshake(wrapped{raw})
		done <- result{c, err}
	}()
	far, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	near, ok := r.conn.(*conn)
	if !ok {
		t.Fatalf("%T is not kept", r.conn)
	}
	if err := far.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	return &pair{t, k, near, far, http2.NewFramer(far, far)}
}

// wrapped is a connection as a listener that counts gives it.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// settle waits until the far end's kernel has acknowledged all.
func (p *pair) settle() {
	p.Helper()
	for until := time.Now().Add(soon); ; {
		unsent, err := p.near.socket.unsent()
		if err == nil && unsent == 0 {
			return
		}
		if err != nil || time.Now().After(until) {
			p.Fatalf("%d bytes are not acknowledged: %v", unsent, err)
		}
		runtime.Gosched()
	}
}

// turns goes around a number of times.
func (p *pair) turns(rounds int) {
	p.Helper()
	for range rounds * rotation {
		p.settle()
		p.keeper.turn(false)
	}
}

func (p *pair) write(b []byte) {
	p.Helper()
	if _, err := p.near.Write(b); err != nil {
		p.Fatal(err)
	}
}

// next reads frames until they are as wanted, each as its type and the length of its payload.
func (p *pair) next(want ...string) {
	p.Helper()
	for i, w := range want {
		f, err := p.frames.ReadFrame()
		if err != nil {
			p.Fatalf("frame %d: %v, want %s", i, err, w)
		}
		if got := fmt.Sprint(f.Header().Type, f.Header().Length); got != w {
			p.Fatalf("frame %d is %s, want %s", i, got, w)
		}
	}
}

var (
	settings = []byte{0, 0, 0, 0x04, 0, 0, 0, 0, 0}
	unknown  = fmt.Sprint(http2.FrameType(0x0b), 0)
)

// ended says whether the server's end was closed.
func (p *pair) ended() bool {
	_, err := p.near.socket.unsent()
	return err != nil
}

func TestEachConnectionIsSpokenToOnceARotation(t *testing.T) {
	k := New()
	var all []*pair
	for range 2*rotation + 1 {
		p := connect(t, k)
		p.write(settings)
		all = append(all, p)
	}
	for range 2 * rotation {
		before := 0
		for _, p := range all {
			p.settle()
			before += p.near.spoke
		}
		k.turn(false)
		for _, p := range all {
			before -= p.near.spoke
		}
		if before < -3 || before > -2 {
			t.Errorf("%d of %d connections were spoken to in one turn", -before, len(all))
		}
	}
	for _, p := range all {
		p.next("SETTINGS 0", unknown, unknown)
	}
}

func TestNothingIsSaidBeforeTheServerOrWithinAFrame(t *testing.T) {
	p := connect(t, New())
	p.turns(1)
	data := append([]byte{0, 1, 4, 0x00, 0, 0, 0, 0, 1}, bytes.Repeat([]byte{7}, 260)...)
	p.write(settings)
	for _, cut := range []int{1, 2, 5, 9, 10, 200} {
		p.write(data[:cut])
		p.turns(1)
		p.write(data[cut:])
	}
	p.turns(1)
	p.write(append(bytes.Clone(data), data[:11]...))
	p.turns(1)
	p.write(data[11:])
	p.turns(1)
	p.next("SETTINGS 0", "DATA 260", "DATA 260", "DATA 260", "DATA 260", "DATA 260", "DATA 260", unknown, "DATA 260", "DATA 260", unknown)
}

// What the far end has no room for speaks for itself, and there might be none for more.
func TestNothingIsAddedToWhatIsNotAcknowledged(t *testing.T) {
	p := connect(t, New())
	far := p.far.NetConn().(*net.TCPConn)
	p.write(settings)
	p.turns(1)
	p.next("SETTINGS 0", unknown)
	if err := errors.Join(far.SetReadBuffer(4<<10), p.near.socket.Conn.(*net.TCPConn).SetWriteBuffer(208<<10)); err != nil {
		t.Fatal(err)
	}
	// The far end's kernel takes a part of it, and this one's the rest.
	const size = 160 << 10
	p.write(append([]byte{size >> 16, size >> 8 & 0xff, size & 0xff, 0x00, 0, 0, 0, 0, 1}, make([]byte, size)...))
	if unsent, err := p.near.socket.unsent(); err != nil || unsent == 0 {
		t.Fatalf("all was acknowledged: %v", err)
	}
	before := p.near.spoke
	for range rotation {
		p.keeper.turn(false)
	}
	if p.near.spoke != before {
		t.Error("it was spoken to")
	}
	if err := far.SetReadBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	p.next(fmt.Sprint("DATA ", size))
	p.turns(1)
	p.next(unknown)
}

// asked reads the frames up to a question.
func (p *pair) asked() {
	p.Helper()
	for range asks - 1 {
		p.next(unknown)
	}
	p.next("PING 8")
}

func TestWhoAnswersStays(t *testing.T) {
	p := connect(t, New())
	p.write(settings)
	p.next("SETTINGS 0")
	for range 3 {
		p.turns(asks)
		p.asked()
		if err := p.frames.WritePing(true, [8]byte(ping[frameHeader:])); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, frameHeader+8)
		if _, err := io.ReadFull(p.near, got); err != nil {
			t.Fatal(err)
		}
	}
	p.turns(1)
	p.next(unknown)
}

func TestWhoStandsStillIsLetGo(t *testing.T) {
	p := connect(t, New())
	p.write(settings)
	p.turns(asks)
	if p.ended() {
		t.Fatal("it was let go before it could answer")
	}
	p.turns(1)
	if !p.ended() {
		t.Error("it is still there")
	}
	if _, err := p.near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("its reader was told %v", err)
	}
}

// An answer that nobody has read yet is one, and so is any when this process stood still.
func TestWhoWasNotHeardForOwnFaultStays(t *testing.T) {
	p := connect(t, New())
	p.write(settings)
	p.turns(asks)
	if _, err := p.far.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(soon); ; {
		if unread, err := p.near.socket.unread(); unread > 0 {
			break
		} else if err != nil || time.Now().After(until) {
			t.Fatalf("nothing came: %v", err)
		}
		runtime.Gosched()
	}
	p.turns(1)
	if p.ended() {
		t.Fatal("it was let go with its answer unread")
	}

	other := connect(t, New())
	other.write(settings)
	other.turns(asks)
	other.settle()
	other.keeper.turn(true)
	other.turns(1)
	if other.ended() {
		t.Error("it was let go after this process had stood still")
	}
}

func TestClosedConnectionsAreForgotten(t *testing.T) {
	p := connect(t, New())
	if err := p.near.Close(); err != nil {
		t.Fatal(err)
	}
	for i, slot := range p.keeper.slots {
		if len(slot) > 0 {
			t.Errorf("slot %d holds %d", i, len(slot))
		}
	}
}

// BenchmarkSpeak is one turn of one connection.
func BenchmarkSpeak(b *testing.B) {
	p := connect(b, New())
	p.write(settings)
	go func() { _, _ = io.Copy(io.Discard, p.far) }() // it ends with the connection
	if err := p.far.SetReadDeadline(time.Time{}); err != nil {
		b.Fatal(err)
	}
	p.settle()
	b.ReportAllocs()
	for b.Loop() {
		p.near.speak(1, 1)
		b.StopTimer()
		p.settle()
		b.StartTimer()
	}
}
