package zone

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/identity"
)

// BenchmarkColdStart opens the disk of a zone with ten thousand policies and makes its state of it.
func BenchmarkColdStart(b *testing.B) {
	const many = 10_000
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	z, err := New(Config{Name: "east", DataDir: b.TempDir(), GlobalAddresses: []string{"g:1"}, GlobalCAFile: "c", TokenFile: "t"})
	must(err)
	set := kds.NewSet()
	for i := range many {
		one := func(service int) []*meshv1.Selector {
			return []*meshv1.Selector{{Match: map[string]string{resource.TagService: fmt.Sprintf("service-%04d", service)}}}
		}
		key := resource.Key{Mesh: "default", Name: fmt.Sprintf("cold-%05d", i)}
		var spec proto.Message
		switch from, to := one(i/10), one(i%1000); i % 3 {
		case 0:
			key.Kind, spec = "TrafficPermission", &meshv1.TrafficPermission{Sources: from, Destinations: to}
		case 1:
			key.Kind, spec = "Retry", &meshv1.Retry{Sources: from, Destinations: to, Conf: &meshv1.Retry_Conf{Http: &meshv1.Retry_Http{NumRetries: proto.Uint32(3)}}}
		case 2:
			key.Kind, spec = "CircuitBreaker", &meshv1.CircuitBreaker{Sources: from, Destinations: to,
				Conf: &meshv1.CircuitBreaker_Conf{Thresholds: &meshv1.CircuitBreaker_Thresholds{MaxConnections: proto.Uint32(100)}}}
		}
		payload, err := resource.Marshal(&resource.Resource{Key: key, Spec: spec})
		must(err)
		must(set.Put(kds.NewRecord(key, payload)))
	}
	var all []*kdsv1.Record
	set.Each("", func(_ resource.Key, r *kdsv1.Record) bool { all = append(all, r); return true })
	store, err := disk.Open(z.cfg.DataDir)
	must(err)
	must(store.Apply(all, nil, true, set.Position("e", 1)))
	must(store.Close())
	b.ReportAllocs()
	for b.Loop() {
		store, err := disk.Open(z.cfg.DataDir)
		must(err)
		held, at, err := store.Load()
		must(err)
		good, err := store.Good()
		must(err)
		c, err := z.open(store)
		must(err)
		c.identity, err = identity.New(identity.Config{Zone: "east", Store: store, Request: func(context.Context, string, []byte) error { return nil }})
		must(err)
		c.load(held, good, at, nil)
		if got := held.Clone().Len(); got != many {
			b.Fatalf("it holds %d", got)
		}
		must(store.Close())
	}
}
