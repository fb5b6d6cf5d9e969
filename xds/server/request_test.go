package server

import (
	"bytes"
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/mem"
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

// first is an Envoy's first request, whose node names so many extensions.
func first(extensions int) *discoveryv3.DeltaDiscoveryRequest {
	r := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p", Cluster: "c", UserAgentName: "envoy"}, TypeUrl: xds.TypeCluster}
	for i := range extensions {
		r.Node.Extensions = append(r.Node.Extensions, &corev3.Extension{
			Name: fmt.Sprintf("envoy.filters.http.extension_%03d", i), Category: "envoy.filters.http",
			TypeUrls: []string{fmt.Sprintf("envoy.extensions.filters.http.extension.v3.Extension%03d", i)},
		})
	}
	return r
}

// FuzzExtensions has requests read as protobuf reads them, but for the extensions of their node.
func FuzzExtensions(f *testing.F) {
	whole := encoded(f, first(3))
	for _, b := range [][]byte{
		nil, whole, encoded(f, first(0)), encoded(f, returning(2)), whole[:len(whole)/2], bytes.Repeat(whole, 2),
		{0x0a, 2, 0x4a, 0},       // nothing but an extension of which nothing is said
		{0x0a, 2, 0x48, 1},       // a number in place of an extension
		{0x0a, 3, 0x4a, 9, 'a'},  // an extension longer than the node
		{0x0a, 2, 0x4a, 0, 0x12}, // a field that is cut off behind the node
		{0x08, 1, 0x0a, 0},       // a number in place of a node, and one of which nothing is said
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, want discoveryv3.DeltaDiscoveryRequest
		if proto.Unmarshal(b, &want) != nil {
			return // what is not looked at may be anything
		}
		if err := proto.Unmarshal(withoutExtensions(b), &got); err != nil {
			t.Fatal(err)
		}
		for _, r := range []*discoveryv3.DeltaDiscoveryRequest{&got, &want} {
			if r.Node != nil {
				r.Node.Extensions = nil
			}
		}
		if !proto.Equal(&got, &want) {
			t.Fatalf("%v, want %v", &got, &want)
		}
	})
}

// read is what a server makes of a request that comes.
func read(t testing.TB, r *discoveryv3.DeltaDiscoveryRequest) request {
	t.Helper()
	var in incoming
	if err := newCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(encoded(t, r))}, &in); err != nil {
		t.Fatal(err)
	}
	return in.request
}

// What is taken for the acknowledgement of endpoints alone says nothing else.
func FuzzAcknowledgement(f *testing.F) {
	alone := encoded(f, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeEndpoint, ResponseNonce: "7"})
	for _, b := range [][]byte{
		alone,
		append(bytes.Clone(alone), 0x32, 1, '8'), // another nonce, which counts
		append(bytes.Clone(alone), 0x32, 1, 0xff, 0x32, 0), // one that is no text
		append(bytes.Clone(alone), 0x1a, 1, 'a'),           // a name
		append(bytes.Clone(alone), 0x32),                   // a field that is cut off
		append(bytes.Clone(alone), 0x7a, 0),                // one that nobody knows
		encoded(f, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeCluster, ResponseNonce: "7"}),
	} {
		f.Add(b)
	}
	if nonce := readAcknowledgement(alone); string(nonce) != "7" {
		f.Errorf("the nonce is %q", nonce)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		nonce := readAcknowledgement(b)
		if len(nonce) == 0 {
			return
		}
		var r discoveryv3.DeltaDiscoveryRequest
		if err := proto.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		if want := (&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeEndpoint, ResponseNonce: string(nonce)}); !proto.Equal(&r, want) {
			t.Errorf("%v is taken for %v", &r, want)
		}
	})
}

func TestExtensionsAreNotRead(t *testing.T) {
	b := encoded(t, first(516))
	less := withoutExtensions(b)
	if want := encoded(t, first(0)); !bytes.Equal(less, want) {
		t.Errorf("%d bytes are left of %d, want %d", len(less), len(b), len(want))
	}
}

// BenchmarkFirstRequest is an Envoy's, as the server reads it.
func BenchmarkFirstRequest(b *testing.B) {
	data := mem.BufferSlice{mem.SliceBuffer(encoded(b, first(516)))}
	b.ReportAllocs()
	for b.Loop() {
		var in incoming
		if err := newCodec().Unmarshal(data, &in); err != nil {
			b.Fatal(err)
		}
	}
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
