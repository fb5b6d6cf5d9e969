package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zoneforge/zoneforge/bench/simzone"
	"github.com/zoneforge/zoneforge/deploy/demo"
)

const (
	// idleTime is how long an idle global is watched, and settleTime how long before that nothing happens.
	idleTime, settleTime = 30 * time.Second, 5 * time.Second
	// outage is long enough for zones to have come to their longest wait.
	outage = 45 * time.Second
	// largeChange is the bytes of a large resource.
	largeChange = 20_000
)

// measureGlobalApply applies changes of one policy one after another, each until the last zone has acknowledged it and its receipt
// says that it is live everywhere.
func measureGlobalApply(ctx context.Context, s *scale) ([]Row, error) {
	m, err := s.manyZones(ctx)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("apply to the last of %d zones", s.zones)
	last, typical, live := newLatency(name), newLatency("apply to half of them"), newLatency("apply to live, by the receipt")
	for i := range warmUp {
		if _, err := m.changeAll(ctx, policy(0, i+1), last); err != nil {
			return nil, err
		}
	}
	last = newLatency(name)
	before := m.fleet.Traffic()
	cpu, err := m.cpu()
	if err != nil {
		return nil, err
	}
	for i := range s.globalApplies {
		c, err := m.changeAll(ctx, policy(i%s.policiesOfAll, 1000+i), last, typical)
		if err != nil {
			return nil, err
		}
		live.add(c)
	}
	after, err := m.cpu()
	if err != nil {
		return nil, err
	}
	n := int64(s.globalApplies)
	rows := append(last.rows(0, 500), typical.rows(0, 0)...)
	rows = append(rows, live.rows(0, 0)...)
	rows = append(rows, row("processor time of global, a change", (after-cpu).Seconds()*1000/float64(n), "ms", n))
	rows = append(rows, bytesRows("one small change", m.fleet.Traffic().Sub(before), n*int64(s.zones))...)

	before = m.fleet.Traffic()
	const larges = 5
	for i := range larges {
		if _, err := m.changeAll(ctx, large(i), newLatency("")); err != nil {
			return nil, err
		}
	}
	return s.judged(append(rows, bytesRows("one large change", m.fleet.Traffic().Sub(before), larges*int64(s.zones))...)), nil
}

// changeAll applies a document, adds the times to the last of all zones and to half of them, and gives that to its receipt.
func (m *manyZones) changeAll(ctx context.Context, document string, last *latency, typical ...*latency) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptTime)
	defer cancel()
	w := m.fleet.Watch(0)
	defer w.Close()
	sent := time.Now()
	c, err := m.commit(ctx, document)
	if err != nil {
		return 0, err
	}
	w.Expect(c.Revision)
	if _, err := m.follow(ctx, c.Change); err != nil {
		return 0, err
	}
	live := time.Since(sent)
	at, err := w.Wait(ctx)
	if err != nil {
		return 0, err
	}
	last.add(at[len(at)-1].Sub(sent))
	for _, l := range typical {
		l.add(at[len(at)/2].Sub(sent))
	}
	return live, nil
}

// bytesRows tell what changes cost on the wire for a zone; n is the changes times the zones.
func bytesRows(what string, t simzone.Traffic, n int64) []Row {
	size := float64(t.Bytes) / float64(n)
	down, up := float64(t.Down-t.BeatsDown)/float64(n), float64(t.Up-t.BeatsUp)/float64(n)
	return []Row{
		row(what+", its size (key and content)", size, "B", n),
		row(what+", down to a zone in HTTP/2", down, "B", n),
		row(what+", the same beyond 1.1 x its size", down-1.1*size, "B", n).atMost(200),
		row(what+", up from a zone in HTTP/2 (Ack, Status)", up, "B", n),
		row(what+", down and up with TLS and heartbeats", float64(t.TLSDown+t.TLSUp)/float64(n), "B", n),
	}
}

// large is a resource of some largeChange bytes.
func large(version int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "type: Retry\nmesh: %s\nname: scale-large\nsources:\n", demo.Mesh)
	for i := range largeChange / 70 {
		fmt.Fprintf(&b, "  - match: {kuma.io/service: client-%08d-%04d-%s}\n", version, i, strings.Repeat("x", 24))
	}
	fmt.Fprintf(&b, "destinations:\n  - match: {kuma.io/service: large}\nconf:\n  http: {numRetries: 3, perTryTimeout: 200ms}\n")
	return b.String()
}

