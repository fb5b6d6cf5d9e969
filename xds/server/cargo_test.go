package server

import (
	"fmt"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/xds"
)

// The endpoints of one service are one message for all proxies, which says what each would be told by one of its own. What a proxy takes of
// them by itself is little, whatever else it has.
func TestEndpointsAreOneMessageForAll(t *testing.T) {
	s := newServer(t)
	names := []string{"a", "b", "c"}
	versions := []*xds.Resource{load(t, "a", 1), load(t, "a", 2)}
	for _, name := range names {
		s.SetEndpoints(1, map[string]*xds.Resource{name: load(t, name, 0)})
	}
	var sessions []*session
	snap := newSnapshot(1, clusters(t, names...), nil, nil)
	for range 2 {
		one := newSession(s.lookup)
		one.SetSnapshot(snap)
		acknowledge := func() {
			for out := one.Ready(); len(out) > 0; out = one.Ready() {
				for _, r := range out {
					one.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.typeURL, ResponseNonce: r.nonce})
				}
			}
		}
		one.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeCluster})
		one.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeListener})
		acknowledge()
		one.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeEndpoint, ResourceNamesSubscribe: names})
		acknowledge()
		if one.Progress().Acked != 1 {
			t.Fatalf("did not start: %+v", one.Progress())
		}
		sessions = append(sessions, one)
	}
	revision := uint64(1)
	change := func() {
		revision++
		s.SetEndpoints(revision, map[string]*xds.Resource{"a": versions[revision%2]})
	}
	tell := func(one *session) *response {
		one.EndpointsChanged(revision, names[:1])
		out := one.Ready()
		if len(out) != 1 {
			t.Fatalf("%d responses", len(out))
		}
		return out[0]
	}
	change()
	var messages []parts
	for _, one := range sessions {
		r := tell(one)
		encoded := s.message(r)
		m, own := received(encoded), r.delta()
		own.SystemVersionInfo = m.GetSystemVersionInfo() // what it is of, which nobody goes by
		if !proto.Equal(m, own) {
			t.Errorf("the message for all is %v, want %v", m, own)
		}
		messages = append(messages, *encoded.(*parts))
		one.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.typeURL, ResponseNonce: r.nonce})
		if got := one.Progress().EndpointsAcked; got != revision {
			t.Errorf("acknowledged %d, want %d", got, revision)
		}
	}
	for i := range messages[0] {
		if &messages[0][i].ReadOnlyData()[0] != &messages[1][i].ReadOnlyData()[0] {
			t.Error("each proxy has a message of its own")
		}
	}
	const most = 8
	one := sessions[0]
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeEndpoint}
	if n := testing.AllocsPerRun(200, func() {
		change()
		ack.ResponseNonce = tell(one).nonce
		one.Handle(ack)
	}) - testing.AllocsPerRun(200, change); n > most {
		t.Errorf("a change and its acknowledgement take a session %g allocations, at most %d are allowed", n, most)
	}
}

// However much a message tells of, gRPC has few parts to list, and they are what each would be told by a message of its own.
func TestAMessageOfManyEndpointsHasFewParts(t *testing.T) {
	f := newFleet(t, 0, 1)
	for _, services := range []int{1, 6, 7, 30, 1000} {
		r := &response{typeURL: xds.TypeEndpoint, nonce: "n", revision: 1}
		size := 0
		for i := range services {
			one := load(t, fmt.Sprintf("service-%04d", i), uint32(i))
			f.s.SetEndpoints(1, map[string]*xds.Resource{one.Name: one})
			r.upserts = append(r.upserts, one)
			size += encode(one).Len()
		}
		m := *f.s.message(r).(*parts)
		if most := mostParts + 2*size/frame; len(m) > most {
			t.Errorf("%d services of %d bytes are %d parts, at most %d are wanted", services, size, len(m), most)
		}
		for _, part := range m {
			if len(m) > mostParts && part.Len() > frame {
				t.Errorf("%d services: a part has %d bytes", services, part.Len())
			}
		}
		if got, want := received(&m), r.delta(); !proto.Equal(got, want) {
			t.Errorf("%d services: the message is not what it would be alone", services)
		}
	}
}
