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

const (
	// benchService is what the simulated backends serve.
	benchService = "bench"
	// killedService and killedProxy are the demo's, of which each zone has killedCount.
	killedService, killedProxy, killedCount = "echo", "echo-v1", 2
)

// sight is what an observer was given of a service's endpoints.
type sight struct {
	at        time.Time
	resource  string
	addresses []string
	// weight is the sum of all endpoints' weights: those of the own zone weigh 1, another zone's ingress what is behind it.
	weight uint32
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
	simulatedOnes, err := endpointsOf(benchService)
	if err != nil {
		return nil, err
	}
	realOnes, err := endpointsOf(killedService)
	if err != nil {
		return nil, err
	}
	seen := make(chan sight, 1024)
	conn, err := dial(ctx, b.near(), edge)
	if err != nil {
		return nil, err
	}
	observer, err := simulate(ctx, conn, gateway("bench-observer", demo.Edge, b.near().Host(200)), func(resource string, e *endpointv3.ClusterLoadAssignment) {
		if resource == simulatedOnes || resource == realOnes {
			seen <- sight{time.Now(), resource, addresses(e), weight(e)}
		}
	})
	if err != nil {
		return nil, err
	}
	w := watcher{resource: simulatedOnes, seen: seen, failed: observer.failed}
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
	if err == nil {
		w.resource = realOnes
		var some []Row
		some, err = b.killReal(ctx, &w)
		rows = append(rows, some...)
	}
	if err = errors.Join(err, observer.kill()); err != nil {
		return nil, err
	}
	return rows, b.global.remove(ctx, "MeshGatewayRoute", "bench-endpoints")
}

// endpointsOf names the EDS resource of a service, as clients see it.
func endpointsOf(service string) (string, error) {
	sni, err := ingress.Destination{Mesh: demo.Mesh, Service: service}.SNI()
	return ingress.EndpointsName(sni, ingress.ClientView), err
}

// killReal kills a real Envoy of the other zone and starts it again. How long it takes to begin is Envoy's own, and in no figure.
func (b *bench) killReal(ctx context.Context, w *watcher) ([]Row, error) {
	killed := newLatency("real Envoy killed to gone in the other zone")
	for i := range b.kills {
		began := time.Now()
		b.federation.KillProxy(b.far(), killedProxy)
		if err := w.wait(ctx, fmt.Sprintf("kill %d of %s in %s", i+1, killedProxy, b.far().Name), func(s sight) bool { return s.weight == 2*killedCount-1 }); err != nil {
			return nil, err
		}
		killed.add(w.last.at.Sub(began))
		if err := b.federation.StartProxy(b.far(), killedProxy); err != nil {
			return nil, err
		}
		if err := w.wait(ctx, fmt.Sprintf("return %d of %s in %s", i+1, killedProxy, b.far().Name), func(s sight) bool { return s.weight == 2*killedCount }); err != nil {
			return nil, err
		}
	}
	return killed.rows(goal50, goal99), nil
}

// token is of dataplanes of a service.
func (b *bench) token(ctx context.Context, service string) (string, error) {
	out, err := b.federation.CLI(ctx, "token", "dataplane", "--mesh", demo.Mesh, "--service", service)
	return strings.TrimSpace(out), err
}

func (b *bench) beginAndKill(ctx context.Context, at demo.Site, token string, w *watcher) ([]Row, error) {
	where, median, slow := "in the other zone", float64(goal50), float64(goal99)
	if at.Name == b.near().Name {
		where, median, slow = "in its own zone", 0, 0
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
	return append(killed.rows(median, slow), begun.rows(median, slow)...), nil
}

// watcher waits for what an observer sees.
type watcher struct {
	resource string // what is waited for; other sights are passed over
	seen     <-chan sight
	failed   <-chan error
	last     sight
}

func (w *watcher) wait(ctx context.Context, what string, ok func(sight) bool) error {
	timer := time.NewTimer(receiptTime)
	defer timer.Stop()
	for {
		select {
		case w.last = <-w.seen:
			if w.last.resource == w.resource && ok(w.last) {
				return nil
			}
		case err := <-w.failed:
			return fmt.Errorf("%s: the observer's stream has ended: %w", what, err)
		case <-timer.C:
			return fmt.Errorf("%s: not seen within %s; last seen: %v of weight %d", what, receiptTime, w.last.addresses, w.last.weight)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
