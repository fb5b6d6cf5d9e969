package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/deploy/demo"
)

// receiptTime bounds the wait for one change.
const receiptTime = 30 * time.Second

// global speaks to the REST API as an administrator's script does, over connections that it keeps.
type global struct {
	url, token string
	http       *http.Client
}

func connect(f *demo.Federation) (*global, error) {
	token, err := f.AdminToken()
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	roots, err := pool(f.CAFile())
	if err != nil {
		return nil, err
	}
	return &global{
		url: f.URL(), token: token,
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 4}},
	}, nil
}

func pool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("roots: %s holds no certificate", file)
	}
	return roots, nil
}

func (g *global) close() { g.http.CloseIdleConnections() }

// send gives the answer of a request that was granted; the caller closes its body.
func (g *global) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, g.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	req.Header.Set("Content-Type", "application/yaml")
	resp, err := g.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return resp, nil
}

// applied is a change with the times at which things were known of it.
type applied struct {
	sent, answered, live time.Time
	// acked is when the last Envoy had acknowledged it, by the clock of the zone, which is this machine's.
	acked time.Time
}

// apply sends a change and follows its receipt until it is live.
func (g *global) apply(ctx context.Context, document string) (applied, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptTime)
	defer cancel()
	var a applied
	a.sent = time.Now()
	resp, err := g.send(ctx, http.MethodPost, "/v1/changes", []byte(document))
	if err != nil {
		return a, err
	}
	var result struct {
		Change int64 `json:"change"`
	}
	err = json.NewDecoder(resp.Body).Decode(&result)
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is kept
	_ = resp.Body.Close()
	if err != nil {
		return a, fmt.Errorf("the answer to a change: %w", err)
	}
	a.answered = time.Now()
	last, err := g.follow(ctx, result.Change)
	a.live, a.acked = time.Now(), last.LiveSince
	return a, err
}

// receipt is as much of the API's as is looked at.
type receipt struct {
	Live       bool      `json:"live"`
	LiveSince  time.Time `json:"liveSince"`
	ZonesLive  int       `json:"zonesLive"`
	ZonesTotal int       `json:"zonesTotal"`
}

// follow reads a change's receipts until one says that it is live in both zones.
func (g *global) follow(ctx context.Context, change int64) (receipt, error) {
	resp, err := g.send(ctx, http.MethodGet, fmt.Sprintf("/v1/changes/%d/status?watch=true&timeout=%s", change, receiptTime), nil)
	if err != nil {
		return receipt{}, err
	}
	defer resp.Body.Close()
	var last json.RawMessage
	for decoder := json.NewDecoder(resp.Body); ; {
		var line json.RawMessage
		if err := decoder.Decode(&line); err != nil {
			return receipt{}, fmt.Errorf("change %d did not become live: %w; its last receipt: %s", change, err, last)
		}
		last = line
		var r receipt
		if err := json.Unmarshal(line, &r); err != nil {
			return receipt{}, fmt.Errorf("receipt of change %d: %w", change, err)
		}
		if r.Live {
			_, _ = io.Copy(io.Discard, resp.Body)
			if r.ZonesLive != 2 || r.ZonesTotal != 2 {
				return receipt{}, fmt.Errorf("change %d is live in %d of %d zones, want 2 of 2", change, r.ZonesLive, r.ZonesTotal)
			}
			return r, nil
		}
	}
}

// remove deletes a resource and waits until it is gone everywhere.
func (g *global) remove(ctx context.Context, kind, name string) error {
	body := fmt.Sprintf(`{"message":"the benchmark is over","deletes":[{"kind":%q,"mesh":%q,"name":%q}]}`, kind, demo.Mesh, name)
	ctx, cancel := context.WithTimeout(ctx, receiptTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url+"/v1/changes", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := g.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var result struct {
		Change int64  `json:"change"`
		Detail string `json:"detail"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&result); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("delete %s: %s: %s", name, resp.Status, result.Detail)
	}
	_, err = g.follow(ctx, result.Change)
	return err
}

// route is a MeshGatewayRoute at the demo's gateways: path leads to a service, and each request gets a mark.
func route(name, path, service, mark string) string {
	return fmt.Sprintf(`type: MeshGatewayRoute
mesh: %s
name: %s
selectors:
  - match: {kuma.io/service: %s}
conf:
  http:
    rules:
      - matches:
          - path: {match: PREFIX, value: %s}
        filters:
          - requestHeader:
              set:
                - {name: x-entered-by, value: %q}
        backends:
          - destination: {kuma.io/service: %s}
`, demo.Mesh, name, demo.Edge, path, mark, service)
}
