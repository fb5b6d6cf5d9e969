package proxyir_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
	"github.com/zoneforge/zoneforge/policy"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/zone/proxyir"
)

func logTo(name, from, to string, conf *meshv1.TrafficLog_Conf) *resource.Resource {
	return res("TrafficLog", name, &meshv1.TrafficLog{Sources: sel(service(from)), Destinations: sel(service(to)), Conf: conf})
}

func observed() *meshv1.Mesh {
	m := mesh(meshv1.Mesh_MODE_STRICT)
	m.Logging = &meshv1.Logging{DefaultBackend: "file", Backends: []*meshv1.Logging_Backend{
		{Name: "tcp", Type: meshv1.Logging_TYPE_TCP, Conf: &meshv1.Logging_Conf{Address: "a:1"}, Format: &meshv1.LogFormat{Text: "100%% %KUMA_SOURCE_SERVICE% %KUMA_SOURCE_ADDRESS% %KUMA_ZONE% %REQ(X%KUMA_MESH)%"}},
		{Name: "file", Type: meshv1.Logging_TYPE_FILE, Conf: &meshv1.Logging_Conf{Path: "/a"}},
		{Name: "otel", Type: meshv1.Logging_TYPE_OPENTELEMETRY, Conf: &meshv1.Logging_Conf{Endpoint: "otel:4317"}},
	}}
	m.Tracing = &meshv1.Tracing{DefaultBackend: "z", Backends: []*meshv1.Tracing_Backend{{Name: "z", Type: meshv1.TracingType_TRACING_TYPE_ZIPKIN,
		Sampling: new(float64), Conf: &meshv1.Tracing_Conf{Url: "https://z/api?x=1"}}}}
	m.Metrics = &meshv1.Metrics{EnabledBackend: "p", Backends: []*meshv1.Metrics_Backend{{Name: "p", Type: meshv1.Metrics_TYPE_PROMETHEUS}}}
	return m
}

func names(logs []ir.AccessLog) []string {
	var out []string
	for _, l := range logs {
		out = append(out, l.Name)
	}
	return out
}

