package main

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/xds"
)

// churn takes the time from each change to each client of the service. Each service has one endpoint that comes and goes: the
// service's changes are numbered from 1, odd ones begin the endpoint and even ones end it, so that what a proxy was given tells which
// change it is of. A change that a proxy was never given because the next overtook it counts from its own time on, until the proxy has
// what is newer. An endpoint that was over before a proxy without it was told of it counts until its end, from which on the proxy had
// what it should; the end is none that it could be told, and such pairs are counted.
type churn struct {
	// host is the address of all endpoints that come and go; their ports count.
	host     string
	services []*churned
	byName   map[string]*churned
	shards   []*churnShard
	seed     maphash.Seed
}

// churnShard is of some proxies, as all of them take their times at once.
type churnShard struct {
	mu sync.Mutex
	// Guarded by mu; first is of the first client that is given an endpoint, overtaken counts endpoints that were over before a client was
	// told of them, and reached is the newest change that a proxy has.
	all, first *latency
	overtaken  int64
	reached    map[churnKey]int
}

type churnKey struct {
	proxy *simproxy.Proxy
	of    *churned
}

func newChurn(host string, shards int) *churn {
	c := &churn{host: host, byName: map[string]*churned{}, seed: maphash.MakeSeed()}
	for range shards {
		c.shards = append(c.shards, &churnShard{all: newLatency(""), first: newLatency(""), reached: map[churnKey]int{}})
	}
	return c
}

// churned is one service.
type churned struct {
	name    string
	clients int
	link    *simproxy.Link
	proxy   *simproxy.Proxy // nil while there is no endpoint

	mu sync.Mutex
	// Guarded by mu: when each change was, by number - 1, and the newest beginning that any client was given.
	changes []time.Time
	began   int
}

// given tells when the change was of which endpoints are, and those before it. first says that no client was given its beginning
// before.
func (c *churned) given(host string, endpoints []string) (times []time.Time, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.changes) / 2 * 2
	for _, e := range endpoints {
		if port, ok := strings.CutPrefix(e, host+":"); ok {
			begun, _ := strconv.Atoi(port)
			n = min(2*begun-1, len(c.changes))
		}
	}
	if first = n%2 == 1 && n > c.began; first {
		c.began = n
	}
	return c.changes[:n], first
}

// issued tells when all changes were.
func (c *churned) issued() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

func (c *churn) seen(p *simproxy.Proxy, typeURL, name string, item *simproxy.Item, at time.Time) {
	if typeURL != xds.TypeEndpoint || item == nil {
		return
	}
	of := c.byName[name]
	if of == nil {
		return
	}
	times, first := of.given(c.host, item.Endpoints)
	shard := c.shards[maphash.Comparable(c.seed, p)%uint64(len(c.shards))]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if first {
		shard.first.add(at.Sub(times[len(times)-1]))
	}
	shard.reach(churnKey{p, of}, times, at)
}

// reach counts the changes until the last of times, of which a client has what it was given at a time. It needs mu.
func (s *churnShard) reach(key churnKey, times []time.Time, at time.Time) {
	last := s.reached[key]
	if len(times) <= last {
		return
	}
	s.reached[key] = len(times)
	for ; last%2 == 0 && len(times) >= last+2; last += 2 {
		s.all.add(times[last+1].Sub(times[last]))
		s.overtaken++
	}
	for _, began := range times[last:] {
		s.all.add(at.Sub(began))
	}
}

// finish counts the endpoints that were over before clients were told of them, and that nothing came after. It gives all times, those of the
// first clients, and how many such endpoints there were. All must be settled.
func (c *churn) finish(name string) (all, first *latency, overtaken int64) {
	told := map[*churned]int{}
	all, first = newLatency(name+", a change to each client"), newLatency(name+", an endpoint begun to its first client")
	for _, s := range c.shards {
		s.mu.Lock()
		defer s.mu.Unlock()
		for key := range s.reached {
			told[key.of]++
			s.reach(key, key.of.issued(), time.Now())
		}
	}
	for _, of := range c.services {
		for range of.clients - told[of] {
			c.shards[0].reach(churnKey{new(simproxy.Proxy), of}, of.issued(), time.Now())
		}
	}
	for _, s := range c.shards {
		all.h.Merge(s.all.h)
		first.h.Merge(s.first.h)
		overtaken += s.overtaken
	}
	return all, first, overtaken
}

