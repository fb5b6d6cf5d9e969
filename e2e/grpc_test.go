package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/zoneforge/zoneforge/deploy/demo/talk"
)

// startGRPC serves gRPC at an address: health by unary calls and a stream of the server, reflection by a stream both ways. Each
// answer has a trailer.
func (f *federation) startGRPC(address string) *health.Server {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	s, h := talk.GRPC()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	f.t.Cleanup(func() { s.Stop(); <-done })
	return h
}

// TestGRPC calls a gRPC service of another zone through the gateway: one answer a call, streams, errors and trailers; by TLS with
// ALPN and by HTTP/2 without TLS.
func TestGRPC(t *testing.T) {
	chain, key := certificate(t, 1, "api.example.com")
	f := startAcross(t, `type: MeshGateway
mesh: default
name: edge
selectors: [{match: {kuma.io/service: edge}}]
conf:
  listeners:
    - {port: 8080, protocol: HTTP}
    - {port: 8443, protocol: HTTPS, hostname: api.example.com, tls: {mode: TERMINATE, certificates: [{secret: api}]}}
`, secretDocument("api", chain, key), gatewayRoute("grpc", "",
		"      - matches: [{path: {match: PREFIX, value: /echo}}]\n        backends: [{destination: {kuma.io/service: echo}}]\n"+
			"      - backends: [{destination: {kuma.io/service: health}}]\n"))
	server := f.startGRPC(f.at(31, 8080))
	f.startInWest("health", "health", "grpc", 31, "")
	f.workload(f.at(32, 8080), "echo", nil)
	f.startInWest("echo", "echo", "http", 32, "")
	f.settled("west", 3)
	f.settled("east", 1)

	for name, c := range map[string]struct {
		target string
		creds  credentials.TransportCredentials
	}{
		"tls": {f.at(10, 8443), credentials.NewTLS(&tls.Config{ServerName: "api.example.com", InsecureSkipVerify: true})},
		"h2c": {f.at(10, 8080), insecure.NewCredentials()},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient("passthrough:///"+c.target, grpc.WithTransportCredentials(c.creds))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			client := healthv1.NewHealthClient(conn)
			ctx, cancel := context.WithTimeout(t.Context(), awaitTime)
			defer cancel()

			server.SetServingStatus("orders", healthv1.HealthCheckResponse_SERVING)
			f.await("a call", func() error {
				var trailer metadata.MD
				r, err := client.Check(ctx, &healthv1.HealthCheckRequest{Service: "orders"}, grpc.Trailer(&trailer))
				if err == nil && (r.GetStatus() != healthv1.HealthCheckResponse_SERVING || fmt.Sprint(trailer["x-trailer"]) != "[behind the body]") {
					err = fmt.Errorf("%v with the trailer %v", r, trailer)
				}
				return err
			})
			if _, err := client.Check(ctx, &healthv1.HealthCheckRequest{Service: "nobody"}); status.Code(err) != codes.NotFound {
				t.Errorf("an error of the service arrives as %v", err)
			}

			// Each message of a stream arrives when it is sent.
			stream, err := client.Watch(ctx, &healthv1.HealthCheckRequest{Service: "orders"})
			if err != nil {
				t.Fatal(err)
			}
			for i, next := range []healthv1.HealthCheckResponse_ServingStatus{healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING, healthv1.HealthCheckResponse_SERVING} {
				if i > 0 {
					server.SetServingStatus("orders", next)
				}
				if r, err := stream.Recv(); err != nil || r.GetStatus() != next {
					t.Fatalf("message %d is %v, want %v: %v", i, r, next, err)
				}
			}

			// Both ways, many times on one stream, with a trailer at its end.
			both, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				if err := both.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
					t.Fatal(err)
				}
				r, err := both.Recv()
				if err != nil || len(r.GetListServicesResponse().GetService()) == 0 {
					t.Fatalf("%v: %v", r, err)
				}
			}
			if err := both.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := both.Recv(); err == nil || status.Code(err) == codes.Unavailable || fmt.Sprint(both.Trailer()["x-trailer"]) != "[behind the body]" {
				t.Errorf("the stream ends with %v and the trailer %v", err, both.Trailer())
			}
		})
	}

	// HTTP/2 clients reach workloads that speak HTTP/1.1.
	for name, c := range map[string]struct{ protocol, url string }{"tls": {"HTTP/2.0", "https://" + f.at(10, 8443)}, "h2c": {"HTTP/2.0", "http://" + f.at(10, 8080)}} {
		protocols := &http.Protocols{}
		protocols.SetHTTP2(true)
		protocols.SetUnencryptedHTTP2(true)
		client := &http.Client{Timeout: answerTime, Transport: &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{ServerName: "api.example.com", InsecureSkipVerify: true}}}
		t.Cleanup(client.CloseIdleConnections)
		r, a, err := ask(client, "GET", c.url+"/echo", "Host", "api.example.com")
		if err != nil || r.Proto != c.protocol || a.Workload != "echo" {
			t.Errorf("%s: %v from %q: %v", name, r, a.Workload, err)
		}
	}
}
