package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zoneforge/zoneforge/deploy/demo/talk"
)

// Answer is what a workload of the demo says about a request.
type Answer struct {
	Service string `json:"service"`
	Version string `json:"version,omitempty"`
	Zone    string `json:"zone"`
	Proxy   string `json:"proxy"`
	Path    string `json:"path"`
	// Client and Server are the SPIFFE IDs at both ends of the mutual TLS, as the workload's proxy saw them.
	Client string `json:"client,omitempty"`
	Server string `json:"server,omitempty"`
	// EnteredBy is what a route's filter wrote into the request.
	EnteredBy string `json:"enteredBy,omitempty"`
	// Number counts the requests that this workload answered.
	Number int64 `json:"number"`
	// Seen counts those with a path, where the request wished to know.
	Seen *int `json:"seen,omitempty"`
	// Headers and Body are of the request, where it wished to see them.
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
}

const (
	// maxEcho bounds the body that a workload repeats, in bytes.
	maxEcho = 64 << 10
	// maxPaths bounds the paths of which a workload counts the requests.
	maxPaths = 1 << 10
)

// Echo is a workload: it answers each request with what it knows. A request may wish in its query for a status (status=503, with
// fails=2 for its path's first two requests alone, with ill=v1 of this version alone), a wait (delay=200ms), a Cache-Control
// (cache=max-age=60), more bytes (pad=1000), and to see some of its headers (headers=a,b), its body (body=yes) or how often a path
// was asked for (seen=/path). A WebSocket gets its messages back, and /upper the body in upper case.
type Echo struct {
	Listen string
	Who    Answer
	// GRPC, Lines and TLS are further addresses, where they aren't empty: for package talk's gRPC services, and for its lines
	// without TLS and with the certificate in a file.
	GRPC        string
	Lines       string
	TLS         string
	Certificate string

	mu     sync.Mutex
	number int64
	paths  map[string]int
}

// Serve answers until ctx ends.
func (e *Echo) Serve(ctx context.Context) error {
	e.paths = map[string]int{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serve := []func(context.Context) error{e.serveHTTP}
	if e.GRPC != "" {
		serve = append(serve, e.serveGRPC)
	}
	if e.Lines != "" {
		serve = append(serve, e.serveLines)
	}
	if e.TLS != "" {
		serve = append(serve, e.serveTLS)
	}
	ended := make(chan error)
	for _, s := range serve {
		go func() { ended <- s(ctx) }()
	}
	var errs []error
	for range serve {
		errs = append(errs, <-ended)
		cancel() // what serves a part of its addresses serves none
	}
	return errors.Join(errs...)
}

func (e *Echo) serveHTTP(ctx context.Context) error {
	server := &http.Server{Addr: e.Listen, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(e.answer)}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Shutdown(grace)
	}()
	err := server.ListenAndServe()
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return err
}

// serveGRPC answers that orders is well and stock is not, and serves external processing and limits.
func (e *Echo) serveGRPC(ctx context.Context) error {
	l, err := net.Listen("tcp", e.GRPC)
	if err != nil {
		return err
	}
	s, health := talk.GRPC()
	health.SetServingStatus("orders", healthv1.HealthCheckResponse_SERVING)
	health.SetServingStatus("stock", healthv1.HealthCheckResponse_NOT_SERVING)
	extprocv3.RegisterExternalProcessorServer(s, talk.Processor{})
	ratelimitv3.RegisterRateLimitServiceServer(s, talk.NewLimits())
	defer context.AfterFunc(ctx, s.Stop)()
	return s.Serve(l)
}

func (e *Echo) serveLines(ctx context.Context) error {
	l, err := net.Listen("tcp", e.Lines)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	talk.ServeLines(l, "lines")
	return nil
}

func (e *Echo) serveTLS(ctx context.Context) error {
	pair, err := tls.LoadX509KeyPair(e.Certificate, e.Certificate)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", e.TLS, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	talk.ServeLines(l, "lines with TLS")
	return nil
}

// count adds a request for a path: number is that of all requests, and seen of those for asked, which is this path when it is empty.
func (e *Echo) count(path, asked string) (number int64, seen int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.number++
	if _, known := e.paths[path]; known || len(e.paths) < maxPaths {
		e.paths[path]++
	}
	if asked == "" {
		asked = path
	}
	return e.number, e.paths[asked]
}

func (e *Echo) answer(w http.ResponseWriter, r *http.Request) {
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		talk.Chat(w, r)
		return
	}
	answer, wish := e.Who, r.URL.Query()
	var seen int
	answer.Path = r.URL.Path
	answer.Number, seen = e.count(r.URL.Path, wish.Get("seen"))
	if wish.Get("seen") != "" {
		answer.Seen = &seen
	}
	if names := wish.Get("headers"); names != "" {
		answer.Headers = map[string]string{}
		for _, name := range strings.Split(names, ",") {
			answer.Headers[strings.ToLower(name)] = strings.Join(r.Header.Values(name), ", ")
			if strings.EqualFold(name, "Host") {
				answer.Headers["host"] = r.Host
			}
		}
	}
	if wish.Get("body") != "" || r.URL.Path == "/upper" {
		body, err := io.ReadAll(io.LimitReader(r.Body, maxEcho))
		if err != nil {
			return // the client has gone
		}
		if r.URL.Path == "/upper" {
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			_, _ = w.Write(bytes.ToUpper(body)) // the client has gone
			return
		}
		answer.Body = string(body)
	}
	if delay, err := time.ParseDuration(wish.Get("delay")); err == nil {
		select {
		case <-time.After(min(delay, 10*time.Second)):
		case <-r.Context().Done():
			return
		}
	}
	answer.EnteredBy = r.Header.Get("X-Entered-By")
	answer.Server, answer.Client = peers(r.Header.Get("X-Forwarded-Client-Cert"))
	w.Header().Set("Content-Type", "application/json")
	if cache := wish.Get("cache"); cache != "" {
		w.Header().Set("Cache-Control", cache)
	}
	fails, err := strconv.Atoi(wish.Get("fails"))
	failed := err == nil && seen > fails
	if status, err := strconv.Atoi(wish.Get("status")); err == nil && status >= 200 && status <= 599 && !failed && (wish.Get("ill") == "" || wish.Get("ill") == e.Who.Version) {
		w.WriteHeader(status)
	}
	if n, err := strconv.Atoi(wish.Get("pad")); err == nil {
		defer func() { _, _ = io.WriteString(w, strings.Repeat(" ", min(max(n, 0), maxEcho))) }()
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(answer) // the client has gone
}

// peers reads the identities out of the element that a sidecar adds last to the header: By is its own, URI the client's.
func peers(header string) (server, client string) {
	header = header[strings.LastIndex(header, ",")+1:]
	for _, part := range strings.Split(header, ";") {
		name, value, _ := strings.Cut(part, "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "by":
			server = value
		case "uri":
			client = value
		}
	}
	return server, client
}
