package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// adminGet reads from an Envoy's admin socket.
func adminGet(socket, path string) (string, error) {
	c := &http.Client{Timeout: answerTime, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
	path, query, _ := strings.Cut(path, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", err
	}
	r, err := c.Get("http://admin" + path + "?" + values.Encode())
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	out, err := io.ReadAll(r.Body)
	return string(out), err
}

// scrape reads metrics as Prometheus does.
func scrape(client *http.Client, url string) (map[string]*dto.MetricFamily, error) {
	r, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", r.StatusCode)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(r.Body)
}

func labelsOf(m *dto.Metric) map[string]string {
	out := map[string]string{}
	for _, l := range m.GetLabel() {
		out[l.GetName()] = l.GetValue()
	}
	return out
}

func meshMetrics(conf string) string {
	return strictMesh + "metrics:\n  enabledBackend: prometheus-1\n  backends: [{name: prometheus-1, type: prometheus, conf: " + conf + "}]\n"
}

// TestMetrics scrapes a gateway and a sidecar, in plaintext where the mesh says so, and with a certificate and a permission else.
func TestMetrics(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	f.apply(gatewayRoute("echo", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1), trafficLog("all", "*", "*", "{file: {path: "+f.path("a.log")+"}}"),
		meshMetrics(`{skipMTLS: true, port: 5671, path: /stats, labels: {team: "a\"b"}}`))
	f.answers(client, http.StatusOK, "GET", "http://"+f.at(10, 8080)+"/")
	f.await("the metrics of the gateway", func() error {
		families, err := scrape(client, "http://"+f.at(10, 5671)+"/stats")
		if err != nil {
			return err
		}
		for _, name := range []string{"envoy_http_downstream_rq_total", "envoy_cluster_upstream_rq_total", "zoneforge_access_log_lines_total", "envoy_server_uptime"} {
			if families[name] == nil {
				return fmt.Errorf("no %s", name)
			}
		}
		requests := 0.0
		for _, family := range families {
			for _, m := range family.GetMetric() {
				l := labelsOf(m)
				if l["mesh"] != "default" || l["zone"] != "east" || l["service"] != "edge" || l["dataplane"] != "edge" || l["team"] != `a"b` {
					t.Fatalf("%s has labels %v", family.GetName(), l)
				}
				if family.GetName() == "envoy_http_downstream_rq_total" && l["envoy_http_conn_manager_prefix"] == "gateway_8080" {
					requests += m.GetCounter().GetValue()
				}
			}
		}
		if requests < 1 || families["zoneforge_access_log_lines_total"].GetMetric()[0].GetCounter().GetValue() < 1 {
			return fmt.Errorf("%v requests and %v", requests, families["zoneforge_access_log_lines_total"])
		}
		return nil
	})
	f.await("the metrics of the sidecar", func() error {
		families, err := scrape(client, "http://"+f.at(31, 5671)+"/stats")
		if err == nil && (families["envoy_server_uptime"] == nil || labelsOf(families["envoy_server_uptime"].GetMetric()[0])["service"] != "echo") {
			err = fmt.Errorf("%v", families["envoy_server_uptime"])
		}
		return err
	})

	t.Run("nothing else of the admin interface", func(t *testing.T) {
		for _, path := range []string{"/", "/config_dump", "/stats/prometheus", "/stats/../config_dump", "/stats/..%2fconfig_dump", "/quitquitquit", "/metrics", "//stats/config_dump"} {
			if r, _, err := ask(client, "GET", "http://"+f.at(10, 5671)+path); err == nil && r.StatusCode == http.StatusOK {
				t.Errorf("GET %s is answered", path)
			}
		}
		if r, _, err := ask(client, "POST", "http://"+f.at(10, 5671)+"/stats"); err != nil || r.StatusCode != http.StatusNotFound {
			t.Errorf("POST: %v %v", r, err)
		}
		// What to show is the zone's to say.
		families, err := scrape(&http.Client{Transport: headerSetter{"X-Zoneforge-Scrape", "filter=nothing&label=mesh%3Dother"}}, "http://"+f.at(10, 5671)+"/stats")
		if err != nil || families["envoy_server_uptime"] == nil || labelsOf(families["envoy_server_uptime"].GetMetric()[0])["mesh"] != "default" {
			t.Errorf("a scraper chooses: %v %v", families["envoy_server_uptime"], err)
		}
	})

	t.Run("filtered", func(t *testing.T) {
		f.apply(meshMetrics(`{skipMTLS: true, port: 5671, path: /stats, envoy: {filterRegex: "^server\\.uptime$"}}`))
		f.await("one metric", func() error {
			families, err := scrape(client, "http://"+f.at(10, 5671)+"/stats")
			for name := range families {
				if strings.HasPrefix(name, "envoy_") && name != "envoy_server_uptime" {
					return fmt.Errorf("there is %s", name)
				}
			}
			return err
		})
	})

	t.Run("secure by default", func(t *testing.T) {
		f.apply(meshMetrics(`{}`))
		target := "https://" + f.at(10, 5670) + "/metrics"
		f.await("the end of plaintext", func() error {
			if _, err := scrape(client, "http://"+f.at(10, 5671)+"/stats"); err == nil {
				return errors.New("the old port answers")
			}
			return nil
		})
		if _, err := scrape(client, "http://"+f.at(10, 5670)+"/metrics"); err == nil {
			t.Error("plaintext is answered")
		}
		scraper := f.identity("east", 2, "default", "scraper", 61)
		stranger := &http.Client{Timeout: answerTime, Transport: &http.Transport{TLSClientConfig: scraper.withoutCertificate(), DisableKeepAlives: true}}
		if _, err := scrape(stranger, target); err == nil {
			t.Error("a scraper without a certificate is answered")
		}
		known := &http.Client{Timeout: answerTime, Transport: &http.Transport{TLSClientConfig: scraper.config(), DisableKeepAlives: true}}
		f.await("metrics with a certificate", func() error { _, err := scrape(known, target); return err })
		f.apply(permit("default", "no-scraper", "scraper", "dataplane-metrics", "DENY"))
		f.await("the permission", func() error {
			if _, err := scrape(known, target); err == nil || !strings.Contains(err.Error(), "403") {
				return fmt.Errorf("it is answered: %v", err)
			}
			return nil
		})
	})
}

// headerSetter adds a header to each request.
type headerSetter struct{ name, value string }

func (h headerSetter) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(h.name, h.value)
	return http.DefaultTransport.RoundTrip(r)
}
