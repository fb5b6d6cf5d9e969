package stream

import (
	"bytes"
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
)

// A replica that takes nothing off the wire must not keep another from its deltas.
func TestSlowZoneBlocksNoOther(t *testing.T) {
	f := start(t, "good")
	<-f.hellos
	conn, err := grpc.NewClient("passthrough:///global", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(f.dial))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer good"))
	defer cancel()
	s, err := kdsv1.NewKDSClient(conn).Stream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hello := &kdsv1.Hello{Zone: "east", Replica: "slow", Protocols: []uint32{kds.Protocol}}
	if err := s.Send(&kdsv1.ZoneFrame{Frame: &kdsv1.ZoneFrame_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	if h := <-f.hellos; h.GetReplica() != "slow" {
		t.Fatalf("hello of %q", h.GetReplica())
	}
	v := newView(2)
	for _, name := range []string{"a", "b", "c", "d"} {
		// More than gRPC's windows hold together, so that the slow stream's Send blocks.
		if err := v.set.Put(kds.NewRecord(resource.Key{Kind: "Mesh", Name: name}, bytes.Repeat([]byte(name), 1<<19))); err != nil {
			t.Fatal(err)
		}
	}
	f.set(view{v.set, v.set.Position("e", 2)})
	for p := range f.confirmed {
		if p.Revision == 2 {
			return
		}
	}
}
