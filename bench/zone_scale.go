package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/deploy/demo"
	"github.com/zoneforge/zoneforge/xds"
)

// zoneBench is one zone full of proxies, with the figures that were taken of it.
type zoneBench struct {
	*scale
	w *zoneWorld
	// empty are the resident bytes of the zone without proxies, bare its metrics then.
	empty int64
	bare  map[string]float64
	rows  []Row
	// sizes are the rows of work by the number of proxies.
	sizes []Row
}

// responsesTotal is the zone's count of what it sent to proxies.
const responsesTotal = "zoneforge_zone_responses_total"

// zoneParts are measured in this order on one zone.
var zoneParts = []struct {
	name string
	run  func(*zoneBench, context.Context) error
}{
	{"idle", (*zoneBench).idleAndMemory},
	{"endpoint", (*zoneBench).endpoint},
	{"policy", (*zoneBench).policy},
	{"churn", (*zoneBench).churning},
	{"restart", (*zoneBench).restart},
}

func partNames() string {
	var names []string
	for _, p := range zoneParts {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// measureZone fills a zone with proxies and measures what one change, none and many cost it.
func measureZone(ctx context.Context, s *scale) (_ []Row, err error) {
	chosen := strings.FieldsFunc(s.parts, func(r rune) bool { return r == ',' })
	for _, name := range chosen {
		if !slices.Contains(strings.Split(partNames(), ", "), name) {
			return nil, fmt.Errorf("there is no part %q; choose of %s", name, partNames())
		}
	}
	b := &zoneBench{scale: s}
	if b.w, err = newZoneWorld(ctx, s); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		if b.w.fleet != nil {
			b.w.fleet.Wait()
		}
		err = errors.Join(err, b.w.close(err != nil))
	}()
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	for _, p := range zoneParts {
		if len(chosen) > 0 && !slices.Contains(chosen, p.name) {
			continue
		}
		before := len(b.rows)
		if err := b.profiles.begin("zone-" + p.name); err != nil {
			return nil, err
		}
		if err := p.run(b, ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		if err := errors.Join(b.w.global.ended(), b.w.zone.ended()); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		for _, r := range b.rows[before:] {
			b.say("  %s: %s %s %s", r.Metric, number(r.Value), r.Unit, r.verdict())
		}
	}
	return b.rows, nil
}

func (b *zoneBench) add(rows ...Row) { b.rows = append(b.rows, rows...) }

// latencies are a latency's rows; the goal is for the 99th percentile, where the zone has its full size.
func (b *zoneBench) latencies(l *latency, goal99 float64) {
	rows := l.rows(0, 0)
	rows[1] = b.judge(rows[1], goal99)
	b.add(rows...)
}

// begin brings all proxies up.
func (b *zoneBench) begin(ctx context.Context) (err error) {
	if b.empty, err = b.w.zone.memory(); err != nil {
		return err
	}
	if b.bare, err = b.w.metrics(); err != nil {
		return err
	}
	// Envoy's keepalives are those that the bootstrap asks for, see package dataplane.
	if err := b.w.open(simproxy.Config{Keepalive: 30 * time.Second, Pause: time.Second}); err != nil {
		return err
	}
	var took, processor time.Duration
	for _, size := range sizesOf(b.proxies) {
		began := time.Now()
		before, err := b.w.zone.cpu()
		if err != nil {
			return err
		}
		if err := b.w.populate(ctx, b.proxies, size); err != nil {
			return err
		}
		after, err := b.w.zone.cpu()
		if err != nil {
			return err
		}
		took, processor = took+time.Since(began), processor+after-before
		if err := b.work(ctx, size); err != nil {
			return fmt.Errorf("work among %d proxies: %w", size, err)
		}
	}
	n := int64(b.proxies)
	joined, err := b.w.metrics()
	if err != nil {
		return err
	}
	b.say("%d proxies joined in %.1f s", b.proxies, took.Seconds())
	b.add(b.sizes...)
	b.add(row("joining, all proxies one after another", took.Seconds(), "s", n),
		row("joining, processor time of the zone per proxy", float64(processor.Microseconds())/1000/float64(n), "ms", n),
		row("joining, responses to all proxies per proxy", (joined[responsesTotal]-b.bare[responsesTotal])/float64(n), "responses", n),
		row("resources of a proxy", float64(b.w.fleet.Counts().Bytes)/1024/float64(n), "KiB", n))
	return nil
}

// idleAndMemory watches the zone while nothing happens but keepalives.
func (b *zoneBench) idleAndMemory(ctx context.Context) error {
	// What the start left behind is collected and given back to the system meanwhile.
	if err := pause(ctx, min(b.idle, 30*time.Second)); err != nil {
		return err
	}
	before, err := b.w.zone.cpu()
	if err != nil {
		return err
	}
	if err := pause(ctx, b.idle); err != nil {
		return err
	}
	after, err := b.w.zone.cpu()
	if err != nil {
		return err
	}
	resident, err := b.w.zone.memory()
	if err != nil {
		return err
	}
	most, err := b.w.zone.mostMemory()
	if err != nil {
		return err
	}
	m, err := b.w.metrics()
	if err != nil {
		return err
	}
	n := int64(b.proxies)
	more := func(metric string) float64 { return (m[metric] - b.bare[metric]) / 1024 / float64(n) }
	b.add(b.judge(row("idle, processor of the zone", 100*float64(after-before)/float64(b.idle), "% of a core", n), 1),
		b.judge(row("memory of the zone per proxy", float64(resident-b.empty)/1024/float64(n), "KiB resident", n), 64),
		row("memory of the zone per proxy, the most while they joined", float64(most-b.empty)/1024/float64(n), "KiB resident", n),
		row("memory of the zone", float64(resident)/(1<<20), "MiB resident", n),
		row("heap of the zone per proxy", more("go_memstats_heap_inuse_bytes"), "KiB", n),
		row("stacks of the zone per proxy", more("go_memstats_stack_inuse_bytes"), "KiB", n))
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// audience waits until a number of proxies were given endpoints that fit.
type audience struct {
	resource string
	fits     func(endpoints []string) bool
	want     int

	mu   sync.Mutex
	have map[*simproxy.Proxy]bool
	last time.Time
	done chan struct{}
}

func (a *audience) seen(p *simproxy.Proxy, typeURL, name string, item *simproxy.Item, at time.Time) {
	if typeURL != xds.TypeEndpoint || name != a.resource || item == nil || !a.fits(item.Endpoints) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have[p] {
		return
	}
	a.have[p] = true
	if at.After(a.last) {
		a.last = at
	}
	if len(a.have) == a.want {
		close(a.done)
	}
}

// watch is for one change of a service's endpoints.
func (b *zoneBench) watch(service int, fits func([]string) bool) (*audience, error) {
	name, err := endpointsOf(serviceName(service))
	if err != nil {
		return nil, err
	}
	a := &audience{resource: name, fits: fits, want: b.w.clients[service], have: map[*simproxy.Proxy]bool{}, done: make(chan struct{})}
	b.w.fleet.Watch(a.seen)
	return a, nil
}

func (a *audience) wait(ctx context.Context, what string) (time.Time, error) {
	timer := time.NewTimer(receiptTime)
	defer timer.Stop()
	select {
	case <-a.done:
		return a.last, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	case <-timer.C:
		a.mu.Lock()
		defer a.mu.Unlock()
		return time.Time{}, fmt.Errorf("%s: %d of %d proxies were given it within %s", what, len(a.have), a.want, receiptTime)
	}
}

// endpoint begins and ends one more endpoint of a service, again and again, and waits for the last of its clients.
func (b *zoneBench) endpoint(ctx context.Context) error {
	begun, ended := newLatency("an endpoint begun to acknowledged by the last client"), newLatency("an endpoint ended to acknowledged by the last client")
	defer b.w.fleet.Watch(nil)
	for i := -min(warmUp, b.changes); i < b.changes; i++ {
		service := (i + warmUp) * 7 % len(b.w.clients)
		if b.w.clients[service] == 0 {
			continue
		}
		token, err := b.w.serviceToken(ctx, serviceName(service))
		if err != nil {
			return err
		}
		address := fmt.Sprintf("127.127.0.%d", 1+(i+warmUp)%250)
		who, err := node(sidecar(fmt.Sprintf("extra-%d", i+warmUp), serviceName(service), address))
		if err != nil {
			return err
		}
		there := func(endpoints []string) bool {
			return slices.ContainsFunc(endpoints, func(e string) bool { return strings.HasPrefix(e, address+":") })
		}
		a, err := b.watch(service, there)
		if err != nil {
			return err
		}
		began := time.Now()
		extra := b.w.fleet.Add(ctx, who, token)
		last, err := a.wait(ctx, "endpoint of "+serviceName(service))
		if err != nil {
			return err
		}
		if a, err = b.watch(service, func(e []string) bool { return !there(e) }); err != nil {
			return err
		}
		ends := time.Now()
		extra.Stop()
		gone, err := a.wait(ctx, "end of an endpoint of "+serviceName(service))
		if err != nil {
			return err
		}
		if i >= 0 {
			begun.add(last.Sub(began))
			ended.add(gone.Sub(ends))
		}
	}
	b.latencies(begun, 250)
	b.latencies(ended, 250)
	return nil
}

// timeout is a Timeout of the clients that a selector takes.
func timeout(name, source string, seconds int) string {
	return fmt.Sprintf("type: Timeout\nmesh: %s\nname: %s\nsources:\n  - match: %s\ndestinations:\n  - match: {kuma.io/service: \"*\"}\nconf:\n  http:\n    requestTimeout: %ds\n",
		demo.Mesh, name, source, seconds)
}

// policy applies policies that hit half the replicas of one workload, and such that hit all proxies.
func (b *zoneBench) policy(ctx context.Context) error {
	for _, c := range []struct {
		name   string
		n      int
		hits   int
		goal   float64
		source func(i int) string
	}{
		{"a policy that hits 10 proxies", b.policies, replicas / 2, 30, func(i int) string {
			return fmt.Sprintf("{kuma.io/service: %s, version: v1}", serviceName(i*3%(len(b.w.workloads))*perWorkload))
		}},
		{"a policy that hits all proxies", b.policies / 10, b.proxies, 5000, func(int) string { return `{kuma.io/service: "*"}` }},
	} {
		live, acked := newLatency(c.name+", apply to live"), newLatency(c.name+", apply to the last acknowledgement")
		before, err := b.w.metrics()
		if err != nil {
			return err
		}
		warm := min(warmUp, c.n/2)
		for i := range warm + c.n {
			a, err := b.w.api.apply(ctx, timeout("bench", c.source(i/2), 10+i))
			if err != nil {
				return fmt.Errorf("%s, the %d. of %d: %w", c.name, i+1, warm+c.n, err)
			}
			if i >= warm {
				live.add(a.live.Sub(a.sent))
				acked.add(a.acked.Sub(a.sent))
			}
			// Moving to the next workload would hit those of before, too.
			if i%2 == 1 || i == warm+c.n-1 {
				if err := b.w.api.remove(ctx, "Timeout", "bench"); err != nil {
					return err
				}
			}
		}
		after, err := b.w.metrics()
		if err != nil {
			return err
		}
		b.latencies(live, c.goal)
		b.add(acked.rows(0, 0)...)
		changes := warm + c.n + (warm+c.n+1)/2
		b.add(b.judge(row(c.name+", proxies built", (after["zoneforge_zone_proxy_builds_total"]-before["zoneforge_zone_proxy_builds_total"])/float64(changes), "a change", int64(changes)), float64(c.hits)))
	}
	return nil
}

// restart kills the zone and starts it again.
func (b *zoneBench) restart(ctx context.Context) error {
	const times = 3
	var worst, started float64
	var processor time.Duration
	var sent float64
	before := b.w.fleet.Counts()
	for range times {
		was := b.w.fleet.Counts()
		if err := b.profiles.mark(); err != nil {
			return err
		}
		b.w.zone.kill()
		began := time.Now()
		if err := b.w.startZone(); err != nil {
			return err
		}
		if err := b.w.ready(ctx); err != nil {
			return err
		}
		started = max(started, time.Since(began).Seconds())
		n := int64(b.proxies)
		if err := b.w.fleet.Await(ctx, "proxies are back", 3*time.Minute, func(c simproxy.Counts) bool { return c.Reconnects-was.Reconnects >= n && c.Complete == n }); err != nil {
			return err
		}
		if err := b.w.settled(ctx, b.proxies, time.Minute); err != nil {
			return err
		}
		took := time.Since(began).Seconds()
		spent, err := b.w.zone.cpu() // of a process that has done nothing else
		if err != nil {
			return err
		}
		processor += spent
		m, err := b.w.metrics()
		if err != nil {
			return err
		}
		sent += m[responsesTotal]
		b.say("  all are back after %.1f s, and %.1f s of the zone's processor", took, spent.Seconds())
		worst = max(worst, took)
	}
	// Endpoints known from disk end with the grace period, unless their proxies are back.
	if err := pause(ctx, 35*time.Second); err != nil {
		return err
	}
	after := b.w.fleet.Counts()
	b.add(b.judge(row("restart to all proxies complete, the longest", worst, "s", times), 20), row("restart to ready, the longest", started, "s", times),
		row("restart, processor time of the zone per proxy", float64(processor.Microseconds())/1000/times/float64(b.proxies), "ms", times),
		row("restart, responses per proxy", sent/times/float64(b.proxies), "responses", times),
		row("endpoints emptied by restarts", float64(after.Emptied-before.Emptied), "resources", times).atMost(0),
		row("resources taken away by restarts", float64(after.Removed-before.Removed), "resources", times).atMost(0),
		row("resources sent again by restarts, per proxy", float64(after.Bytes-before.Bytes)/1024/times/float64(b.proxies), "KiB", times))
	return nil
}
