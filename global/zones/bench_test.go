package zones

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"

	"github.com/zoneforge/zoneforge/global/store"
	"github.com/zoneforge/zoneforge/global/view"
)

// manyZones is a registry with so many connected zones.
func manyZones(b *testing.B, n int) (*Registry, int64) {
	s, err := store.Open(b.Context(), store.Config{DataDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-ran
		s.Close()
	})
	var ops []store.Op
	for i := range n {
		ops = append(ops, enable(fmt.Sprintf("zone-%04d", i), true))
	}
	done, err := s.Commit(ctx, store.Change{Author: "bench", Ops: ops})
	if err == nil {
		_, err = s.Wait(ctx, done.Revision)
	}
	if err != nil {
		b.Fatal(err)
	}
	views := view.New(s, nil)
	r, err := New(Config{Store: s, Views: views, Verify: func(t string) (string, error) { return t, nil }})
	if err != nil {
		b.Fatal(err)
	}
	at := views.Stable().Position()
	for i := range n {
		name := fmt.Sprintf("zone-%04d", i)
		session, v := r.Open(ctx, name, &kdsv1.Hello{Zone: name, Replica: "0", Identity: name, Position: at.Proto()})
		if session == nil {
			b.Fatal(v)
		}
		session.Status(&kdsv1.Status{Revision: at.Revision, Proxies: 1000, Acked: 1000, Times: lives(at.Revision, time.Now())})
	}
	return r, done.Revision
}

// BenchmarkReceipt is one line of a receipt that is followed with a thousand zones.
func BenchmarkReceipt(b *testing.B) {
	r, revision := manyZones(b, 1000)
	b.Run("made", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got := r.ReceiptOf(revision); !got.Live {
				b.Fatal("not live")
			}
		}
	})
	b.Run("encoded", func(b *testing.B) {
		got := r.ReceiptOf(revision)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
