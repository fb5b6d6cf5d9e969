package demo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
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
	// Headers and Body are of the request, where it wished to see them.
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
}

// maxEcho bounds the body that a workload repeats, in bytes.
const maxEcho = 64 << 10

// ServeEcho is a workload: it answers each request with what it knows, until ctx ends. A request may wish in its query for a
// status (status=503), a wait (delay=200ms), a Cache-Control (cache=max-age=60), more bytes (pad=1000), and to see some of its
// headers (headers=a,b) or its body (body=yes).
func ServeEcho(ctx context.Context, address string, who Answer) error {
	var number atomic.Int64
	server := &http.Server{
		Addr:              address,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer, wish := who, r.URL.Query()
			answer.Path, answer.Number = r.URL.Path, number.Add(1)
			if names := wish.Get("headers"); names != "" {
				answer.Headers = map[string]string{}
				for _, name := range strings.Split(names, ",") {
					answer.Headers[strings.ToLower(name)] = strings.Join(r.Header.Values(name), ", ")
				}
			}
			if wish.Get("body") != "" {
				body, err := io.ReadAll(io.LimitReader(r.Body, maxEcho))
				if err != nil {
					return // the client has gone
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
			if status, err := strconv.Atoi(wish.Get("status")); err == nil && status >= 200 && status <= 599 {
				w.WriteHeader(status)
			}
			if n, err := strconv.Atoi(wish.Get("pad")); err == nil {
				defer func() { _, _ = io.WriteString(w, strings.Repeat(" ", min(max(n, 0), maxEcho))) }()
			}
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			_ = encoder.Encode(answer) // the client has gone
		}),
	}
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