// settled tells which service has a client without its newest change; empty for none. A client that was never told of an endpoint
// that came and went while others waited has what it should.
func (c *churn) settled() string {
	have, stale := map[*churned]int{}, map[*churned]int{}
	for _, shard := range c.shards {
		shard.mu.Lock()
		for key, n := range shard.reached {
			if issued := len(key.of.issued()); n == issued || n%2 == 0 && issued%2 == 0 {
				have[key.of]++
			} else {
				stale[key.of]++
			}
		}
		shard.mu.Unlock()
	}
	for _, of := range c.services {
		n := len(of.issued())
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
	var all []churnResult
	for i, rate := range append(lesser, b.rate) {
		name, lasts := fmt.Sprintf("churn at %d a second", rate), b.churn/5
		if i == len(lesser) {
			name, lasts = "churn", b.churn
		}
		result, err := b.churnAt(ctx, i, name, rate, lasts)
		if err != nil {
			return err
		}
		all = append(all, result)
	}
	b.add(row("churn, the highest of these rates up to which both goals are met", float64(highest(all)), "per second", int64(len(all))))
	return nil
}

// Goals of churn: for a change to reach a client, and for the processors that the zone takes.
const churnMilliseconds, churnCores = 250, 1

// churnResult is what is judged of one rate.
type churnResult struct {
	rate                int
	milliseconds, cores float64
}

// highest is the largest rate that met the goals, as did all that are smaller; 0 for none.
func highest(all []churnResult) (rate int) {
	slices.SortFunc(all, func(a, b churnResult) int { return cmp.Compare(a.rate, b.rate) })
	for _, r := range all {
		if r.milliseconds > churnMilliseconds || r.cores > churnCores {
			break
		}
		rate = r.rate
	}
	return rate
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

// churnAt watches latency, processor and memory at one rate, the i-th.
func (b *zoneBench) churnAt(ctx context.Context, i int, name string, rate int, lasts time.Duration) (result churnResult, err error) {
	c := newChurn(fmt.Sprintf("127.127.1.%d", 1+i%250), 64)
	for i, clients := range b.w.clients {
		if clients == 0 {
			continue
		}
		resource, err := endpointsOf(serviceName(i))
		if err != nil {
			return result, err
		}
		token, err := b.w.serviceToken(ctx, serviceName(i))
		if err != nil {
			return result, err
		}
		of := &churned{name: serviceName(i), clients: clients}
		if of.link, err = b.w.fleet.Dial(token); err != nil {
			return result, err
		}
		defer of.link.Close()
		c.services, c.byName[resource] = append(c.services, of), of
	}
	b.w.fleet.Watch(c.seen)
	defer b.w.fleet.Watch(nil)

	before, err := b.w.metrics()
	if err != nil {
		return result, err
	}
	began := time.Now()
	used, err := b.w.zone.cpu()
	if err != nil {
		return result, err
	}
	var memory []float64
	changes := 0
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sampled := began; time.Since(began) < lasts; {
		for due := int(time.Since(began).Seconds() * float64(rate)); changes < due; changes++ {
			if err := b.change(ctx, c.host, c.services[changes%len(c.services)]); err != nil {
				return result, err
			}
		}
		if time.Since(sampled) > time.Second {
			sampled = time.Now()
			resident, err := b.w.zone.memory()
			if err != nil {
				return result, err
			}
			memory = append(memory, float64(resident)/(1<<20))
			// The versions of endpoints are many, and no proxy will be given old ones.
			b.w.fleet.Forget()
		}
		select {
		case <-ctx.Done():
			return result, ctx.Err()
		case <-tick.C:
		}
	}
	took := time.Since(began)
	after, err := b.w.zone.cpu()
	if err != nil {
		return result, err
	}
	sent, err := b.w.metrics()
	if err != nil {
		return result, err
	}
	if err := until(ctx, "the last change reaches all", time.Minute, b.w.running(), func() error {
		if missing := c.settled(); missing != "" {
			return fmt.Errorf("%s", missing)
		}
		return nil
	}); err != nil {
		return result, err
	}
	for _, of := range c.services {
		if of.proxy != nil {
			of.proxy.Stop()
		}
	}
	all, own, overtaken := c.finish(name)
	cores := float64(after-used) / float64(took)
	b.latencies(all, churnMilliseconds)
	b.add(own.rows(0, 0)...)
	var begun int64 // and clients that were to be told of it
	for _, of := range c.services {
		begun += int64((len(of.issued()) + 1) / 2 * of.clients)
	}
	responses := sent["zoneforge_zone_responses_total"] - before["zoneforge_zone_responses_total"]
	resources := sent["zoneforge_zone_sent_resources_total"] - before["zoneforge_zone_sent_resources_total"]
	// The first fifth warms up; the next is compared with the last.
	fifth := max(len(memory)/5, 1)
	first, last := mean(memory[min(fifth, len(memory)-1):min(2*fifth, len(memory))]), mean(memory[len(memory)-fifth:])
	steady := row(name+", memory at the end over that after a fifth", last/first, "times", int64(len(memory)))
	if rate == b.rate { // at lesser ones the first collections may be yet to come
		steady = b.judge(steady, 1.05)
	}
	b.add(row(name+", endpoints that were over before a client was told", 100*float64(overtaken)/float64(max(begun, 1)), "%", begun),
		row(name+", changes of endpoints", float64(changes)/took.Seconds(), "per second", int64(changes)),
		b.judge(row(name+", processor of the zone", cores, "cores", int64(changes)), churnCores),
		row(name+", responses to all proxies", responses/took.Seconds(), "per second", int64(responses)),
		row(name+", changes in a response", resources/responses, "resources", int64(responses)),
		steady,
		row(name+", memory of the zone at the end", last, "MiB resident", int64(len(memory))))
	return churnResult{rate, all.at(99), cores}, b.w.settled(ctx, b.proxies, time.Minute)
}

// change begins the endpoint of a service, which is a proxy of a name of its own as that of a new pod is, or ends it.
func (b *zoneBench) change(ctx context.Context, host string, of *churned) error {
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
	document := sidecar(fmt.Sprintf("churn-%s-%d", strings.TrimPrefix(of.name, "service-"), n), of.name, host)
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