// measureGlobalMemory lets all zones tell of few proxies, and then of many.
func measureGlobalMemory(ctx context.Context, s *scale) ([]Row, error) {
	m, err := s.manyZones(ctx)
	if err != nil {
		return nil, err
	}
	var rows []Row
	var resident [2]int64
	for i, proxies := range []int{fewProxies, manyProxies} {
		m.fleet.SetProxies(proxies)
		if err := pause(ctx, settleTime); err != nil {
			return nil, err
		}
		if resident[i], err = m.memory(); err != nil {
			return nil, err
		}
		what := fmt.Sprintf("global with %d zones of %d proxies and %d resources", s.zones, proxies, s.policiesOfAll)
		rows = append(rows, row(what+", resident", float64(resident[i])/(1<<20), "MiB", 1).atMost(1024))
	}
	return s.judged(append(rows, row("memory by the proxies of zones", float64(resident[1])/float64(resident[0]), "ratio", 1).atMost(1.05))), nil
}

// measureGlobalIdle watches a global to which nothing happens but heartbeats.
func measureGlobalIdle(ctx context.Context, s *scale) ([]Row, error) {
	m, err := s.manyZones(ctx)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, settleTime); err != nil {
		return nil, err
	}
	before, err := m.cpu()
	if err != nil {
		return nil, err
	}
	traffic := m.fleet.Traffic()
	if err := pause(ctx, idleTime); err != nil {
		return nil, err
	}
	after, err := m.cpu()
	if err != nil {
		return nil, err
	}
	t := m.fleet.Traffic().Sub(traffic)
	return []Row{
		row(fmt.Sprintf("idle with %d zones, of a core", s.zones), 100*(after-before).Seconds()/idleTime.Seconds(), "%", 1),
		row("heartbeats of a zone, down and up in HTTP/2", float64(t.Down+t.Up)/float64(s.zones)/idleTime.Seconds(), "B/s", 1),
	}, nil
}

// measureGlobalRestart kills global and starts it again at once, and then after zones have waited for it for long.
func measureGlobalRestart(ctx context.Context, s *scale) ([]Row, error) {
	m, err := s.manyZones(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := m.restart(ctx, s, 0, "global killed and started")
	if err != nil {
		return nil, err
	}
	long, err := m.restart(ctx, s, outage, fmt.Sprintf("global started %s after it was killed", outage))
	return s.judged(append(rows, long...)), err
}

func (m *manyZones) restart(ctx context.Context, s *scale, down time.Duration, what string) ([]Row, error) {
	before := m.fleet.TrafficOfEach()
	if err := s.profiles.mark(); err != nil {
		return nil, err
	}
	m.kill()
	if err := pause(ctx, down); err != nil {
		return nil, err
	}
	began := time.Now()
	var err error
	if m.child, err = m.launch(); err != nil {
		return nil, err
	}
	if err := m.await(ctx, "to be ready", func() error { return m.isReady(ctx) }); err != nil {
		return nil, err
	}
	ready := time.Since(began)
	revision, err := m.inSync(ctx, s.zones)
	if err != nil {
		return nil, err
	}
	if err := m.fleet.Online(ctx, s.zones, revision); err != nil {
		return nil, err
	}
	took := time.Since(began)
	cpu, err := m.cpu()
	if err != nil {
		return nil, err
	}
	// What a zone still has to say comes within moments.
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	var most, secure int64
	for i, t := range m.fleet.TrafficOfEach() {
		t = t.Sub(before[i])
		if t.Records > 0 {
			return nil, errors.New("a zone that lacked nothing was sent records")
		}
		// A stream that was refused is no transfer of one that had nothing new.
		if t.Streams == 1 {
			most, secure = max(most, t.Down+t.Up-t.BeatsDown-t.BeatsUp), max(secure, t.TLSDown+t.TLSUp)
		}
	}
	n := int64(s.zones)
	return []Row{
		row(what+": all in sync again", took.Seconds(), "s", n).atMost(15),
		row(what+": global is ready", ready.Seconds(), "s", 1),
		row(what+": processor time of global until then", cpu.Seconds(), "s", 1),
		row(what+": transferred by a zone with nothing new, in HTTP/2, most", float64(most), "B", n).atMost(2048),
		row(what+": the same with TLS, its handshake and heartbeats, most", float64(secure), "B", n),
	}, nil
}
