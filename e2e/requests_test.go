package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
)

// answer is what a workload says of a request.
type answer struct {
	Workload string
	Method   string
	Path     string
	Query    string
	Host     string
	Header   http.Header
	// Text is the body, whoever wrote it.
	Text string `json:"-"`
}

// workload answers at an address with what it sees. Handlers for paths may be given.
func (f *federation) workload(address, name string, handlers map[string]http.HandlerFunc) {
	f.t.Helper()
	l, err := f.listen(address)
	if err != nil {
		f.t.Fatal(err)
	}
	// It ends no connection by itself, as a request may be on its way over it: not even one that Envoy opened and had no use for yet.
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := handlers[r.URL.Path]; h != nil {
			h(w, r)
			return
		}
		w.Header().Set("X-Workload", name)
		_ = json.NewEncoder(w).Encode(answer{Workload: name, Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Host: r.Host, Header: r.Header})
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	f.t.Cleanup(func() { _ = s.Close(); <-done })
}

// client of a test: it keeps no connection, so that each request meets what is in force now.
func newClient(t *testing.T) *http.Client {
	c := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// ask sends a request and reads what the workload answered, where it answered.
func ask(client *http.Client, method, url string, header ...string) (*http.Response, answer, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		return nil, answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	return answerTo(client, r)
}

// answerTo sends a request, and reads what the workload answered, where it answered.
func answerTo(client *http.Client, r *http.Request) (*http.Response, answer, error) {
	response, err := client.Do(r)
	if err != nil {
		return nil, answer{}, err
	}
	defer response.Body.Close()
	var a answer
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode == http.StatusOK && response.Header.Get("X-Workload") != "" {
		err = json.Unmarshal(body, &a)
	}
	a.Text = string(body)
	return response, a, err
}

// answers waits for a status, as Envoy's workers take a change over a moment after it was acknowledged.
func (f *federation) answers(client *http.Client, status int, method, url string, header ...string) (out answer) {
	f.t.Helper()
	f.await(method+" "+url, func() error {
		r, a, err := ask(client, method, url, header...)
		if err == nil && r.StatusCode != status {
			err = fmt.Errorf("status %d, want %d", r.StatusCode, status)
		}
		out = a
		return err
	})
	return out
}
