package records

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"testing"
	"time"
)

// wire is a connection on which bytes come in pieces of chosen lengths; with none left, all that is there comes at once.
type wire struct {
	net.Conn
	bytes  []byte
	pieces []byte
	// broken is what ends it.
	broken error
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.bytes) == 0 {
		return 0, w.broken
	}
	n := len(p)
	if len(w.pieces) > 0 {
		n, w.pieces = 1+int(w.pieces[0]), w.pieces[1:]
	}
	n = copy(p, w.bytes[:min(n, len(w.bytes))])
	w.bytes = w.bytes[n:]
	return n, nil
}

// record is one with so many bytes behind its header.
func record(length int) []byte {
	return append([]byte{23, 3, 3, byte(length >> 8), byte(length)}, bytes.Repeat([]byte{7}, length)...)
}

const longest = 16<<10 + 256

func TestLargeBuffersEndWithTheRecord(t *testing.T) {
	lengths := []int{longest, 300, 0, 0, 1, longest, longest, 255, 256}
	var all []byte
	ends := map[int]bool{}
	for _, n := range lengths {
		ends[len(all)+header] = true
		all = append(all, record(n)...)
		ends[len(all)] = true
	}
	c := &conn{Conn: &wire{bytes: all, broken: io.EOF}}
	p := make([]byte, longest+header+512)
	for at := 0; at < len(all); {
		n, err := c.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		if at += n; !ends[at] {
			t.Fatalf("a read ended at byte %d, neither with a header nor with a record", at)
		}
	}
}

// Small buffers are filled, also with more than one record, and what follows is known nevertheless.
func TestSmallBuffersAreFilled(t *testing.T) {
	all := append(append(record(40), record(50)...), record(longest)...)
	c := &conn{Conn: &wire{bytes: all, broken: io.EOF}}
	if n, err := c.Read(make([]byte, small)); n != small || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	rest := len(all) - small
	if n, err := c.Read(make([]byte, 2*longest)); n != rest || err != nil {
		t.Fatalf("%d bytes of the %d that are left of the record, %v", n, rest, err)
	}
}

// Behind a long record nothing is read beyond one as long, and behind a short one all that is there.
func TestPiecesAreReadOneByOne(t *testing.T) {
	var all []byte
	for _, n := range []int{1000, 1000, 1000, 300, 40} {
		all = append(all, record(n)...)
	}
	c := &conn{Conn: &wire{bytes: all, broken: io.EOF}}
	p := make([]byte, 1200)
	// The first read knows of no record yet, and the second ends it.
	for i, want := range []int{1200, 810, 1005, 350, 0} {
		if n, err := c.Read(p); n != want || (want == 0) != (err != nil) {
			t.Fatalf("read %d has %d bytes, %v; want %d", i, n, err, want)
		}
	}
	c = &conn{Conn: &wire{bytes: append(append(record(40), record(50)...), record(60)...), broken: io.EOF}}
	if n, err := c.Read(p); n != 165 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestWhatComesIsHandedOn(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		pieces := make([]byte, dice.IntN(400))
		for i := range pieces {
			pieces[i] = byte(dice.Uint32())
		}
		var all []byte
		for range dice.IntN(20) {
			all = append(all, record(dice.IntN(longest))...)
		}
		handedOn(t, all[:dice.IntN(len(all)+1)], pieces, uint16(dice.Uint32()))
	}
}

func FuzzRead(f *testing.F) {
	f.Add(record(300), []byte{0, 4, 5}, uint16(600))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), []byte{}, uint16(20_000))
	f.Add(append(record(0), 255, 255, 255, 255, 255, 255), []byte{0, 0, 0}, uint16(5000))
	f.Fuzz(func(t *testing.T, all, pieces []byte, buffer uint16) { handedOn(t, all, pieces, buffer) })
}

// handedOn reads all that comes by buffers of one length, and finds it and how it ends unchanged.
func handedOn(t *testing.T, all, pieces []byte, buffer uint16) {
	t.Helper()
	broken := errors.New("broken")
	c := &conn{Conn: &wire{bytes: all, pieces: pieces, broken: broken}}
	var got []byte
	p := make([]byte, 1+int(buffer))
	for {
		n, err := c.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			if !errors.Is(err, broken) {
				t.Fatalf("ended by %v", err)
			}
			break
		}
		if n == 0 {
			t.Fatal("nothing was read, and no reason given")
		}
	}
	if !bytes.Equal(got, all) {
		t.Fatalf("%d bytes came of %d, or others", len(got), len(all))
	}
}

// watched notes the largest buffer that it was to read into.
type watched struct {
	net.Conn
	largest int
}

func (w *watched) Read(p []byte) (int, error) {
	w.largest = max(w.largest, len(p))
	return w.Conn.Read(p)
}

// behind is a listener whose connections are watched behind what it does.
type behind struct {
	net.Listener
	given *watched
}

func (b *behind) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	b.given = &watched{Conn: c}
	return b.given, nil
}

// TLS holds no more than one record, however much comes at once: what it reads into is what it keeps.
func TestTLSKeepsOneRecord(t *testing.T) {
	web := httptest.NewTLSServer(nil)
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	go func() {
		far, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "example.com", DynamicRecordSizingDisabled: true})
		if err != nil {
			return
		}
		defer far.Close()
		_, _ = far.Write(sent)
	}()
	b := &behind{Listener: Listener{l}}
	raw, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near := tls.Server(raw, &tls.Config{Certificates: web.TLS.Certificates})
	defer near.Close()
	if err := near.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(near)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came of %d, or others", len(got), len(sent))
	}
	if most := 18 << 10; b.given.largest > most {
		t.Errorf("TLS reads into %d bytes, want at most %d", b.given.largest, most)
	}
}