func TestAccessLogs(t *testing.T) {
	in := input(observed(), sidecar(), sidecarPolicies())
	in.Mesh.Metrics = nil
	in.LogPipe = "/dev/fd/3"
	in.Policies["TrafficLog"] = policy.NewList(
		logTo("all", "*", "*", nil),
		logTo("raw", "web", "raw", &meshv1.TrafficLog_Conf{Backend: "tcp"}),
		logTo("grpc", "web", "grpc", &meshv1.TrafficLog_Conf{File: &meshv1.LogFile{Path: "/b"}, Format: &meshv1.LogFormat{Json: map[string]string{"b": "%DURATION%", "a": "%KUMA_DESTINATION_SERVICE%"}}}),
		logTo("others", "other", "echo", &meshv1.TrafficLog_Conf{Backend: "otel"}),
	)
	r, err := proxyir.Sidecar(in)
	p, _ := accepted(t, r, err)
	for _, l := range p.Listeners {
		for _, c := range l.Chains {
			var got, want []string
			switch {
			case c.HTTP != nil:
				got = names(c.HTTP.Logs)
			default:
				got = names(c.TCP.Logs)
			}
			switch l.Name {
			case "outbound:127.0.0.1:9000", "outbound:127.0.0.1:9002":
				// Each that a route may come to name; otel is named by nobody's policy for this client.
				want = []string{"backend/file", "backend/tcp", "policy/grpc"}
			case "outbound:127.0.0.1:9001":
				want = []string{"backend/tcp"}
				if len(c.TCP.Logs) == 1 && c.TCP.Logs[0].Text != "100%% web 10.0.0.1:0 east %REQ(X%KUMA_MESH)%" {
					t.Errorf("text %q", c.TCP.Logs[0].Text)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s has logs %v, want %v", l.Name, got, want)
			}
		}
	}
	for _, c := range p.Routes {
		for _, h := range c.VirtualHosts {
			for _, r := range h.Routes {
				want := map[string]*ir.RouteLog{"outbound:127.0.0.1:9000": {Names: []string{"backend/file"}, Destination: "echo"},
					"outbound:127.0.0.1:9002": {Names: []string{"policy/grpc"}, Destination: "grpc"}}[c.Name]
				if !reflect.DeepEqual(r.Log, want) {
					t.Errorf("%s %s has %+v, want %+v", c.Name, r.Name, r.Log, want)
				}
			}
		}
	}

	t.Run("what is logged changes routes alone", func(t *testing.T) {
		in := in
		in.Policies = policy.ByKind{"TrafficLog": policy.NewList(in.Policies["TrafficLog"].All()[0])}
		one, err := proxyir.Sidecar(in)
		accepted(t, one, err)
		in.Policies = policy.ByKind{"TrafficLog": policy.NewList(logTo("all", "*", "grpc", &meshv1.TrafficLog_Conf{Backend: "tcp"}))}
		other, err := proxyir.Sidecar(in)
		accepted(t, other, err)
		for i := range one.Proxy.Listeners {
			if l := one.Proxy.Listeners[i]; l.Chains[0].HTTP != nil && !reflect.DeepEqual(l, other.Proxy.Listeners[i]) {
				t.Errorf("listener %s differs", l.Name)
			}
		}
		if reflect.DeepEqual(one.Proxy.Routes, other.Proxy.Routes) {
			t.Error("routes are the same")
		}
	})

	t.Run("a policy that can't be used costs itself", func(t *testing.T) {
		for reason, change := range map[string]func(*proxyir.Input){
			"forwards no logs": func(in *proxyir.Input) { in.LogPipe = "" },
			`no backend "nothing"`: func(in *proxyir.Input) {
				in.Mesh = observed()
				in.Mesh.Metrics = nil
				in.Mesh.Logging.DefaultBackend = "nothing"
			},
			"no logging.defaultBacken": func(in *proxyir.Input) { in.Mesh = mesh(meshv1.Mesh_MODE_STRICT) },
		} {
			in := in
			in.Policies = policy.ByKind{"TrafficLog": policy.NewList(logTo("all", "*", "*", nil))}
			change(&in)
			r, err := proxyir.Sidecar(in)
			accepted(t, r, err)
			if len(r.Rejected) != 1 || r.Rejected[0].Key.Name != "all" || !strings.Contains(r.Rejected[0].Reason, reason) {
				t.Errorf("rejected %v, want %q", r.Rejected, reason)
			}
		}
	})
}

func TestTraces(t *testing.T) {
	in := input(observed(), sidecar(), sidecarPolicies())
	share := 12.5
	in.Policies["TrafficTrace"] = policy.NewList(res("TrafficTrace", "all", &meshv1.TrafficTrace{Selectors: sel(service("*"))}))
	in.Policies["MeshTrafficTrace"] = policy.NewList(res("MeshTrafficTrace", "db", &meshv1.TrafficTrace{Selectors: sel(service("db")), Conf: &meshv1.TrafficTrace_Conf{
		Backend: &meshv1.TraceBackend{Datadog: &meshv1.DatadogCollector{Address: "dd", SplitService: true}}, Sampling: &share}}))
	r, err := proxyir.Sidecar(in)
	p, _ := accepted(t, r, err)
	for _, l := range p.Listeners {
		for _, c := range l.Chains {
			if c.HTTP == nil {
				continue
			}
			want := map[string]string{"inbound:10.0.0.1:80": "web_INBOUND", "outbound:127.0.0.1:9000": "web_OUTBOUND_echo", "outbound:127.0.0.1:9002": "web_OUTBOUND_grpc"}[l.Name]
			if got := c.HTTP.Tracing; (got == nil) != (want == "") || got != nil && (got.Service != want || got.Datadog == nil || got.Datadog.Host != "dd:8126" || got.Hop) {
				t.Errorf("%s: %+v, want %q", l.Name, got, want)
			}
		}
	}
	for _, c := range p.Routes {
		if got := c.VirtualHosts[0].Routes[0].Tracing; c.Name != "metrics" && (got == nil || got.Millionths != 125_000 || len(got.Tags) != 2) {
			t.Errorf("%s: %+v", c.Name, got)
		}
	}

	in.Policies["MeshTrafficTrace"] = nil
	r, err = proxyir.Sidecar(in)
	p, _ = accepted(t, r, err)
	i := slices.IndexFunc(p.Listeners, func(l ir.Listener) bool { return l.Name == "outbound:127.0.0.1:9000" })
	if got := p.Listeners[i].Chains[0].HTTP.Tracing; got == nil || got.Zipkin == nil || got.Zipkin.Path != "/api?x=1" || got.Zipkin.Host != "z" {
		t.Errorf("the backend of the mesh: %+v", got)
	}
	in.Mesh.Tracing.DefaultBackend = "gone"
	r, err = proxyir.Sidecar(in)
	accepted(t, r, err)
	if len(r.Rejected) != 1 || !strings.Contains(r.Rejected[0].Reason, `no backend "gone" for traces`) {
		t.Errorf("rejected %v", r.Rejected)
	}
}

func TestMetricsAreSecureByDefault(t *testing.T) {
	for _, c := range []struct {
		name      string
		mode      meshv1.Mesh_Mode
		mtls      bool
		skip      bool
		address   string
		encrypted bool
	}{
		{"mTLS", meshv1.Mesh_MODE_STRICT, true, false, "10.0.0.1", true},
		{"permissive", meshv1.Mesh_MODE_PERMISSIVE, true, false, "10.0.0.1", true},
		{"no mTLS", 0, false, false, "127.0.0.1", false},
		{"asked for", meshv1.Mesh_MODE_STRICT, true, true, "10.0.0.1", false},
	} {
		m := observed()
		m.Mtls.Backends[0].Mode = c.mode
		if !c.mtls {
			m.Mtls = nil
		}
		m.Metrics.Backends[0].Conf = &meshv1.Metrics_Conf{SkipMtls: c.skip, Labels: map[string]string{"team": "a b"}}
		in := input(m, sidecar(), sidecarPolicies())
		r, err := proxyir.Sidecar(in)
		p, _ := accepted(t, r, err)
		l := p.Listeners[len(p.Listeners)-1]
		if l.Name != "metrics" || l.Port != 5670 || l.Address != c.address || (l.Chains[0].TLS != nil) != c.encrypted {
			t.Errorf("%s: %+v", c.name, l)
		}
		routes := p.Routes[len(p.Routes)-1].VirtualHosts[0].Routes
		if (routes[0].Filters.Authorization != nil) != c.encrypted || routes[1].Direct.Status != 404 {
			t.Errorf("%s: %+v", c.name, routes)
		}
		if got := routes[0].RequestHeaders.Set[0].Value; got != "label=dataplane%3Dp&label=mesh%3Ddefault&label=service%3Dweb&label=team%3Da+b&label=zone%3Deast" {
			t.Errorf("%s: %q", c.name, got)
		}
		if tags := proxyir.ScraperTags(m); (tags != nil) != c.encrypted {
			t.Errorf("%s: permissions for %v", c.name, tags)
		}
	}
}
