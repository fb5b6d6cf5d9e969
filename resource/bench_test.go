package resource

import (
	"fmt"
	"strings"
	"testing"
)

// documents are routes of gateways with a few rules each, as an apply carries them.
func documents(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
type: MeshGatewayRoute
mesh: default
name: route-%03d
selectors:
  - match: {kuma.io/service: edge}
conf:
  http:
    hostnames: [shop-%03d.example.com]
    rules:
      - matches: [{path: {match: PREFIX, value: /orders/%d}, method: GET}, {path: {match: EXACT, value: /carts}}]
        filters:
          - requestHeader: {set: [{name: x-shop, value: "%d"}], remove: [x-debug]}
        backends: [{weight: 90, destination: {kuma.io/service: orders, version: v1}}, {weight: 10, destination: {kuma.io/service: orders, version: v2}}]
      - matches: [{path: {match: REGEX, value: '/items/[0-9]+'}}]
        backends: [{destination: {kuma.io/service: items}}]
`, i, i, i, i)
	}
	return []byte(b.String())
}

func decoded(b *testing.B, n int) []*Resource {
	b.Helper()
	batch := Decode("bench.yaml", documents(n), Options{})
	if err := batch.Err(); err != nil {
		b.Fatal(err)
	}
	return batch.Resources
}

// BenchmarkDecode reads and checks documents of YAML, with all places of errors.
func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint("documents=", n), func(b *testing.B) {
			data := documents(n)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if batch := Decode("bench.yaml", data, Options{}); batch.Err() != nil {
					b.Fatal(batch.Err())
				}
			}
		})
	}
}

// BenchmarkMarshal makes the canonical bytes of a route.
func BenchmarkMarshal(b *testing.B) {
	r := decoded(b, 1)[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Marshal(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUnmarshal reads them, as a zone does with each record.
func BenchmarkUnmarshal(b *testing.B) {
	r := decoded(b, 1)[0]
	data, err := Marshal(r)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Unmarshal(r.Key, data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDigest takes a member of a set out and puts its next version in.
func BenchmarkDigest(b *testing.B) {
	r := decoded(b, 1)[0]
	data, err := Marshal(r)
	if err != nil {
		b.Fatal(err)
	}
	var d Digest
	d.Add(HashOf(r.Key, data))
	b.ReportAllocs()
	for b.Loop() {
		h := HashOf(r.Key, data)
		d.Remove(h)
		d.Add(h)
	}
}
