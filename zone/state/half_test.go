package state_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds"
	"github.com/zoneforge/zoneforge/zone/state"
)

// documents are policies of one name each, in some variants; SOURCE and DESTINATION are services.
var documents = []string{
	"type: Timeout\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE}\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  connectTimeout: NUMBERs\n  http:\n    requestTimeout: NUMBERs\n",
	"type: Retry\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE}\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  http:\n    numRetries: NUMBER\n",
	"type: CircuitBreaker\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE}\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  thresholds:\n    maxConnections: NUMBER\n",
	"type: HealthCheck\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE}\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  interval: NUMBERs\n  timeout: 2s\n  unhealthyThreshold: 3\n  healthyThreshold: 1\n",
	"type: TrafficRoute\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE}\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  split:\n    - weight: NUMBER\n      destination: {kuma.io/service: db}\n    - weight: 1\n      destination: {kuma.io/service: echo, version: v1}\n",
	"type: TrafficPermission\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE}\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\n",
	"type: FaultInjection\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE}\ndestinations:\n  - match: {kuma.io/service: DESTINATION, kuma.io/protocol: http}\nconf:\n  delay:\n    percentage: 50\n    value: NUMBERs\n",
	"type: RateLimit\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE, tier: gold}\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  http:\n    requests: NUMBER\n    interval: 10s\n",
	"type: TrafficLog\nmesh: default\nname: NAME\nsources:\n  - match: {kuma.io/service: SOURCE}\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  openTelemetry:\n    endpoint: collector:43NUMBER\n",
	"type: TrafficTrace\nmesh: default\nname: NAME\nselectors:\n  - match: {kuma.io/service: SOURCE}\nconf:\n  backend: zipkin\n",
	"type: ProxyTemplate\nmesh: default\nname: NAME\nselectors:\n  - match: {kuma.io/service: SOURCE}\nconf:\n  modifications:\n    - cluster:\n        operation: patch\n        match: {name: echo.all.default.mesh}\n        value: |\n          connect_timeout: NUMBERs\n",
	"type: FilterPolicy\nmesh: default\nname: NAME\nselectors:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  filters:\n    - extAuth:\n        grpc:\n          target:\n            destination: {kuma.io/service: authz}\n",
	"type: LocalityPolicy\nmesh: default\nname: NAME\ndestinations:\n  - match: {kuma.io/service: DESTINATION}\nconf:\n  failover:\n    - to: [west]\n",
	"type: ExternalService\nmesh: default\nname: NAME\ntags:\n  kuma.io/service: outside\n  kuma.io/protocol: http\nnetworking:\n  address: outside.example.com:8NUMBER\n",
}

const tracedMesh = "type: Mesh\nname: default\nmtls:\n  enabledBackend: ca\n  backends:\n    - name: ca\n      type: builtin\ntracing:\n  backends:\n    - name: zipkin\n" +
	"      type: zipkin\n      conf:\n        url: http://zipkin:9411/api/v2/spans\n"

func decoded(t *testing.T, text string) *kdsv1.Record {
	t.Helper()
	batch := resource.Decode("it", []byte(text), resource.Options{})
	if err := batch.Err(); err != nil || len(batch.Resources) != 1 {
		t.Fatalf("%v\n%s", err, text)
	}
	r := batch.Resources[0]
	payload, err := resource.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return kds.NewRecord(r.Key, payload)
}

// replica is a sidecar of a service that has others like it.
func replica(name string, n int, outbounds ...string) state.Proxy {
	p := sidecar(name, fmt.Sprintf("10.0.%d.%d", len(name), n), outbounds...)
	p.LogPipe = "logs"
	for _, i := range p.Dataplane.Networking.Inbound {
		i.Tags[resource.TagProtocol] = "http"
		i.Tags["version"] = fmt.Sprintf("v%d", 1+n%2)
		i.Tags["tier"] = "gold"
	}
	return p
}

