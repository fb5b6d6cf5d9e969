package zone

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/identity"
)

// replicasEach is how many proxies a service has, and how many a policy for one service hits.
const replicasEach = 10

// town is a zone with sidecars of many services, each with an outbound to the next service, and one to a service that all are clients of.
type town struct {
	*core
	t        *testing.T
	revision uint64
}

func newTown(t *testing.T, services int) *town {
	t.Helper()
	z, err := New(Config{Name: "east", DataDir: t.TempDir(), GlobalAddresses: []string{"g:1"}, GlobalCAFile: "c", TokenFile: "t"})
	if err != nil {
		t.Fatal(err)
	}
	store, err := disk.Open(z.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := z.open(store)
	if err != nil {
		t.Fatal(err)
	}
	if c.identity, err = identity.New(identity.Config{Zone: "east", Store: store, Request: func(context.Context, string, []byte) error { return nil }}); err != nil {
		t.Fatal(err)
	}
	w := &town{core: c, t: t}
	w.put("Mesh", "default", &meshv1.Mesh{})
	for s := range services {
		for i := range replicasEach {
			w.join(s, (s+1)%services, i)
		}
	}
	w.flush()
	return w
}

func workID(service, i int) string { return fmt.Sprintf("Dataplane/default/s%d-%d", service, i) }

// join connects a proxy, which then acknowledges all that it is given.
func (w *town) join(service, to, i int) {
	id := workID(service, i)
	n := &meshv1.Dataplane_Networking{Address: fmt.Sprintf("10.%d.%d.%d", service>>8, service&255, i+1),
		Inbound: []*meshv1.Dataplane_Inbound{{Port: 80, Tags: map[string]string{resource.TagService: fmt.Sprint("s", service), resource.TagProtocol: "http"}}},
		Outbound: []*meshv1.Dataplane_Outbound{{Port: 9000, Tags: map[string]string{resource.TagService: fmt.Sprint("s", to)}},
			{Port: 9001, Tags: map[string]string{resource.TagService: "common"}}}}
	spec := &meshv1.Dataplane{Networking: n}
	key := resource.Key{Kind: "Dataplane", Mesh: "default", Name: id[len("Dataplane/default/"):]}
	w.connect(&admission.Proxy{ID: id, Kind: "Dataplane", Mesh: "default", Name: key.Name, Dataplane: spec, Resource: &resource.Resource{Key: key, Spec: spec},
		Hash: resource.HashOf(key, fmt.Append(nil, id))}, "")
	w.flush()
	w.progressed(id, server.Progress{Acked: w.core.revision, EndpointsAcked: w.endpointRevision})
	w.flush()
}

func (w *town) put(kind, name string, spec proto.Message) {
	w.t.Helper()
	k := resource.Key{Kind: kind, Mesh: "default", Name: name}
	if kind == "Mesh" {
		k.Mesh = ""
	}
	payload, err := resource.Marshal(&resource.Resource{Key: k, Spec: spec})
	if err != nil {
		w.t.Fatal(err)
	}
	w.revision++
	if rejected := w.apply(&kds.Apply{Upserts: []*kdsv1.Record{kds.NewRecord(k, payload)}, Position: kds.Position{Epoch: "e", Revision: w.revision}}); len(rejected) > 0 {
		w.t.Fatalf("%v", rejected)
	}
	w.flush()
}

// work reads the counters of what was done.
func (w *town) work() map[string]float64 {
	w.t.Helper()
	families, err := w.metrics.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		switch name := f.GetName(); name {
		case "zoneforge_zone_proxy_builds_total", "zoneforge_zone_endpoint_builds_total", "zoneforge_zone_proxies_examined_total",
			"zoneforge_zone_resources_built_total", "zoneforge_zone_resource_bytes_built_total":
			out[name[len("zoneforge_zone_"):]] = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if len(out) != 5 {
		w.t.Fatalf("counters %v", out)
	}
	return out
}

// TestZoneWorkFollowsTheChange counts what a change takes in a zone and in one of ten times as many proxies and services: the same, to
// the byte.
func TestZoneWorkFollowsTheChange(t *testing.T) {
	of := func(service string) []*meshv1.Selector {
		return []*meshv1.Selector{{Match: map[string]string{resource.TagService: service}}}
	}
	route := func(weight uint32) *meshv1.TrafficRoute {
		return &meshv1.TrafficRoute{Sources: of("*"), Destinations: of("s5"), Conf: &meshv1.TrafficRoute_Conf{Split: []*meshv1.TrafficRoute_Split{
			{Weight: weight, Destination: map[string]string{resource.TagService: "s5"}}, {Weight: 1, Destination: map[string]string{resource.TagService: "s6"}}}}}
	}
	const small, large = 10, 100
	towns := map[int]*town{small: newTown(t, small), large: newTown(t, large)}
	for _, c := range []struct {
		name   string
		do     func(*town)
		builds float64
	}{
		{"a route of the clients of one service", func(w *town) { w.put("TrafficRoute", "r", route(9)) }, replicasEach},
		{"the same route, changed", func(w *town) { w.put("TrafficRoute", "r", route(3)) }, replicasEach},
		{"a policy for the workloads of one service", func(w *town) {
			w.put("FaultInjection", "f", &meshv1.FaultInjection{Sources: of("*"), Destinations: of("s7"), Conf: &meshv1.FaultInjection_Conf{
				Http: []*meshv1.Fault{{Abort: &meshv1.Fault_Abort{HttpStatus: 503}}}}})
		}, replicasEach},
		{"traces of one service", func(w *town) {
			w.put("TrafficTrace", "t", &meshv1.TrafficTrace{Selectors: of("s8"), Conf: &meshv1.TrafficTrace_Conf{}})
		}, replicasEach},
		{"a policy for some clients of a service that all have", func(w *town) {
			w.put("Timeout", "some", &meshv1.Timeout{Sources: of("s4"), Destinations: of("common"), Conf: &meshv1.Timeout_Conf{ConnectTimeout: durationpb.New(time.Second)}})
		}, replicasEach},
		{"a policy that hits no proxy", func(w *town) {
			w.put("Timeout", "nobody", &meshv1.Timeout{Sources: of("*"), Destinations: of("none"), Conf: &meshv1.Timeout_Conf{ConnectTimeout: durationpb.New(time.Second)}})
		}, 0},
		{"an endpoint begins", func(w *town) { w.join(3, 4, replicasEach) }, 1},
		{"it comes back with nothing new", func(w *town) {
			w.connect(w.proxies[workID(3, replicasEach)].who, "")
			w.flush()
			w.disconnect(workID(3, replicasEach))
			w.flush()
		}, 0},
		{"it ends", func(w *town) { w.disconnect(workID(3, replicasEach)); w.flush() }, 0},
	} {
		took := map[int]map[string]float64{}
		for size, w := range towns {
			before := w.work()
			c.do(w)
			took[size] = w.work()
			for name := range before {
				took[size][name] -= before[name]
			}
		}
		t.Logf("%s: %v", c.name, took[small])
		for name, n := range took[small] {
			if took[large][name] != n {
				t.Errorf("%s: %s: %g among %d proxies, %g among %d", c.name, name, took[large][name], large*replicasEach, n, small*replicasEach)
			}
		}
		if got := took[small]["proxy_builds_total"]; got != c.builds {
			t.Errorf("%s: %g proxies are built, want %g", c.name, got, c.builds)
		}
		if got := took[small]["proxies_examined_total"]; got > 2*c.builds {
			t.Errorf("%s: %g proxies are looked at to find %g", c.name, got, c.builds)
		}
	}
}
