package main

import (
	"context"
	"fmt"
)

// zoneWork are the counters of what a change makes a zone do, by which sizes are compared. Bytes are not: while a service has no endpoint yet,
// what leads to it is for TCP, and not as long.
var zoneWork = []struct{ counter, what, unit string }{
	{"zoneforge_zone_proxies_examined_total", "proxies looked at", "proxies"},
	{"zoneforge_zone_proxy_builds_total", "proxies built", "proxies"},
	{"zoneforge_zone_resources_built_total", "resources built", "resources"},
}

// sizesOf are a hundredth, a tenth and all of a number of proxies, in whole workloads.
func sizesOf(proxies int) (out []int) {
	for _, part := range []int{100, 10, 1} {
		n := max(proxies/part/replicas, 1) * replicas
		if len(out) == 0 || n > out[len(out)-1] {
			out = append(out, n)
		}
	}
	return out
}

// work counts what one policy that hits half of a workload makes a zone of a number of proxies do.
func (b *zoneBench) work(ctx context.Context, proxies int) error {
	before, err := b.w.metrics()
	if err != nil {
		return err
	}
	// A time that no size had before, so that nothing is remembered of it.
	source := fmt.Sprintf("{kuma.io/service: %s, version: v1}", serviceName(0))
	if _, err := b.w.api.apply(ctx, timeout("work", source, 100+len(b.sizes))); err != nil {
		return err
	}
	after, err := b.w.metrics()
	if err != nil {
		return err
	}
	for _, c := range zoneWork {
		b.sizes = append(b.sizes, row(fmt.Sprintf("a policy that hits 10 of %d proxies, %s", proxies, c.what), after[c.counter]-before[c.counter], c.unit, 1).
			ofSize("a policy that hits 10 proxies: "+c.what, proxies))
	}
	if err := b.w.api.remove(ctx, "Timeout", "work"); err != nil {
		return err
	}
	return b.w.settled(ctx, proxies, receiptTime)
}
