package dataplane

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// TestAdminStat asks an admin interface that answers as it is told to, and may hang up after each answer.
func TestAdminStat(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\na.b: 42\n\r\n0\r\n\r\n"
	type reply struct {
		text   string
		hangUp bool
	}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	replies, accepted, done := make(chan reply, 1), 0, make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted++
			for in := bufio.NewReader(conn); ; {
				request, err := http.ReadRequest(in)
				if err != nil || request.URL.RequestURI() != `/stats?type=Gauges&filter=%5Ea%5C.b%24` {
					break
				}
				r := <-replies
				// In two parts, as a socket may have it.
				half := len(r.text) / 2
				_, _ = fmt.Fprint(conn, r.text[:half])
				if _, err := fmt.Fprint(conn, r.text[half:]); err != nil || r.hangUp {
					break
				}
			}
			conn.Close()
		}
	}()
	a := newAdminStat(socket, "a.b")
	for _, step := range []struct {
		reply reply
		want  uint64
		err   string
	}{
		{reply{good, false}, 42, ""},
		{reply{strings.Replace(good, "42", "43", 1), true}, 43, ""},
		{reply{good, false}, 42, ""}, // on another connection
		{reply{strings.Replace(good, "200 OK", "503 Service Unavailable", 1), false}, 0, `Envoy answers "HTTP/1.1 503`},
		{reply{strings.Replace(good, "a.b", "c.d", 1), false}, 0, "Envoy does not tell a.b"},
		{reply{strings.Replace(good, "42", "4x", 1), false}, 0, "invalid syntax"},
		{reply{strings.Repeat("x", maxStat), true}, 0, "too long"},
		{reply{good, true}, 42, ""},
	} {
		replies <- step.reply
		got, err := a.value(t.Context())
		if got != step.want || step.err == "" && err != nil || step.err != "" && (err == nil || !strings.Contains(err.Error(), step.err)) {
			t.Errorf("%q: %d, %v, want %d, %q", step.reply.text, got, err, step.want, step.err)
		}
	}
	a.close()
	l.Close()
	<-done
	// The first three answers took two connections, as one was hung up; each that can't be understood ends one.
	if accepted != 6 {
		t.Errorf("%d connections, want 6", accepted)
	}
	if _, err := a.value(t.Context()); err == nil {
		t.Error("there is nobody, and a value")
	}
}
