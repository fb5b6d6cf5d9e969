package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxStat bounds Envoy's answer to the question for one statistic, in bytes.
const maxStat = 8 << 10

// adminStat asks an Envoy for one gauge over and over, on one connection and without a client of HTTP: that alone would bring a
// tenth of the program back into memory each time. It is for one goroutine.
type adminStat struct {
	socket, stat string
	request      []byte
	buffer       []byte
	conn         net.Conn // nil while there is none
}

func newAdminStat(socket, stat string) *adminStat {
	filter := url.QueryEscape("^" + strings.ReplaceAll(stat, ".", `\.`) + "$")
	return &adminStat{
		socket: socket, stat: stat, buffer: make([]byte, maxStat),
		request: fmt.Appendf(nil, "GET /stats?type=Gauges&filter=%s HTTP/1.1\r\nhost: admin\r\n\r\n", filter),
	}
}

// errHungUp says that the other end closed the connection before it answered anything.
var errHungUp = errors.New("Envoy hung up")

// value asks once. A connection from before may have been closed at the other end meanwhile; then another is tried.
func (a *adminStat) value(ctx context.Context) (uint64, error) {
	if a.conn != nil {
		if value, err := a.ask(); !errors.Is(err, errHungUp) {
			return value, err
		}
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", a.socket)
	if err != nil {
		return 0, err
	}
	a.conn = conn
	return a.ask()
}

// ask closes the connection when the answer can't be understood: what follows on it couldn't either.
func (a *adminStat) ask() (value uint64, err error) {
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if err := a.conn.SetDeadline(time.Now().Add(watchInterval)); err != nil {
		return 0, err
	}
	if _, err := a.conn.Write(a.request); err != nil {
		return 0, fmt.Errorf("%w: %w", errHungUp, err)
	}
	for n := 0; n < len(a.buffer); {
		more, err := a.conn.Read(a.buffer[n:])
		if err != nil && n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("%w: %w", errHungUp, err)
		}
		if err != nil {
			return 0, err
		}
		n += more
		head, body, whole := bytes.Cut(a.buffer[:n], []byte("\r\n\r\n"))
		// Envoy sends its statistics in chunks, of which an empty one is the last.
		if !whole || !bytes.HasSuffix(body, []byte("0\r\n\r\n")) {
			continue
		}
		status, _, _ := bytes.Cut(head, []byte("\r\n"))
		if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
			return 0, fmt.Errorf("Envoy answers %q", status)
		}
		_, after, told := bytes.Cut(body, []byte(a.stat+": "))
		text, _, ended := bytes.Cut(after, []byte("\n"))
		if !told || !ended {
			return 0, fmt.Errorf("Envoy does not tell %s", a.stat)
		}
		return strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	}
	return 0, errors.New("Envoy's answer is too long")
}

func (a *adminStat) close() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}
