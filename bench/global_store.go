package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// smallStore is the resources of the smaller of two stores, and storeApplies how many changes each is given, in rounds of one each.
	smallStore, storeApplies = 100, 2000
)

// storeWork are the counters of what an apply makes global do, by which the sizes are compared.
var storeWork = []struct{ counter, what, unit string }{
	{`zoneforge_store_keys_total{way="read"}`, "keys read from etcd", "keys"},
	{`zoneforge_store_keys_total{way="written"}`, "keys written to etcd", "keys"},
	{`zoneforge_store_bytes_total{way="read"}`, "bytes read from etcd", "B"},
	{`zoneforge_store_bytes_total{way="written"}`, "bytes written to etcd", "B"},
	{`zoneforge_store_visited_total`, "resources looked at", "resources"},
}

// measured is a global with a store of its own, and what applies to it cost.
type measured struct {
	*server
	stored int
	times  *latency
	cpu    time.Duration
	work   []float64
}

// storeSizes are the smallest store, the largest, and those between them by factors of ten.
func storeSizes(largest int) (out []int) {
	for n := smallStore; n < largest; n *= 10 {
		out = append(out, n)
	}
	return append(out, largest)
}

// measureGlobalStore applies changes of one resource to stores of few to many resources, in turn, so that what else the machine does is in
// all.
func measureGlobalStore(ctx context.Context, s *scale) (rows []Row, err error) {
	// The many zones are done, and would take part of the processor.
	if s.many != nil {
		err, s.many = s.many.stop(false), nil
		if err != nil {
			return nil, err
		}
	}
	var all []*measured
	defer func() {
		for _, m := range all {
			err = errors.Join(err, m.end(err != nil))
		}
	}()
	sizes := storeSizes(s.stored)
	for i, stored := range sizes {
		one := *s
		if i < len(sizes)-1 {
			one.debug = "" // one of them can be looked at
		}
		g, err := one.global(ctx, 2+i)
		if err != nil {
			return nil, err
		}
		m := &measured{
			server: g, stored: stored, times: newLatency(fmt.Sprintf("apply to committed, %d resources stored", stored)), work: make([]float64, len(storeWork)),
		}
		all = append(all, m)
		if err := g.fill(ctx, 0, stored); err != nil {
			return nil, err
		}
		// What filling left to do is done, and not part of an apply.
		if err := m.applies(ctx, 0, newLatency("")); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, settleTime); err != nil {
		return nil, err
	}
	for _, m := range all {
		m.cpu, m.work = 0, make([]float64, len(storeWork))
	}
	for round := range storeApplies / smallStore {
		for _, m := range all {
			if err := m.applies(ctx, 1+round, m.times); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range all {
		rows = append(rows, m.times.rows(0, 0)...)
		rows = append(rows, row(fmt.Sprintf("processor time an apply, %d resources stored", m.stored), m.cpu.Seconds()*1000/storeApplies, "ms", storeApplies))
	}
	ratio := func(what string, of func(*measured) float64) {
		rows = append(rows, row(fmt.Sprintf("%s an apply, %d resources to %d", what, s.stored, smallStore), of(all[len(all)-1])/of(all[0]), "ratio", storeApplies).atMost(1.1))
	}
	for i, w := range storeWork {
		for _, m := range all {
			rows = append(rows, row(fmt.Sprintf("%s an apply, %d resources stored", w.what, m.stored), m.work[i]/storeApplies, w.unit, storeApplies).
				ofSize("an apply of one resource: "+w.what, m.stored))
		}
		ratio(w.what, func(m *measured) float64 { return m.work[i] })
	}
	ratio("processor time", func(m *measured) float64 { return m.cpu.Seconds() })
	return s.judged(rows), nil
}

// applies changes each of some resources once.
func (m *measured) applies(ctx context.Context, version int, times *latency) error {
	before, err := m.counters(ctx)
	if err != nil {
		return err
	}
	began, err := m.child.cpu()
	if err != nil {
		return err
	}
	for i := range smallStore {
		sent := time.Now()
		if _, err := m.commit(ctx, policy(i, 1+version)); err != nil {
			return err
		}
		times.add(time.Since(sent))
	}
	ended, err := m.child.cpu()
	if err != nil {
		return err
	}
	after, err := m.counters(ctx)
	if err != nil {
		return err
	}
	m.cpu += ended - began
	for i, w := range storeWork {
		m.work[i] += after[w.counter] - before[w.counter]
	}
	return nil
}

// counters are global's metrics, by name with labels.
func (g *server) counters(ctx context.Context) (map[string]float64, error) {
	resp, err := g.send(ctx, http.MethodGet, "/metrics", "", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseFloat(value, 64); err == nil && !strings.HasPrefix(line, "#") {
			out[name] = n
		}
	}
	return out, nil
}