// TestHalvesAreTheWhole changes policies and replicas at random. After each change what was built, half by half and only where
// something changed, must be what one build of the whole proxy gives.
func TestHalvesAreTheWhole(t *testing.T) {
	const steps = 120
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			s := state.New("east", "")
			s.Apply([]*kdsv1.Record{decoded(t, tracedMesh), rec(t, "ServiceAvailability", "west.echo", available("west", "echo", 2)),
				rec(t, "TrafficPermission", "outside", &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("outside"))})}, nil, false)
			services := []string{"web", "echo", "db", "authz", `"*"`}
			outbounds := map[string][]string{"web": {"echo", "db", "outside"}, "echo": {"db"}, "db": nil, "authz": {"web"}}
			register := func() {
				name := services[random.IntN(4)]
				s.Register(replica(name, random.IntN(4), outbounds[name]...), true)
			}
			for range 12 {
				register()
			}
			built := 0
			for step := range steps {
				switch random.IntN(10) {
				case 0:
					register()
				case 1:
					if all := s.Proxies(true); len(all) > 4 {
						s.Unregister(all[random.IntN(len(all))])
					}
				case 2, 3:
					i := random.IntN(len(documents))
					kind, _, _ := strings.Cut(strings.TrimPrefix(documents[i], "type: "), "\n")
					s.Apply(nil, []resource.Key{{Kind: kind, Mesh: "default", Name: fmt.Sprint("p", random.IntN(2))}}, false)
				default:
					text := strings.NewReplacer("NAME", fmt.Sprint("p", random.IntN(2)), "SOURCE", services[random.IntN(len(services))],
						"DESTINATION", services[random.IntN(len(services))], "NUMBER", fmt.Sprint(10+random.IntN(3))).Replace(documents[random.IntN(len(documents))])
					if bad := s.Apply([]*kdsv1.Record{decoded(t, text)}, nil, false); len(bad) > 0 {
						t.Fatalf("%v\n%s", bad, text)
					}
				}
				proxies, _, _ := settle(t, s)
				built += len(proxies)
				if t.Failed() {
					t.Fatalf("at step %d", step)
				}
			}
			if built < steps || built > 12*steps {
				t.Errorf("%d builds in %d steps", built, steps)
			}
		})
	}
}

// TestReplicasShareWhatGoesOut: the resources are the same, not only equal.
func TestReplicasShareWhatGoesOut(t *testing.T) {
	s := state.New("east", "")
	s.Apply([]*kdsv1.Record{rec(t, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT))}, nil, false)
	a, b := sidecar("web", "10.0.0.1", "echo", "db"), sidecar("web", "10.0.0.2", "echo", "db")
	s.Register(a, true)
	s.Register(b, true)
	settle(t, s)
	all := func(b *state.Built) (all []*xds.Resource) {
		for _, typeURL := range []string{xds.TypeListener, xds.TypeRoute, xds.TypeCluster} {
			all = slices.AppendSeq(all, b.Resources.Each(typeURL))
		}
		return all
	}
	shared := func() (same, own int) {
		t.Helper()
		x, err := s.BuildProxy(a.ID)
		if err != nil {
			t.Fatal(err)
		}
		y, err := s.BuildProxy(b.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all(x) {
			if slices.Contains(all(y), r) {
				same++
			} else {
				own++
			}
		}
		return same, own
	}
	before, own := shared()
	x, _ := s.BuildProxy(a.ID)
	y, _ := s.BuildProxy(b.ID)
	if x.Resources.Shared == nil || x.Resources.Shared != y.Resources.Shared {
		t.Error("each has a list of its own of what both have")
	}
	if before < 4 || own == 0 {
		t.Errorf("%d resources are shared, and %d are not", before, own)
	}
	s.Apply([]*kdsv1.Record{rec(t, "Timeout", "t", timeout("web", "*", "7"))}, nil, false)
	if proxies, _, _ := settle(t, s); len(proxies) != 2 {
		t.Errorf("built %v", proxies)
	}
	if after, _ := shared(); after != before {
		t.Errorf("%d are shared after a change, %d were before", after, before)
	}
}
