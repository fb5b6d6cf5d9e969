package global

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/overload"
)

const (
	// stopping is how long requests may take to end when the replica stops.
	stopping = 5 * time.Second
	// pingTimeout bounds the question to etcd behind readiness, and pingLife is how long its answer stands, as readiness is
	// open to all.
	pingTimeout = 3 * time.Second
	pingLife    = time.Second
)

// listen takes a port. The address that is in use is the commonest failure, so it is told how to mend it.
func listen(setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("global: %s %s is in use by another process; stop it, or set another %s: %w", setting, address, setting, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("global: %s %s is not allowed to this user; set a port above 1023: %w", setting, address, err)
	case err != nil:
		return nil, fmt.Errorf("global: %s %s: %w; set an address of this machine", setting, address, err)
	}
	return l, nil
}

// door is the handler of the REST server, which answers before the API is there.
type door struct{ api atomic.Pointer[http.Handler] }

func (d *door) open(h http.Handler) { d.api.Store(&h) }

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := d.api.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if r.URL.Path == "/healthz" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{\"status\":\"ok\"}\n"))
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"type": "urn:zoneforge:problem:not_ready", "title": http.StatusText(http.StatusServiceUnavailable), "status": http.StatusServiceUnavailable,
		"detail": "this replica is starting", "code": "not_ready", "mend": "retry later or ask another replica",
	})
}

// httpServer bounds what a client may take; base ends the requests that would not end by themselves.
func httpServer(base context.Context, h http.Handler, t *tls.Config, log *zap.Logger) *http.Server {
	errorLog, err := zap.NewStdLogAt(log, zap.DebugLevel)
	if err != nil {
		errorLog = nil // a wrong level, which it isn't
	}
	s := &http.Server{Handler: h, TLSConfig: t, ErrorLog: errorLog, BaseContext: func(net.Listener) context.Context { return base }}
	overload.Patience{Head: 10 * time.Second, Request: time.Minute, Answer: time.Minute, Idle: 2 * time.Minute}.Bind(s)
	return s
}

// serveREST serves on a listener until its stage ends by stopREST.
func serveREST(st *stage, l net.Listener, server *http.Server) {
	st.start("REST server", func(context.Context) error { return server.ServeTLS(l, "", "") })
}

// stopREST lets requests come to their end, for a while.
func stopREST(st *stage, server *http.Server, cutOff context.CancelFunc) {
	st.cancel()
	end, cancel := context.WithTimeout(context.Background(), stopping)
	defer cancel()
	if server.Shutdown(end) != nil {
		cutOff()
		_ = server.Close() // all it can report is that a connection is gone
	}
	st.stop()
}

// readiness tells whether requests should come here.
type readiness struct {
	// done closes when the replica stops.
	done chan struct{}
	// store is set while REST and KDS are served.
	store atomic.Pointer[store.Store]

	mu    sync.Mutex
	asked time.Time
	last  error
}

func (r *readiness) open(s *store.Store) { r.store.Store(s) }

// stop is called once.
func (r *readiness) stop() { close(r.done) }

func (r *readiness) check(ctx context.Context) error {
	select {
	case <-r.done:
		return errors.New("this replica is stopping")
	default:
	}
	s := r.store.Load()
	if s == nil {
		return errors.New("this replica is starting")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.asked) < pingLife {
		return r.last
	}
	// One answer stands for many, so it doesn't depend on who asked first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
	defer cancel()
	// No detail for whoever asks.
	switch err := s.Ping(ctx); {
	case err == nil:
		r.last = nil
	case errors.Is(err, store.ErrNoSpace):
		r.last = errors.New("the store is out of space: zones are served, and changes are refused")
	default:
		r.last = errors.New("the store does not answer: zones are served what was there, and changes are refused")
	}
	r.asked = time.Now()
	return r.last
}
