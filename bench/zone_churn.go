package main

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/xds"
)

// churnHost is the address of all endpoints that come and go; their ports count.
const churnHost = "127.127.1.1"

// churn takes the time from each change to each client of the service. Each service has one endpoint that comes and goes: the
// service's changes are numbered from 1, odd ones begin the endpoint and even ones end it, so that what a proxy was given tells which
// change it is of. A change that a proxy was never given because the next overtook it counts from its own time on.
type churn struct {
	services []*churned
	byName   map[string]*churned
	shards   []*churnShard
	seed     maphash.Seed
}

// churnShard is of some proxies, as all of them take their times at once.
type churnShard struct {
	mu sync.Mutex
	// Guarded by mu; reached is the newest change that a proxy has.
	h       *hdrhistogram.Histogram
	reached map[churnKey]int
}

type churnKey struct {
	proxy *simproxy.Proxy
	of    *churned
}

func newChurn(shards int) *churn {
	c := &churn{byName: map[string]*churned{}, seed: maphash.MakeSeed()}
	for range shards {
		c.shards = append(c.shards, &churnShard{h: newLatency("").h, reached: map[churnKey]int{}})
	}
	return c
}

// churned is one service.
type churned struct {
	name    string
	clients int
	link    *simproxy.Link
	proxy   *simproxy.Proxy // nil while there is no endpoint

	mu      sync.Mutex
	changes []time.Time // when, by number - 1; guarded by mu
}

func (c *churned) issued(n int) (times []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes[:min(n, len(c.changes))]
}

// number is that of the change of which endpoints are, 0 for none.
func (c *churned) number(endpoints []string) int {
	for _, e := range endpoints {
		if port, ok := strings.CutPrefix(e, churnHost+":"); ok {
			n, _ := strconv.Atoi(port)
			return 2*n - 1
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.changes) / 2 * 2
}

func (c *churn) seen(p *simproxy.Proxy, typeURL, name string, item *simproxy.Item, at time.Time) {
	if typeURL != xds.TypeEndpoint || item == nil {
		return
	}
	of := c.byName[name]
	if of == nil {
		return
	}
	key := churnKey{p, of}
	now := of.number(item.Endpoints)
	times := of.issued(now)
	shard := c.shards[maphash.Comparable(c.seed, p)%uint64(len(c.shards))]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	last := shard.reached[key]
	if now <= last {
		return
	}
	shard.reached[key] = now
	for _, began := range times[min(last, len(times)):] {
		_ = shard.h.RecordValue(min(max(at.Sub(began), 0), maxLatency).Microseconds()) // within the histogram's bounds
	}
}

// settled tells which service has a client without its newest change; empty for none. A client that was never told of an endpoint
// that came and went while others waited has what it should.
func (c *churn) settled() string {
	have, stale := map[*churned]int{}, map[*churned]int{}
	for _, shard := range c.shards {
		shard.mu.Lock()
		for key, n := range shard.reached {
			if issued := len(key.of.issued(math.MaxInt)); n == issued || n%2 == 0 && issued%2 == 0 {
				have[key.of]++
			} else {
				stale[key.of]++
			}
		}
		shard.mu.Unlock()
	}
	for _, of := range c.services {
		n := len(of.issued(math.MaxInt))
		if n%2 == 1 && have[of] != of.clients || stale[of] > 0 {
			return fmt.Sprintf("%s: of %d clients, %d have change %d, and %d an older one", of.name, of.clients, have[of], n, stale[of])
		}
	}
	return ""
}

// churning begins and ends endpoints at a steady rate, after lesser ones, each for a fifth of the time.
func (b *zoneBench) churning(ctx context.Context) error {
	lesser, err := ratesOf(b.lesser)
	if err != nil {
		return err
	}
	for _, rate := range lesser {
		if err := b.churnAt(ctx, fmt.Sprintf("churn at %d a second", rate), rate, b.churn/5); err != nil {
			return err
		}
	}
	return b.churnAt(ctx, "churn", b.rate, b.churn)
}

// ratesOf reads rates with commas between.
func ratesOf(list string) (rates []int, err error) {
	for _, word := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) {
		rate, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || rate < 1 {
			return nil, fmt.Errorf("%q is no number of changes a second", word)
		}
		rates = append(rates, rate)
	}
	return rates, nil
}

