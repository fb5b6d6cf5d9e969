package server

import (
	"bytes"
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/xds"
)

// returning is the first request of a type by a proxy that has so many resources of it.
func returning(many int) *discoveryv3.DeltaDiscoveryRequest {
	r := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p"}, TypeUrl: xds.TypeEndpoint, InitialResourceVersions: map[string]string{}, ResponseNonce: "n"}
	for i := range many {
		name := fmt.Sprintf("service-%04d.all.default.mesh", i)
		r.InitialResourceVersions[name] = fmt.Sprintf("%032x", i)
		r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
	}
	return r
}

func encoded(t testing.TB, r *discoveryv3.DeltaDiscoveryRequest) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzRequest has requests read as protobuf reads them, whatever they are.
func FuzzRequest(f *testing.F) {
	whole := encoded(f, returning(3))
	for _, b := range [][]byte{
		nil, whole, encoded(f, returning(0)), whole[:len(whole)/2],
		bytes.Repeat(whole, 2), // the parts are not side by side, and each version is said twice
		{0x2a, 0},              // neither name nor version
		{0x2a, 3, 0x0a, 1, 'a', 0x2a, 6, 0x0a, 1, 'a', 0x12, 1, 'b'}, // twice, with a version the second time
		{0x2a, 3, 0x0a, 1, 0xff},                                     // no text
		{0x2a, 2, 0x08, 1},                                           // a number in place of a name
		{0x2a, 3, 0x0a, 9, 'a'},                                      // longer than what it is in
		{0x28, 1, 0x2a, 3, 0x0a, 1, 'a'},                             // a number in place of a version
		{0x2a, 4, 0x7a, 0, 0x12, 0, 0x32},                            // a field that nobody knows, and one that is cut off
		{0x2a, 6, 0x80, 0x80, 0x80, 0x80, 0x10, 0},                   // a field of a number that there can't be
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, want discoveryv3.DeltaDiscoveryRequest
		failed, refused := readRequest(b, &got), proto.Unmarshal(b, &want)
		if (failed == nil) != (refused == nil) {
			t.Fatalf("%v, protobuf says %v", failed, refused)
		}
		if failed == nil && !proto.Equal(&got, &want) {
			t.Fatalf("%v, want %v", &got, &want)
		}
	})
}

func BenchmarkReadRequest(b *testing.B) {
	bytes := encoded(b, returning(30))
	for _, c := range []struct {
		name string
		read func([]byte, *discoveryv3.DeltaDiscoveryRequest) error
	}{
		{"here", readRequest},
		{"protobuf", func(b []byte, r *discoveryv3.DeltaDiscoveryRequest) error { return proto.Unmarshal(b, r) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var r discoveryv3.DeltaDiscoveryRequest
				if err := c.read(bytes, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
