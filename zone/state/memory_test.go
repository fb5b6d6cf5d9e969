package state_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/state"
)

// BenchmarkProxiesKept is the heap that live proxies leave in use, from their documents on: workloads of twenty replicas of two versions,
// each of which takes requests of two services and sends such to thirty.
func BenchmarkProxiesKept(b *testing.B) {
	const loads, replicas, outbounds = 40, 20, 30
	document := func(load, replica int) string {
		var in, out []string
		for i := range 2 {
			in = append(in, fmt.Sprintf(`{"port":%d,"servicePort":%d,"tags":{"kuma.io/protocol":"http","kuma.io/service":"service-%04d","version":"v%d"}}`,
				15006+i, 8080+i, 2*load+i, 1+replica%2))
		}
		for i := range outbounds {
			service := (load*7 + i*13) % (2 * loads)
			out = append(out, fmt.Sprintf(`{"port":%d,"tags":{"kuma.io/service":"service-%04d"}}`, 20000+service, service))
		}
		return fmt.Sprintf(`{"type":"Dataplane","mesh":"default","name":"w-%03d-%02d","networking":{"address":"10.0.%d.%d","inbound":[%s],"outbound":[%s]}}`,
			load, replica, load, replica, strings.Join(in, ","), strings.Join(out, ","))
	}
	b.ReportAllocs()
	for b.Loop() {
		s := state.New("east", "")
		s.Apply([]*kdsv1.Record{record(b, "Mesh", "default", mesh(meshv1.Mesh_MODE_STRICT)),
			record(b, "TrafficPermission", "all", &meshv1.TrafficPermission{Sources: sel(service("*")), Destinations: sel(service("*"))})}, nil, false)
		before := live()
		for load := range loads {
			for replica := range replicas {
				read := resource.Decode("document", []byte(document(load, replica)), resource.Options{})
				if err := read.Err(); err != nil {
					b.Fatal(err)
				}
				r := read.Resources[0]
				s.Register(state.Proxy{ID: "Dataplane/default/" + r.Key.Name, Mesh: "default", Name: r.Key.Name, Dataplane: r.Spec.(*meshv1.Dataplane)}, true)
			}
			drain(b, s)
		}
		b.ReportMetric(float64(live()-before)/loads/replicas, "kept-B/proxy")
		runtime.KeepAlive(s)
	}
}

// live are the bytes of the heap that are in use.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