// churnAt watches latency, processor and memory at one rate.
func (b *zoneBench) churnAt(ctx context.Context, name string, rate int, lasts time.Duration) error {
	c := newChurn(64)
	for i, clients := range b.w.clients {
		if clients == 0 {
			continue
		}
		resource, err := endpointsOf(serviceName(i))
		if err != nil {
			return err
		}
		token, err := b.w.serviceToken(ctx, serviceName(i))
		if err != nil {
			return err
		}
		of := &churned{name: serviceName(i), clients: clients}
		if of.link, err = b.w.fleet.Dial(token); err != nil {
			return err
		}
		defer of.link.Close()
		c.services, c.byName[resource] = append(c.services, of), of
	}
	b.w.fleet.Watch(c.seen)
	defer b.w.fleet.Watch(nil)

	before, err := b.w.metrics()
	if err != nil {
		return err
	}
	began := time.Now()
	used, err := b.w.zone.cpu()
	if err != nil {
		return err
	}
	var memory []float64
	changes := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sampled := began; time.Since(began) < lasts; {
		for due := int(time.Since(began).Seconds() * float64(rate)); changes < due; changes++ {
			if err := b.change(ctx, c.services[changes%len(c.services)]); err != nil {
				return err
			}
		}
		if time.Since(sampled) > time.Second {
			sampled = time.Now()
			resident, err := b.w.zone.memory()
			if err != nil {
				return err
			}
			memory = append(memory, float64(resident)/(1<<20))
			// The versions of endpoints are many, and no proxy will be given old ones.
			b.w.fleet.Forget()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	took := time.Since(began)
	after, err := b.w.zone.cpu()
	if err != nil {
		return err
	}
	sent, err := b.w.metrics()
	if err != nil {
		return err
	}
	if err := until(ctx, "the last change reaches all", time.Minute, b.w.running(), func() error {
		if missing := c.settled(); missing != "" {
			return fmt.Errorf("%s", missing)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, of := range c.services {
		if of.proxy != nil {
			of.proxy.Stop()
		}
	}
	all := newLatency(name + ", a change to each client")
	for _, s := range c.shards {
		all.h.Merge(s.h)
	}
	b.latencies(all, 250)
	responses := sent["zoneforge_zone_responses_total"] - before["zoneforge_zone_responses_total"]
	resources := sent["zoneforge_zone_sent_resources_total"] - before["zoneforge_zone_sent_resources_total"]
	// The first fifth warms up; the next is compared with the last.
	fifth := max(len(memory)/5, 1)
	first, last := mean(memory[min(fifth, len(memory)-1):min(2*fifth, len(memory))]), mean(memory[len(memory)-fifth:])
	b.add(row(name+", changes of endpoints", float64(changes)/took.Seconds(), "per second", int64(changes)),
		b.judge(row(name+", processor of the zone", float64(after-used)/float64(took), "cores", int64(changes)), 1),
		row(name+", responses to all proxies", responses/took.Seconds(), "per second", int64(responses)),
		row(name+", changes in a response", resources/responses, "resources", int64(responses)),
		b.judge(row(name+", memory at the end over that after a fifth", last/first, "times", int64(len(memory))), 1.05),
		row(name+", memory of the zone at the end", last, "MiB resident", int64(len(memory))))
	return b.w.settled(ctx, b.proxies, time.Minute)
}

// change begins the endpoint of a service, or ends it.
func (b *zoneBench) change(ctx context.Context, of *churned) error {
	of.mu.Lock()
	of.changes = append(of.changes, time.Now())
	n := len(of.changes)
	of.mu.Unlock()
	if n%2 == 0 {
		ends := of.proxy
		of.proxy = nil
		go ends.Stop()
		return nil
	}
	document := sidecar("churn-"+strings.TrimPrefix(of.name, "service-"), of.name, churnHost)
	inbound := document["networking"].(map[string]any)["inbound"].([]any)[0].(map[string]any)
	inbound["port"] = (n + 1) / 2
	who, err := node(document)
	if err != nil {
		return err
	}
	of.proxy = b.w.fleet.AddOver(ctx, of.link, who)
	return nil
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
