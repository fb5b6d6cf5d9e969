package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zoneforge/zoneforge/deploy/demo/talk"
)

// startHealth runs an edge and, at address 33, a workload that speaks the health service of gRPC: "orders" is well, "stock" is not.
func startHealth(t *testing.T) (*federation, *health.Server) {
	t.Helper()
	f := startEdge(t)
	well := f.startGRPC(f.at(33, 8080))
	well.SetServingStatus("orders", healthv1.HealthCheckResponse_SERVING)
	well.SetServingStatus("stock", healthv1.HealthCheckResponse_NOT_SERVING)
	f.startProxy("east", 2, "health", sidecarDocument("default", "health", f.host(33), inboundOf("health", "grpc", f.host(33), 8080, "")),
		f.token("health", "dataplane", "--mesh", "default", "--service", "health"))
	f.settled("east", 4)
	return f, well
}

const toHealth = "        backends: [{destination: {kuma.io/service: health}}]\n"

// healthDescriptor is the health service with paths for its methods.
func healthDescriptor(t *testing.T, check, list string) []byte {
	t.Helper()
	data, err := talk.HealthDescriptor(check, list)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestTranscode calls a gRPC service with JSON, and still with gRPC, through one route.
func TestTranscode(t *testing.T) {
	f, _ := startHealth(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	rule := func(path, transcode string) string {
		return "      - matches: [{path: {match: PREFIX, value: " + path + "}}]\n        filters: [{type: Transcode, transcode: {services: [grpc.health.v1.Health], " + transcode + "}}]\n" + toHealth
	}
	inline := func(check, list string) string {
		return "descriptor: {inline: " + base64.StdEncoding.EncodeToString(healthDescriptor(t, check, list)) + "}"
	}
	secret := func(data []byte) string {
		return "type: Secret\nmesh: default\nname: health-descriptor\ndata: " + base64.StdEncoding.EncodeToString(data) + "\n"
	}
	f.apply(secret(healthDescriptor(t, "/v1/health/{service}", "/v1/health")),
		gatewayRoute("json", "", rule("/v1", "descriptor: {secret: health-descriptor}, ignoredQueryParameters: [key]")),
		gatewayRoute("more", "", rule("/v2", inline("/v2/{service=**}:check", "")+", ignoreUnknownQueryParameters: true, printOptions: {alwaysPrintEnumsAsInts: true, addWhitespace: true}")+
			rule("/grpc.health.v1.Health", inline("", "")+", autoMapping: true")+
			rule("/bare", inline("/bare/{service}", "")+", convertGrpcStatus: false")))
	f.answers(client, http.StatusOK, "GET", url("/v1/health/orders"))

	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/health/orders", "", 200, `{"status":"SERVING"}`},
		{"GET", "/v1/health/orders?key=secret", "", 200, `{"status":"SERVING"}`},
		{"GET", "/v1/health/stock", "", 200, `{"status":"NOT_SERVING"}`},
		{"GET", "/v1/health/nothing", "", 404, `{"code":5,"message":"unknown service"}`},
		{"GET", "/v1/health/orders?other=1", "", 400, ""},
		{"POST", "/v1/health/orders", "{}", 404, ""},
		{"GET", "/v1/elsewhere", "", 404, ""},
		{"GET", "/v2/a/b/orders:check?other=1", "", 404, `{"code":5,"message":"unknown service"}`},
		{"GET", "/v2/orders:check?other=1", "", 200, `{"status":1}`},
		{"POST", "/grpc.health.v1.Health/Check", `{"service": "orders"}`, 200, `{"status":"SERVING"}`},
		{"POST", "/grpc.health.v1.Health/Check", `{"service": `, 400, ""},
		{"GET", "/bare/nothing", "", 404, ""},
	} {
		var header []string
		if c.body != "" {
			header = []string{"Content-Type", "application/json"}
		}
		r, body, err := send(client, c.method, url(c.path), []byte(c.body), header...)
		if err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer
		if c.want != "" {
			if err := json.Compact(&compact, body); err != nil {
				t.Errorf("%s %s: %v: %s", c.method, c.path, err, body)
			}
		}
		if r.StatusCode != c.status || compact.String() != c.want {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, r.StatusCode, body, c.status, c.want)
		}
	}

	r, body, err := send(client, "GET", url("/v1/health"), nil)
	var list struct {
		Statuses map[string]struct{ Status string }
	}
	if err == nil {
		err = json.Unmarshal(body, &list)
	}
	if err != nil || list.Statuses["orders"].Status != "SERVING" || list.Statuses["stock"].Status != "NOT_SERVING" {
		t.Errorf("the list is %s: %v %v", body, r, err)
	}

	connection, err := grpc.NewClient(f.at(10, 8080), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	answer, err := healthv1.NewHealthClient(connection).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "stock"})
	if err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("gRPC itself: %v %v", answer, err)
	}

	f.refusesToApply([]string{"descriptor.inline: has no service grpc.health.v1.Healthy (did you mean grpc.health.v1.Health?)"},
		strings.Replace(gatewayRoute("bad", "", rule("/bad", inline("/bad", ""))), "v1.Health]", "v1.Healthy]", 1))
	f.refusesToApply([]string{`method grpc.health.v1.Health.Check: google.api.http: grpc.health.v1.HealthCheckRequest has no field name`},
		gatewayRoute("bad", "", rule("/bad", inline("/bad/{name}", ""))))

	// What only the zone can see costs its rule alone.
	f.apply(secret([]byte("not a descriptor")))
	f.answers(client, http.StatusServiceUnavailable, "GET", url("/v1/health/orders"))
	f.await("word of why", func() error {
		if out := f.cli("inspect", "zone", "east"); !strings.Contains(out, "transcode: descriptor: holds no FileDescriptorSet") {
			return errors.New(out)
		}
		return nil
	})
	f.answers(client, http.StatusOK, "GET", url("/v2/orders:check"))
	f.apply(secret(healthDescriptor(t, "/v1/{service}", "")))
	f.answers(client, http.StatusOK, "GET", url("/v1/orders"))
}
