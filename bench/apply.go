package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/zoneforge/zoneforge/deploy/demo"
)

// warmUp is how many changes go before those that count: connections are opened, and code is paged in.
const warmUp = 10

// measureApply applies changes one after another, each followed to the last Envoy of both zones. A route touches the gateway of
// each zone; a permission touches every sidecar of its service, too.
func measureApply(ctx context.Context, b *bench) ([]Row, error) {
	routes, routeCommits, err := b.applyEach(ctx, "apply to live, a route", b.applies, func(i int) string {
		return route("bench-apply", "/bench-apply", []string{"echo", "backend"}[i%2], fmt.Sprint("apply-", i))
	})
	if err != nil {
		return nil, err
	}
	// The last change must be what requests meet, or else the receipts lied.
	last := fmt.Sprint("apply-", warmUp+b.applies-1)
	for _, s := range b.federation.Sites() {
		answer, err := ask(ctx, http.DefaultClient, s.Gateway+"/bench-apply")
		if err != nil {
			return nil, err
		}
		if answer.EnteredBy != last {
			return nil, fmt.Errorf("after the receipt of %s, the gateway of %s routes by %q", last, s.Name, answer.EnteredBy)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	permissions, _, err := b.applyEach(ctx, "apply to live, a permission", b.applies/2, func(i int) string {
		return fmt.Sprintf("type: TrafficPermission\nmesh: %s\nname: bench\nsources:\n  - match: {kuma.io/service: bench-%d}\n"+
			"destinations:\n  - match: {kuma.io/service: echo}\nconf:\n  action: ALLOW\n", demo.Mesh, i)
	})
	if err != nil {
		return nil, err
	}
	for _, r := range [][2]string{{"MeshGatewayRoute", "bench-apply"}, {"TrafficPermission", "bench"}} {
		if err := b.global.remove(ctx, r[0], r[1]); err != nil {
			return nil, err
		}
	}
	disk, err := measureSync(b.federation.Logs(), 200)
	if err != nil {
		return nil, err
	}
	rows := append(routes.rows(30, 150), permissions.rows(30, 150)...)
	return append(append(rows, routeCommits.rows(0, 0)...), disk.rows(0, 0)...), nil
}

// applyEach gives the times from the request to the receipt, and those from the request to the answer that it is committed.
func (b *bench) applyEach(ctx context.Context, name string, n int, document func(int) string) (live, commits *latency, err error) {
	live, commits = newLatency(name), newLatency("commit in the store, with its REST request")
	for i := -warmUp; i < n; i++ {
		a, err := b.global.apply(ctx, document(i+warmUp))
		if i < 0 || err != nil {
			if err != nil {
				return nil, nil, fmt.Errorf("change %d of %d: %w", i+1, n, err)
			}
			continue
		}
		live.add(a.live.Sub(a.sent))
		commits.add(a.answered.Sub(a.sent))
	}
	return live, commits, nil
}

// ask sends a request to a gateway and reads the workload's answer.
func ask(ctx context.Context, client *http.Client, url string) (demo.Answer, error) {
	var answer demo.Answer
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("%s: %s", url, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("%s: %w", url, err)
	}
	return answer, nil
}
