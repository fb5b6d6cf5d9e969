package main

import (
	"context"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/bench/simproxy"
	"github.com/zoneforge/zoneforge/xds"
)

func TestPlanIsWhatTheGoalsSpeakOf(t *testing.T) {
	workloads, clients := plan(fullProxies)
	again, _ := plan(fullProxies)
	if !reflect.DeepEqual(workloads, again) {
		t.Error("two plans differ")
	}
	endpoints, sum := make([]int, len(clients)), 0
	for _, w := range workloads {
		for _, s := range w.services {
			endpoints[s] += replicas
		}
		if len(w.outbounds) != outbounds {
			t.Errorf("a workload is a client of %d services, want %d", len(w.outbounds), outbounds)
		}
	}
	for s, n := range endpoints {
		sum += clients[s]
		if n != 20 {
			t.Errorf("service %d has %d endpoints, want 20", s, n)
		}
	}
	if len(clients) != 1000 || sum != fullProxies*outbounds {
		t.Errorf("%d services with %d clients, want 1000 with %d", len(clients), sum, fullProxies*outbounds)
	}
}

func TestChurnTellsWhichChangeAClientHas(t *testing.T) {
	c := newChurn(1)
	of := &churned{name: "it", clients: 1}
	c.services, c.byName = []*churned{of}, map[string]*churned{"it": of}
	p, began := &simproxy.Proxy{}, time.Now()
	change := func() { of.changes = append(of.changes, began.Add(time.Duration(len(of.changes))*time.Second)) }
	given := func(at time.Duration, endpoints ...string) {
		c.seen(p, xds.TypeEndpoint, "it", &simproxy.Item{Endpoints: endpoints}, began.Add(at))
	}
	change()
	if c.settled() == "" {
		t.Error("settled before the change was given")
	}
	given(100*time.Millisecond, "10.0.0.1:1", churnHost+":1")
	if missing := c.settled(); missing != "" {
		t.Error(missing)
	}
	change()
	change()
	given(2500*time.Millisecond, churnHost+":2") // the end of the first was never given
	if n := c.shards[0].h.TotalCount(); n != 3 || c.settled() != "" {
		t.Errorf("%d times were taken, want 3; %s", n, c.settled())
	}
	if got := newLatencyOf(c.shards[0]).at(100); got < 1490 || got > 1510 {
		t.Errorf("the overtaken change took %g ms, want 1500", got)
	}
	change()
	if c.settled() == "" {
		t.Error("settled with an endpoint that has ended")
	}
	given(3100*time.Millisecond, "10.0.0.1:1")
	if missing := c.settled(); missing != "" {
		t.Error(missing)
	}
	change()
	change()
	if missing := c.settled(); missing != "" {
		t.Errorf("what came and went unseen is missed: %s", missing)
	}
}

func newLatencyOf(s *churnShard) *latency { return &latency{"it", s.h} }

func TestSizesAreChecked(t *testing.T) {
	for _, args := range [][]string{{"-scale", "-proxies", "15"}, {"-scale", "-scenario", "none"}, {"-scale", "-parts", "none"}, {"-scale", "-policies", "1"}, {"-scale", "-lesser-rates", "50,x"}} {
		if err := run(context.Background(), append(args, "-binary", "main.go", "-out", t.TempDir()), io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}
