package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/zoneforge/zoneforge/deploy/demo"
	"github.com/zoneforge/zoneforge/ingress"
)

// benchService is what the simulated backends serve.
const benchService = "bench"

// sight is what an observer was given of the service's endpoints.
type sight struct {
	at        time.Time
	addresses []string
}

// measureEndpoints begins and kills a backend again and again, and takes the time until a gateway's endpoints show it: of the
// other zone, to which the news goes through global and its store, and of its own zone.
func measureEndpoints(ctx context.Context, b *bench) ([]Row, error) {
	if a, err := b.global.apply(ctx, route("bench-endpoints", "/bench-endpoints", benchService, "bench")); err != nil {
		return nil, fmt.Errorf("route, sent at %s: %w", a.sent.Format(time.TimeOnly), err)
	}
	edge, err := b.token(ctx, demo.Edge)
	if err != nil {
		return nil, err
	}
	token, err := b.token(ctx, benchService)
	if err != nil {
		return nil, err
	}
	sni, err := ingress.Destination{Mesh: demo.Mesh, Service: benchService}.SNI()
	if err != nil {
		return nil, err
	}
	seen, name := make(chan sight, 1024), ingress.EndpointsName(sni, ingress.ClientView)
	conn, err := dial(ctx, b.near(), edge)
	if err != nil {
		return nil, err
	}
	observer, err := simulate(ctx, conn, gateway("bench-observer", demo.Edge, b.near().Host(200)), func(resource string, e *endpointv3.ClusterLoadAssignment) {
		if resource == name {
			seen <- sight{time.Now(), addresses(e)}
		}
	})
	if err != nil {
		return nil, err
	}
	w := watcher{seen: seen, failed: observer.failed}
	var rows []Row
	err = w.wait(ctx, "no endpoint in the beginning", func(s sight) bool { return len(s.addresses) == 0 })
	for _, at := range []demo.Site{b.far(), b.near()} {
		if err != nil {
			break
		}
		var some []Row
		some, err = b.beginAndKill(ctx, at, token, &w)
		rows = append(rows, some...)
	}
	if err = errors.Join(err, observer.kill()); err != nil {
		return nil, err
	}
	return rows, b.global.remove(ctx, "MeshGatewayRoute", "bench-endpoints")
}

// token is of dataplanes of a service.
func (b *bench) token(ctx context.Context, service string) (string, error) {
	out, err := b.federation.CLI(ctx, "token", "dataplane", "--mesh", demo.Mesh, "--service", service)
	return strings.TrimSpace(out), err
}

func (b *bench) beginAndKill(ctx context.Context, at demo.Site, token string, w *watcher) ([]Row, error) {
	where, goal := "in the other zone", 30.0
	if at.Name == b.near().Name {
		where, goal = "in its own zone", 0
	}
	begun, killed := newLatency("backend begun to present "+where), newLatency("backend killed to gone "+where)
	for i := -warmUp; i < b.endpoints; i++ {
		address := at.Host(100 + (i+warmUp)%100)
		conn, err := dial(ctx, at, token)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		backend, err := simulate(ctx, conn, sidecar(fmt.Sprintf("bench-%d", i+warmUp), benchService, address), nil)
		if err != nil {
			return nil, err
		}
		// Another zone is shown its ingress for all that is behind it.
		if err := w.wait(ctx, "backend "+address+" of zone "+at.Name, func(s sight) bool {
			return len(s.addresses) > 0 && (at.Name != b.near().Name || slices.ContainsFunc(s.addresses, func(a string) bool { return strings.HasPrefix(a, address+":") }))
		}); err != nil {
			return nil, errors.Join(err, backend.kill())
		}
		present := w.last.at
		ends := time.Now()
		if err := backend.kill(); err != nil {
			return nil, err
		}
		if err := w.wait(ctx, "end of backend "+address+" of zone "+at.Name, func(s sight) bool { return len(s.addresses) == 0 }); err != nil {
			return nil, err
		}
		if i >= 0 {
			begun.add(present.Sub(began))
			killed.add(w.last.at.Sub(ends))
		}
	}
	return append(killed.rows(goal, 0), begun.rows(goal, 0)...), nil
}

// watcher waits for what an observer sees.
type watcher struct {
	seen   <-chan sight
	failed <-chan error
	last   sight
}

func (w *watcher) wait(ctx context.Context, what string, ok func(sight) bool) error {
	timer := time.NewTimer(receiptTime)
	defer timer.Stop()
	for {
		select {
		case w.last = <-w.seen:
			if ok(w.last) {
				return nil
			}
		case err := <-w.failed:
			return fmt.Errorf("%s: the observer's stream has ended: %w", what, err)
		case <-timer.C:
			return fmt.Errorf("%s: not seen within %s; last seen: %v", what, receiptTime, w.last.addresses)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
