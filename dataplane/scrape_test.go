package dataplane

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestLabel(t *testing.T) {
	const in = "# TYPE a counter\na{} 1\na{x=\"y\"} 2\n\nb 3\n# HELP b {\nc_bucket{le=\"0.5\"} 4\n"
	const want = "# TYPE a counter\na{m=\"q\\\"\\\\\",z=\"e\"} 1\na{m=\"q\\\"\\\\\",z=\"e\",x=\"y\"} 2\n\nb{m=\"q\\\"\\\\\",z=\"e\"} 3\n# HELP b {\nc_bucket{m=\"q\\\"\\\\\",z=\"e\",le=\"0.5\"} 4\n"
	var out strings.Builder
	w := bufio.NewWriter(&out)
	if err := label(w, strings.NewReader(in), labelText([]string{"z=e", `m=q"\`, "none"})); err != nil {
		t.Fatal(err)
	}
	_ = w.Flush()
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
	if err := label(w, strings.NewReader(strings.Repeat("x", maxSample+1)), ""); err == nil {
		t.Error("a line without an end is taken")
	}
}

// TestScrapeServesMetricsOnly: the socket answers one path, and passes on of Envoy's admin interface nothing but its metrics.
func TestScrapeServesMetricsOnly(t *testing.T) {
	dir := t.TempDir()
	admin, err := net.Listen("unix", filepath.Join(dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 10)
	envoy := &httptest.Server{Listener: admin, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.String()
		_, _ = io.WriteString(w, "up{} 1\n")
	})}}
	envoy.Start()
	defer envoy.Close()
	logs := newTestForwarder(t, io.Discard)
	defer logs.reader.Close()
	defer logs.writer.Close()
	s := newScraper(filepath.Join(dir, agentSocket), admin.Addr().String(), logs, zap.NewNop())
	l, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx, l) }()
	defer func() { cancel(); <-done }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket)
	}}}
	get := func(path, header string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(scrapeHeader, header)
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	code, body := get("/metrics?filter=theirs", "label=zone%3Deast&filter=a.b&usedonly=&other=x")
	if code != http.StatusOK || !strings.HasPrefix(body, "up{zone=\"east\"} 1\n") || !strings.Contains(body, "zoneforge_access_log_unreadable_total{zone=\"east\"} 0\n") {
		t.Errorf("%d %q", code, body)
	}
	if got := <-asked; got != "/stats/prometheus?filter=a.b&usedonly=" {
		t.Errorf("Envoy was asked for %s", got)
	}
	for _, path := range []string{"/", "/config_dump", "/stats/prometheus", "/metrics/../quitquitquit"} {
		if code, _ := get(path, ""); code == http.StatusOK {
			t.Errorf("%s is answered", path)
		}
	}
	if code, _ := get("/metrics", "%zz"); code != http.StatusBadRequest {
		t.Errorf("an unreadable header gives %d", code)
	}
	if len(asked) > 0 {
		t.Errorf("Envoy was asked for %s", <-asked)
	}
	envoy.Close()
	if code, _ := get("/metrics", ""); code != http.StatusBadGateway {
		t.Errorf("without Envoy it gives %d", code)
	}
}
