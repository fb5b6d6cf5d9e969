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
	"time"

	"github.com/zoneforge/zoneforge/deploy/demo"
)

// receiptTime bounds the wait for one change.
const receiptTime = 30 * time.Second

// global speaks to the REST API as an administrator's script does, over connections that it keeps.
type global struct {
	url, token string
	// zones is in how many a change has to be live.
	zones int
	http  *http.Client
}

func connect(f *demo.Federation) (*global, error) {
	token, err := f.AdminToken()
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	return connectTo(f.URL(), f.CAFile(), token, 2)
}

func connectTo(url, caFile, token string, zones int) (*global, error) {
	roots, err := pool(caFile)
	if err != nil {
		return nil, err
	}
	return &global{
		url: url, token: token, zones: zones,
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
func (g *global) send(ctx context.Context, method, path, content string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, g.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.token)
	req.Header.Set("Content-Type", content)
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
	var result struct {
		Change int64 `json:"change"`
	}
	if err := g.ask(ctx, http.MethodPost, "/v1/changes", "application/yaml", []byte(document), &result); err != nil {
		return a, err
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

// follow reads a change's receipts until one says that it is live in all zones.
func (g *global) follow(ctx context.Context, change int64) (receipt, error) {
	resp, err := g.send(ctx, http.MethodGet, fmt.Sprintf("/v1/changes/%d/status?watch=true&timeout=%s", change, receiptTime), "", nil)
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
			if r.ZonesLive != g.zones || r.ZonesTotal != g.zones {
				return receipt{}, fmt.Errorf("change %d is live in %d of %d zones, want all of %d", change, r.ZonesLive, r.ZonesTotal, g.zones)
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
	var result struct {
		Change int64 `json:"change"`
	}
	if err := g.ask(ctx, http.MethodPost, "/v1/changes", "application/json", []byte(body), &result); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	_, err := g.follow(ctx, result.Change)
	return err
}

// ask sends a request and reads its answer into a value.
func (g *global) ask(ctx context.Context, method, path, content string, body []byte, into any) error {
	resp, err := g.send(ctx, method, path, content, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is kept
	return nil
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
