package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func healthCheck(conf string) string {
	return "type: HealthCheck\nmesh: default\nname: echo\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: echo}}]\n" +
		"conf:\n  interval: 100ms\n  noTrafficInterval: 100ms\n  timeout: 20s\n  unhealthyThreshold: 2\n  healthyThreshold: 1\n" + conf
}

// TestHealthCheck has a gateway ask endpoints whether they are well: requests that would be answered don't tell.
func TestHealthCheck(t *testing.T) {
	f, members := startPool(t, 3)
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/"
	events := f.path("health.log")

	f.apply(healthCheck("  eventLogPath: " + events + "\n  http: {path: /health, expectedStatuses: [200, 204], requestHeadersToAdd: [{header: {key: x-check, value: '100%'}}]}\n"))
	f.reaches(client, url, names(members)...)
	// checked waits until each endpoint was checked so often that a change of its health has taken effect.
	checked := func() {
		t.Helper()
		for _, m := range members {
			enough := m.checks.Load() + 4
			f.await("checks of "+m.name, func() error {
				if n := m.checks.Load(); n < enough {
					return fmt.Errorf("%d checks, want %d", n, enough)
				}
				return nil
			})
		}
	}
	checked()

	members[0].health.Store(http.StatusServiceUnavailable)
	f.reaches(client, url, members[1].name, members[2].name)
	before := members[0].requests.Load()
	for range 60 {
		if r, _, err := ask(client, "GET", url); err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%v %v", r, err)
		}
	}
	if n := members[0].requests.Load() - before; n != 0 {
		t.Errorf("an endpoint that is not well was sent %d requests", n)
	}
	f.await("the event", func() error {
		text, err := os.ReadFile(events)
		if err == nil && !strings.Contains(string(text), "eject_unhealthy_event") {
			err = fmt.Errorf("it says %s", text)
		}
		return err
	})
	members[0].health.Store(http.StatusNoContent)
	f.reaches(client, url, names(members)...)

	// Where none is well, all are asked, or none, as the policy says.
	for _, m := range members {
		m.health.Store(http.StatusInternalServerError)
	}
	checked()
	f.reaches(client, url, names(members)...)
	f.apply(healthCheck("  failTrafficOnPanic: true\n  http: {path: /health}\n"))
	f.answers(client, http.StatusServiceUnavailable, "GET", url)
	for _, m := range members {
		m.health.Store(http.StatusOK)
	}
	f.reaches(client, url, names(members)...)

	// A connection alone is enough for a check that asks for no more: the sidecar is there, whatever the workload says.
	for _, m := range members {
		m.health.Store(http.StatusInternalServerError)
	}
	f.apply(healthCheck("  failTrafficOnPanic: true\n  healthyPanicThreshold: 100\n"))
	f.reaches(client, url, names(members)...)

	// An endpoint whose proxy went is gone at once, though its last check passed.
	f.apply(healthCheck("  http: {path: /health, expectedStatuses: [500]}\n"))
	f.reaches(client, url, names(members)...)
	if code := f.end(members[2].name); code != 0 {
		t.Errorf("%s ended with %d", members[2].name, code)
	}
	f.settled("east", 3)
	f.reaches(client, url, members[0].name, members[1].name)
}

// TestGRPCHealthCheck asks by gRPC's own protocol, through mutual TLS.
func TestGRPCHealthCheck(t *testing.T) {
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"), gatewayRoute("echo", "", toEcho),
		healthCheck("  failTrafficOnPanic: true\n  grpc: {serviceName: ready}\n"))
	l, err := net.Listen("tcp", f.at(31, 8080))
	if err != nil {
		t.Fatal(err)
	}
	states, server := health.NewServer(), grpc.NewServer()
	healthpb.RegisterHealthServer(server, states)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	states.SetServingStatus("ready", healthpb.HealthCheckResponse_SERVING)
	f.startProxy("east", 2, "echo", sidecarDocument("default", "echo", f.host(31), inboundOf("echo", "grpc", f.host(31), 8080, "")), f.serviceToken("echo"))
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.serviceToken("edge"))
	f.settled("east", 2)

	conn, err := grpc.NewClient(f.at(10, 8080), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	gives := func(want codes.Code) {
		t.Helper()
		f.await("an answer of "+want.String(), func() error {
			ctx, cancel := context.WithTimeout(t.Context(), answerTime)
			defer cancel()
			// Requests ask about the server as a whole, which is well all the time.
			if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != want {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
	}
	gives(codes.OK)
	states.SetServingStatus("ready", healthpb.HealthCheckResponse_NOT_SERVING)
	gives(codes.Unavailable)
	states.SetServingStatus("ready", healthpb.HealthCheckResponse_SERVING)
	gives(codes.OK)
}
