package demo

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
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
}

// ServeEcho is a workload: it answers each request with what it knows, until ctx ends.
func ServeEcho(ctx context.Context, address string, who Answer) error {
	server := &http.Server{
		Addr:              address,
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer := who
			answer.Path = r.URL.Path
			answer.EnteredBy = r.Header.Get("X-Entered-By")
			answer.Server, answer.Client = peers(r.Header.Get("X-Forwarded-Client-Cert"))
			w.Header().Set("Content-Type", "application/json")
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

// peers reads the identities out of the header that a sidecar sets: By is its own, URI the client's.
func peers(header string) (server, client string) {
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
