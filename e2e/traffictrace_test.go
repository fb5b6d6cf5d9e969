package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
)

// zipkinSpan is a span in Zipkin's JSON.
type zipkinSpan struct {
	TraceID       string `json:"traceId"`
	ID            string `json:"id"`
	ParentID      string `json:"parentId"`
	Kind          string `json:"kind"`
	LocalEndpoint struct {
		ServiceName string `json:"serviceName"`
	} `json:"localEndpoint"`
	Tags map[string]string `json:"tags"`
}

// spanServer takes spans as Zipkin does, and keeps the requests of a Datadog agent.
type spanServer struct {
	mu      sync.Mutex
	spans   []zipkinSpan
	datadog []byte
}

func (f *federation) startSpans(address string) *spanServer {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	s := &spanServer{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/spans", func(w http.ResponseWriter, r *http.Request) {
		var list []zipkinSpan
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.spans = append(s.spans, list...)
		s.mu.Unlock()
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("/v0.4/traces", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.datadog = append(s.datadog, body...)
		s.mu.Unlock()
		_, _ = io.WriteString(w, "{}")
	})
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	f.t.Cleanup(func() { _ = server.Close(); <-done })
	return s
}

// of are the spans of requests with a tag.
func (s *spanServer) of(tag, value string) []zipkinSpan {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []zipkinSpan
	for _, span := range s.spans {
		if span.Tags[tag] == value {
			out = append(out, span)
		}
	}
	return out
}

func trace(kind, name, conf string) string {
	return fmt.Sprintf("type: %s\nmesh: default\nname: %s\nselectors: [{match: {kuma.io/service: '*'}}]\nconf: %s\n", kind, name, conf)
}

// startTwoZones runs a gateway in east and echo in west, behind west's zone ingress.
func startTwoZones(t *testing.T) *federation {
	t.Helper()
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.startZone("west", 3)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"),
		gatewayRoute("echo", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n        backends: [{destination: {kuma.io/service: echo}}]\n"))
	f.workload(f.at(31, 8080), "west", nil)
	f.startProxy("west", 3, "echo", sidecarDocument("default", "echo", f.host(31), inboundOf("echo", "http", f.host(31), 8080, "")),
		f.token("echo", "dataplane", "--mesh", "default", "--service", "echo"))
	f.startProxy("west", 3, "ingress", fmt.Sprintf("type: ZoneIngress\nname: ingress\nnetworking: {address: %s, port: 10001}\n", f.host(30)),
		f.token("ingress", "zone-ingress", "west"))
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), f.token("edge", "dataplane", "--mesh", "default", "--service", "edge"))
	f.settled("east", 1)
	f.settled("west", 2)
	return f
}

