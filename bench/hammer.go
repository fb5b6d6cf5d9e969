package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// reply is what the upstream answers to every request; its end tells a client that it has all of it.
var reply = []byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n" + string(bytes.Repeat([]byte("."), 1023)) + "!")

// upstream answers requests without a body as cheaply as can be, so that the proxy before it is what is measured.
type upstream struct {
	listener net.Listener
	wg       sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool // nil once it is closed
}

func listenUpstream(address string) (*upstream, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	u := &upstream{listener: l, open: map[net.Conn]bool{}}
	u.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			if u.open == nil {
				_ = conn.Close()
			} else {
				u.open[conn] = true
				u.wg.Go(func() { answer(conn) })
			}
			u.mu.Unlock()
		}
	})
	return u, nil
}

func answer(conn net.Conn) {
	buffer, n := make([]byte, 16<<10), 0
	for n < len(buffer) {
		more, err := conn.Read(buffer[n:])
		if err != nil {
			return
		}
		if n += more; !bytes.HasSuffix(buffer[:n], []byte("\r\n\r\n")) {
			continue
		}
		n = 0
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

func (u *upstream) close() error {
	err := u.listener.Close()
	u.mu.Lock()
	for conn := range u.open {
		_ = conn.Close()
	}
	u.open = nil
	u.mu.Unlock()
	u.wg.Wait()
	return err
}

// hammer sends one request after another over each of its connections, which it keeps.
type hammer struct {
	request []byte
	conns   []net.Conn
}

func newHammer(ctx context.Context, address, path string, conns int) (*hammer, error) {
	h := &hammer{request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nhost: shop.example.com\r\nuser-agent: bench\r\naccept: */*\r\n\r\n", path)}
	for range conns {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		h.conns = append(h.conns, conn)
	}
	return h, nil
}

// run sends for a while and returns how many requests were answered, and in what time.
func (h *hammer) run(d time.Duration) (int64, time.Duration, error) {
	var stop atomic.Bool
	var answered atomic.Int64
	errs := make([]error, len(h.conns))
	began := time.Now()
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	var wg sync.WaitGroup
	for i, conn := range h.conns {
		wg.Go(func() {
			buffer := make([]byte, 16<<10)
			for n := int64(0); ; n++ {
				if stop.Load() {
					answered.Add(n)
					return
				}
				if errs[i] = exchange(conn, h.request, buffer); errs[i] != nil {
					stop.Store(true)
					return
				}
			}
		})
	}
	wg.Wait()
	return answered.Load(), time.Since(began), errors.Join(errs...)
}

// send sends some requests over its first connection.
func (h *hammer) send(n int) error {
	buffer := make([]byte, 16<<10)
	for range n {
		if err := exchange(h.conns[0], h.request, buffer); err != nil {
			return err
		}
	}
	return nil
}

func exchange(conn net.Conn, request, buffer []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	for n := 0; n < len(buffer); {
		more, err := conn.Read(buffer[n:])
		if err != nil {
			return err
		}
		if n += more; buffer[n-1] == '!' {
			if !bytes.HasPrefix(buffer[:n], []byte("HTTP/1.1 200 ")) {
				break
			}
			return nil
		}
		if bytes.HasPrefix(buffer[:n], []byte("HTTP/1.1 ")) && !bytes.HasPrefix(buffer[:n], []byte("HTTP/1.1 200 ")) {
			break
		}
	}
	line, _, _ := bytes.Cut(buffer, []byte("\r\n"))
	return fmt.Errorf("the proxy answers %.100q", line)
}

func (h *hammer) close() error {
	var errs []error
	for _, conn := range h.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
