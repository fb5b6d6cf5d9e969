package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// TestGRPCTimeouts has a stream of answers live as long as nothing bounds it, and ends it by each field of a Timeout that bounds gRPC.
func TestGRPCTimeouts(t *testing.T) {
	f, server := startHealth(t)
	timeout := func(conf string) string {
		return "type: Timeout\nmesh: default\nname: calls\nsources: [{match: {kuma.io/service: edge}}]\ndestinations: [{match: {kuma.io/service: health}}]\nconf: " + conf + "\n"
	}
	f.apply(gatewayRoute("calls", "", "      - matches: [{path: {match: PREFIX, value: /grpc.health.v1.Health}}]\n"+toHealth),
		gatewayRoute("web", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1))

	// Without a policy a request of HTTP is bound, a call of gRPC is not, as its request ends before the stream of its answers does.
	bounds := func() map[string]string {
		var dump struct {
			Configs []struct {
				RouteConfig struct {
					VirtualHosts []struct {
						Routes []struct {
							Name  string
							Route struct{ Timeout string }
						}
					} `json:"virtual_hosts"`
				} `json:"route_config"`
			}
		}
		if err := json.Unmarshal([]byte(f.admin("edge", "/config_dump?resource=dynamic_route_configs")), &dump); err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, config := range dump.Configs {
			for _, host := range config.RouteConfig.VirtualHosts {
				for _, r := range host.Routes {
					out[r.Name] = r.Route.Timeout
				}
			}
		}
		return out
	}
	f.await("routes", func() error {
		if got := bounds(); got["calls/0/0"] != "0s" || got["web/0/0"] != "15s" {
			return fmt.Errorf("requests are bound by %v, want none of gRPC and 15s of HTTP", got)
		}
		return nil
	})

	conn, err := grpc.NewClient("passthrough:///"+f.at(10, 8080), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := healthv1.NewHealthClient(conn)
	// ends reads a stream to its end, and fails where it goes on for longer than it may. Busy ones have messages all the time. It tells
	// nobody of its bound: a deadline would go along with the call, and the service and the proxies would end the stream in the same
	// instant.
	goesOn := errors.New("the stream goes on")
	ends := func(busy bool, most time.Duration) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		defer time.AfterFunc(most, cancel).Stop()
		stream, err := client.Watch(ctx, &healthv1.HealthCheckRequest{Service: "orders"})
		if err != nil {
			return err
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			got, err := stream.Recv()
			if err != nil {
				if ctx.Err() != nil {
					return goesOn
				}
				if n == 0 {
					return fmt.Errorf("it ends before its first message: %w", err)
				}
				return nil
			}
			if !busy {
				continue
			}
			<-tick.C
			// What is said already is not said again.
			server.SetServingStatus("orders", 3-got.GetStatus())
		}
	}
	// Far below what holds by default, and far above what a slow machine needs.
	const soon = 20 * time.Second
	cut := func(what string, busy bool) {
		t.Helper()
		f.await(what, func() error { return ends(busy, soon) })
	}

	f.apply(timeout("{http: {requestTimeout: 500ms}}"))
	cut("the end of a stream by the bound of requests", true)

	f.apply(timeout("{http: {maxStreamDuration: 1h}, grpc: {maxStreamDuration: 500ms}}"))
	cut("the end of a stream by its longest duration", true)

	f.apply(timeout("{http: {streamIdleTimeout: 1h}, grpc: {streamIdleTimeout: 1s}}"))
	cut("the end of a quiet stream", false)
	// One that a busy machine kept quiet for a second tells nothing.
	f.await("a busy stream that the bound of quiet ones doesn't end", func() error {
		if err := ends(true, 3*time.Second); err != goesOn {
			return fmt.Errorf("a stream with messages all the time ends by the bound of quiet ones: %v", err)
		}
		return nil
	})

	f.cli("delete", "timeouts", "calls", "-m", "default")
	f.await("no bound", func() error {
		if err := ends(false, 2*time.Second); err != goesOn {
			return fmt.Errorf("a quiet stream ends though nothing bounds it: %v", err)
		}
		return nil
	})
}
