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

// churnOfOne is of one service with two clients. change makes its next change, a second after the one before it; given gives a client
// endpoints.
func churnOfOne() (c *churn, change func(), given func(client int, at time.Duration, endpoints ...string)) {
	c = newChurn("127.127.1.1", 1)
	of := &churned{name: "it", clients: 2}
	c.services, c.byName = []*churned{of}, map[string]*churned{"it": of}
	clients, began := []*simproxy.Proxy{{}, {}}, time.Now()
	return c, func() { of.changes = append(of.changes, began.Add(time.Duration(len(of.changes))*time.Second)) },
		func(client int, at time.Duration, endpoints ...string) {
			c.seen(clients[client], xds.TypeEndpoint, "it", &simproxy.Item{Endpoints: endpoints}, began.Add(at))
		}
}

func TestChurnTellsWhichChangeAClientHas(t *testing.T) {
	c, change, given := churnOfOne()
	port := func(n string) string { return c.host + ":" + n }
	given(0, 0, "10.0.0.1:1")
	change()
	if c.settled() == "" {
		t.Error("settled before the change was given")
	}
	given(0, 100*time.Millisecond, "10.0.0.1:1", port("1"))
	given(1, 200*time.Millisecond, port("1"))
	if missing := c.settled(); missing != "" {
		t.Error(missing)
	}
	change()
	change()
	// The end of the first was never given.
	given(0, 2500*time.Millisecond, port("2"))
	given(1, 2500*time.Millisecond, port("2"))
	if n := c.shards[0].all.h.TotalCount(); n != 6 || c.settled() != "" {
		t.Errorf("%d times were taken, want 6; %s", n, c.settled())
	}
	if got := c.shards[0].all.at(100); got < 1490 || got > 1510 {
		t.Errorf("the overtaken change took %g ms, want 1500", got)
	}
	change()
	if c.settled() == "" {
		t.Error("settled with an endpoint that has ended")
	}
	given(0, 3100*time.Millisecond, "10.0.0.1:1")
	given(1, 3100*time.Millisecond, "10.0.0.1:1")
	if missing := c.settled(); missing != "" {
		t.Error(missing)
	}
	change()
	change()
	if missing := c.settled(); missing != "" {
		t.Errorf("what came and went unseen is missed: %s", missing)
	}
	all, first, overtaken := c.finish("churn")
	if all.h.TotalCount() != 10 || first.h.TotalCount() != 2 || overtaken != 2 {
		t.Errorf("%d times, %d first ones, %d overtaken, want 10, 2 and 2", all.h.TotalCount(), first.h.TotalCount(), overtaken)
	}
}

// Endpoints that were over before any client was told of them count for as long as they were there, and their ends not at all: the
// clients had what they should. Before, all of them counted until the next that was told of.
func TestChurnCountsWhatCameAndWentForAsLongAsItWasThere(t *testing.T) {
	c, change, given := churnOfOne()
	for range 9 {
		change()
	}
	given(0, 8300*time.Millisecond, c.host+":5")
	given(1, 8400*time.Millisecond, c.host+":5")
	given(1, 8500*time.Millisecond, c.host+":4") // nothing older counts
	all, first, overtaken := c.finish("churn")
	if all.h.TotalCount() != 10 || overtaken != 8 || all.at(100) < 990 || all.at(100) > 1010 || all.at(10) < 290 || all.at(10) > 310 {
		t.Errorf("%d times to %g ms, the shortest %g, and %d were over before; want 10 to 1000, 300 and 8", all.h.TotalCount(), all.at(100), all.at(10), overtaken)
	}
	if first.h.TotalCount() != 1 || first.at(100) < 290 || first.at(100) > 310 {
		t.Errorf("%d endpoints had a first client, after %g ms; want 1 after 300", first.h.TotalCount(), first.at(100))
	}
}

// A client that was told of an endpoint is wrong until it is told of the next one or that there is none, whatever came and went meanwhile.
func TestChurnCountsAnEndThatIsLateInFull(t *testing.T) {
	c, change, given := churnOfOne()
	change()
	given(0, 100*time.Millisecond, c.host+":1")
	change()
	change()
	change()
	given(0, 4*time.Second, "10.0.0.1:1")
	all := c.shards[0].all
	if all.h.TotalCount() != 4 || c.shards[0].overtaken != 0 || all.at(100) < 2990 || all.at(100) > 3010 {
		t.Errorf("%d times to %g ms, and %d were over before; want 4 to 3000 and none", all.h.TotalCount(), all.at(100), c.shards[0].overtaken)
	}
	all, _, overtaken := c.finish("churn")
	if all.h.TotalCount() != 6 || overtaken != 2 {
		t.Errorf("with the client that was told nothing %d times, %d over before, want 6 and 2", all.h.TotalCount(), overtaken)
	}
}

func TestHighestRateIsThatUpToWhichAllAreGood(t *testing.T) {
	for _, c := range []struct {
		all  []churnResult
		want int
	}{
		{[]churnResult{{25, 60, .5}, {50, 250, 1}, {75, 251, .9}, {100, 90, .9}}, 50},
		{[]churnResult{{500, 900, .9}, {25, 60, .5}, {50, 90, 1.1}}, 25},
		{[]churnResult{{500, 100, .9}, {25, 60, .5}}, 500},
		{[]churnResult{{500, 900, .9}}, 0},
	} {
		if got := highest(c.all); got != c.want {
			t.Errorf("%v: %d, want %d", c.all, got, c.want)
		}
	}
}

func TestSizesAreChecked(t *testing.T) {
	for _, args := range [][]string{{"-scale", "-proxies", "15"}, {"-scale", "-scenario", "none"}, {"-scale", "-parts", "none"}, {"-scale", "-policies", "1"}, {"-scale", "-lesser-rates", "50,x"}} {
		if err := run(context.Background(), append(args, "-binary", "main.go", "-out", t.TempDir()), io.Discard); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
}
