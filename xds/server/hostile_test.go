package server

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/zoneforge/zoneforge/xds"
)

// What a proxy says when it refuses goes into logs and up to global, so one proxy must not fill them.
func TestHugeRefusalIsCut(t *testing.T) {
	d, rs := started(t)
	next := alike(rs)
	next.Listeners = []*xds.Resource{plainListener(t, rs.Listeners[0].Name, "other")}
	d.set(next)
	d.expect("L+in")
	d.nack("L", strings.Repeat("x", 1<<20))
	nacks := d.s.Progress().Nacks
	if len(nacks) != 1 || len(nacks[0].Message) > maxMessage+3 {
		t.Fatalf("%d nacks, the first of %d bytes", len(nacks), len(nacks[0].Message))
	}
}

func hostile(t *testing.T, first time.Duration) (*Server, discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) {
	t.Helper()
	s, err := New(Config{Authenticator: newGate()})
	if err != nil {
		t.Fatal(err)
	}
	s.firstRequest = first
	lis, g := bufconn.Listen(1<<20), grpc.NewServer(Option(), grpc.MaxRecvMsgSize(16<<20))
	s.Register(g)
	go func() { _ = g.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); g.Stop() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer good")
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s, stream
}

func TestSilentStreamEnds(t *testing.T) {
	_, stream := hostile(t, 20*time.Millisecond)
	if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("a stream that says nothing ended with %v", err)
	}
}

func TestTooManyNamesEndTheStream(t *testing.T) {
	_, stream := hostile(t, time.Minute)
	names := make([]string, maxNames+1)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "p"}, TypeUrl: xds.TypeRoute, ResourceNamesSubscribe: names}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("a stream with %d names ended with %v", len(names), err)
	}
}
