package overload_test

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/overload"
)

// Who is slow with the head of a request, its body or the answer, and who keeps a connection without a use, is ended by the server. The
// clients go on for as long as they may.
func TestSlowClientsAreEnded(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		for part := make([]byte, 64<<10); err == nil && r.URL.Path == "/endless"; {
			_, err = w.Write(part)
		}
	}))
	server.EnableHTTP2 = true
	// Long enough for a busy machine to answer what comes at once.
	overload.Patience{Head: 2 * time.Second, Request: 2 * time.Second, Answer: 2 * time.Second, Idle: 2 * time.Second}.Bind(server.Config)
	server.StartTLS()
	t.Cleanup(server.Close)

	const request = "POST %s HTTP/1.1\r\nHost: zoneforge\r\nContent-Length: %d\r\n\r\n"
	for name, c := range map[string]struct {
		plain bool
		alpn  string
		// first is sent at once, and then a byte of drip after the other.
		first, drip string
		// unread leaves the answer where it is.
		unread bool
	}{
		"no handshake":        {plain: true},
		"no request":          {},
		"slow head":           {first: "GET / HTTP/1.1\r\nHost: zoneforge\r\n", drip: "x-slow: x\r\n"},
		"slow body":           {first: fmt.Sprintf(request, "/", 1<<20), drip: "x"},
		"no body":             {first: fmt.Sprintf(request, "/", 1<<20)},
		"idle after requests": {first: strings.Repeat(fmt.Sprintf(request, "/", 0), 3)},
		"unread answer":       {first: fmt.Sprintf(request, "/endless", 0), unread: true},
		"http/2 and silence":  {alpn: "h2", first: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
		"a head without end":  {first: "GET / HTTP/1.1\r\nx-long: ", drip: strings.Repeat("x", 4<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := func() (net.Conn, error) {
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					return nil, err
				}
				if !c.plain {
					config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
					config.ServerName = "example.com"
					if config.NextProtos = nil; c.alpn != "" {
						config.NextProtos = []string{c.alpn}
					}
					conn = tls.Client(conn, config)
				}
				if err = conn.SetDeadline(time.Now().Add(time.Minute)); err == nil {
					_, err = io.WriteString(conn, c.first)
				}
				if err != nil {
					_ = conn.Close()
				}
				return conn, err
			}
			conn, err := begin()
			// On a busy machine the handshake alone may be too slow.
			for tries := 0; err != nil && tries < 20; tries++ {
				conn, err = begin()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ended := make(chan error, 1)
			if !c.unread {
				go func() {
					_, err := io.Copy(io.Discard, conn)
					ended <- err
				}()
			}
			if c.unread || c.drip != "" {
				// What is sent after the end tells of it.
				tick := time.NewTicker(50 * time.Millisecond)
				defer tick.Stop()
				for err == nil {
					<-tick.C
					_, err = io.WriteString(conn, cmp.Or(c.drip, "x"))
				}
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal("the server lets it go on")
				}
				return
			}
			if err := <-ended; errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the server keeps the connection")
			}
		})
	}
}
