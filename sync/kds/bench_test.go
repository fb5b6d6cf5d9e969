package kds

import (
	"fmt"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/resource"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// filled is a set of records of a policy's size, spread over some kinds.
func filled(tb testing.TB, n int) *Set {
	tb.Helper()
	s := NewSet()
	for i := range n {
		if err := s.Put(version(i, 0)); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

// version is a version of one of the records of filled.
func version(i, v int) *kdsv1.Record {
	k := resource.Key{Kind: []string{"Retry", "Timeout", "TrafficPermission", "TrafficRoute"}[i%4], Mesh: "default", Name: fmt.Sprintf("policy-%06d", i)}
	return NewRecord(k, fmt.Appendf(nil, "%0300d", v))
}

// BenchmarkSetPut replaces one record of many, digests and all, and tells the position after it.
func BenchmarkSetPut(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint("records=", n), func(b *testing.B) {
			s := filled(b, n)
			versions := []*kdsv1.Record{version(n/2, 1), version(n/2, 2)}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := s.Put(versions[i%2]); err != nil {
					b.Fatal(err)
				}
				s.Position("epoch", uint64(i))
			}
		})
	}
}

// BenchmarkDiff compares two sets of which one record differs.
func BenchmarkDiff(b *testing.B) {
	from := filled(b, 10_000)
	to := from.Clone()
	if err := to.Put(version(5000, 1)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if upserts, _ := Diff(from, to); len(upserts) != 1 {
			b.Fatalf("%d records differ", len(upserts))
		}
	}
}

// BenchmarkDelta brings one change of one record among many to a zone that has the state before, with its frames encoded.
func BenchmarkDelta(b *testing.B) {
	now := time.Unix(1000, 0)
	before := &testView{Set: filled(b, 10_000), log: map[uint64][]resource.Key{}, memo: &Memo{}}
	before.pos = before.Set.Position("a", 1)
	changed := version(5000, 1)
	k, err := KeyFrom(changed.GetKey())
	if err != nil {
		b.Fatal(err)
	}
	after := &testView{Set: before.Clone(), log: map[uint64][]resource.Key{2: {k}}, min: 1}
	if err := after.Put(changed); err != nil {
		b.Fatal(err)
	}
	after.pos = after.Set.Position("a", 2)
	b.ReportAllocs()
	for b.Loop() {
		g := NewGlobal(GlobalConfig{Zone: "west"}, now)
		g.SetView(before, now)
		g.Receive(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: &kdsv1.Hello{Zone: "west", Protocols: []uint32{Protocol}, Position: before.pos.Proto()}}}, now)
		g.Admit(Verdict{}, now)
		g.Ready()
		fresh := *after
		fresh.memo = &Memo{}
		g.SetView(&fresh, now)
		frames := g.Ready().Frames
		if len(frames) != 1 || len(frames[0].Encoded) == 0 {
			b.Fatalf("%d frames", len(frames))
		}
	}
}
