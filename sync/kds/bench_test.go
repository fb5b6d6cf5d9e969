package kds

import (
	"fmt"
	"testing"

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
