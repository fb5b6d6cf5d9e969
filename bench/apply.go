package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/zoneforge/zoneforge/deploy/demo"
)

// warmUp is how many changes go before those that count: connections are opened, and code is paged in.
const warmUp = 10

// goal50 and goal99 are the goals of a change or an endpoint on its way to the other zone's Envoy, in milliseconds.
const goal50, goal99 = 15, 60

// measureApply applies changes one after another, each followed to the last Envoy of both zones. A route touches the gateway of
// each zone; a permission touches every sidecar of its service, too.
func measureApply(ctx context.Context, b *bench) ([]Row, error) {
	routes, err := b.applyEach(ctx, "apply to live, a route", b.applies, func(i int) string {
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
	permissions, err := b.applyEach(ctx, "apply to live, a permission", b.applies/2, func(i int) string {
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
	rows := append(routes.live.rows(goal50, goal99), permissions.live.rows(goal50, goal99)...)
	for _, l := range []*latency{routes.committed, routes.acked, disk} {
		rows = append(rows, l.rows(0, 0)...)
	}
	return rows, nil
}

// stages are times from the request of a change: to the answer that it is committed, to the last Envoy's acknowledgement as its
// zone noted it, and to the receipt that tells of it.
type stages struct{ committed, acked, live *latency }

func (b *bench) applyEach(ctx context.Context, name string, n int, document func(int) string) (stages, error) {
	s := stages{newLatency("request to committed"), newLatency("request to the last acknowledgement"), newLatency(name)}
	for i := range warmUp + n {
		a, err := b.global.apply(ctx, document(i))
		if err != nil {
			return s, fmt.Errorf("change %d of %d: %w", i+1, warmUp+n, err)
		}
		if i >= warmUp {
			s.committed.add(a.answered.Sub(a.sent))
			s.acked.add(a.acked.Sub(a.sent))
			s.live.add(a.live.Sub(a.sent))
		}
	}
	return s, nil
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
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // so that the connection is kept
		return answer, fmt.Errorf("%s: %s", url, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("%s: %w", url, err)
	}
	return answer, nil
}