// TestTrafficTrace follows requests from a gateway of one zone to a sidecar of another: each is one trace, whoever takes it.
func TestTrafficTrace(t *testing.T) {
	f := startTwoZones(t)
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/"
	f.answers(client, http.StatusOK, "GET", url)
	spans := f.startSpans(f.at(60, 9411))
	collector := f.startCollector(61)

	t.Run("zipkin", func(t *testing.T) {
		f.apply(trace("MeshTrafficTrace", "default-trace", fmt.Sprintf(`
  backend:
    type: Zipkin
    zipkin: {url: "http://%s/api/v2/spans", traceId128Bit: true}
  sampling: 100
  tags: [{name: id, header: {name: x-id}}, {name: team, literal: shop}]`, f.at(60, 9411))))
		f.await("a trace", func() error {
			if _, _, err := ask(client, "GET", url, "X-Id", "one"); err != nil {
				return err
			}
			traces := map[string]map[string]zipkinSpan{}
			for _, s := range spans.of("id", "one") {
				if traces[s.TraceID] == nil {
					traces[s.TraceID] = map[string]zipkinSpan{}
				}
				traces[s.TraceID][s.LocalEndpoint.ServiceName+" "+s.Kind] = s
			}
			for id, trace := range traces {
				in, out, at := trace["edge SERVER"], trace["edge CLIENT"], trace["echo SERVER"]
				if len(id) == 32 && in.ID != "" && out.ParentID == in.ID && at.ID == out.ID &&
					in.Tags["kuma.zone"] == "east" && at.Tags["kuma.zone"] == "west" && at.Tags["kuma.mesh"] == "default" && at.Tags["team"] == "shop" {
					return nil
				}
			}
			return fmt.Errorf("no whole trace in %v", traces)
		})
	})

	t.Run("the share is a matter of routes", func(t *testing.T) {
		before := f.drained("edge")
		f.apply(trace("MeshTrafficTrace", "default-trace", fmt.Sprintf(`{backend: {zipkin: {url: "http://%s/api/v2/spans"}}, sampling: 0, tags: [{name: id, header: {name: x-id}}]}`, f.at(60, 9411))))
		changed := f.drained("edge") // as the ids are shorter, it is another collector
		f.apply(trace("MeshTrafficTrace", "default-trace", fmt.Sprintf(`{backend: {zipkin: {url: "http://%s/api/v2/spans"}}, sampling: 100, tags: [{name: id, header: {name: x-id}}]}`, f.at(60, 9411))))
		f.await("a short trace", func() error {
			if _, _, err := ask(client, "GET", url, "X-Id", "two"); err != nil {
				return err
			}
			for _, s := range spans.of("id", "two") {
				if len(s.TraceID) == 16 {
					return nil
				}
			}
			return errors.New("none")
		})
		f.apply(trace("MeshTrafficTrace", "default-trace", fmt.Sprintf(`{backend: {zipkin: {url: "http://%s/api/v2/spans"}}, sampling: 0, tags: [{name: id, header: {name: x-id}}]}`, f.at(60, 9411))))
		// A trace that a client asks for is none either. The last request is traced again, so that all before it had come.
		for range 20 {
			if _, _, err := ask(client, "GET", url, "X-Id", "three", "X-Client-Trace-Id", "a", "X-Envoy-Force-Trace", "true"); err != nil {
				t.Fatal(err)
			}
		}
		f.apply(trace("MeshTrafficTrace", "default-trace", fmt.Sprintf(`{backend: {zipkin: {url: "http://%s/api/v2/spans"}}, tags: [{name: id, header: {name: x-id}}]}`, f.at(60, 9411))))
		f.await("a trace", func() error {
			if _, _, err := ask(client, "GET", url, "X-Id", "four"); err != nil {
				return err
			}
			if len(spans.of("id", "four")) < 3 {
				return errors.New("none")
			}
			return nil
		})
		// Envoy's workers take a change over a moment after it was acknowledged.
		if n := len(spans.of("id", "three")); n > 6 {
			t.Errorf("of 20 requests with a share of 0 there are %d spans", n)
		}
		if after := f.drained("edge"); after != changed || changed == before {
			t.Errorf("listeners changed: %s, with another collector %s, with other shares %s", before, changed, after)
		}
		f.cli("delete", "meshtraffictrace", "default-trace", "--wait")
	})

	t.Run("opentelemetry, with logs", func(t *testing.T) {
		f.apply(strictMesh+fmt.Sprintf("logging:\n  backends: [{name: otel, type: openTelemetry, conf: {endpoint: '%[1]s'}, format: 'log of %%REQ(X-ID)%% %%TRACE_ID%%'}]\ntracing:\n  defaultBackend: otel\n  backends: [{name: otel, type: openTelemetry, sampling: 100, conf: {endpoint: '%[1]s'}}]\n", collector.endpoint),
			trace("TrafficTrace", "all", `{tags: [{name: id, header: {name: x-id}}]}`), trafficLog("all", "*", "*", "{backend: otel}"))
		f.await("a trace", func() error {
			if _, _, err := ask(client, "GET", url, "X-Id", "five"); err != nil {
				return err
			}
			return collector.wholeTrace("five")
		})
	})

	t.Run("datadog", func(t *testing.T) {
		f.apply(trace("TrafficTrace", "all", fmt.Sprintf(`{backend: {datadog: {address: %s, port: 9411, splitService: true}}}`, f.host(60))))
		f.await("spans", func() error {
			if _, _, err := ask(client, "GET", url); err != nil {
				return err
			}
			spans.mu.Lock()
			defer spans.mu.Unlock()
			return anyHolds([]string{string(spans.datadog)}, "edge", "echo_INBOUND", "kuma.zone")
		})
	})

	t.Run("a backend that isn't there", func(t *testing.T) {
		f.refusesToApply([]string{"TrafficTrace default/all", `no backend "nowhere"`}, trace("TrafficTrace", "all", "{backend: nowhere}"))
		f.answers(client, http.StatusOK, "GET", url)
	})
}
