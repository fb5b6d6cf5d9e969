package zone

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetricsAskForTheirToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	get := func(file, path, header string) int {
		var serving atomic.Bool
		r := httptest.NewRequest(http.MethodGet, path, nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		w := httptest.NewRecorder()
		newMetrics().handler(&keys{}, &serving, file).ServeHTTP(w, r)
		if shown := strings.Contains(w.Body.String(), "zoneforge_zone_proxies"); path == "/metrics" && shown != (w.Code == http.StatusOK) {
			t.Errorf("answered %d with figures %v", w.Code, shown)
		}
		return w.Code
	}
	if code := get("", "/metrics", ""); code != http.StatusOK {
		t.Errorf("without a file: %d", code)
	}
	if code := get(file, "/metrics", "Bearer "); code != http.StatusUnauthorized {
		t.Errorf("with a file that is not there: %d", code)
	}
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := get(file, "/metrics", "Bearer "); code != http.StatusUnauthorized {
		t.Errorf("with an empty file: %d", code)
	}
	if err := os.WriteFile(file, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]int{"": 401, "Bearer": 401, "Bearer ab": 401, "Basic abc": 401, "abc": 401, "Bearer abc": 200, "bearer abc": 200} {
		if code := get(file, "/metrics", header); code != want {
			t.Errorf("%q: %d, want %d", header, code, want)
		}
	}
	if code := get(file, "/healthz", ""); code != http.StatusOK {
		t.Errorf("health: %d", code)
	}
}

// slowCollector takes as long as it is held.
type slowCollector struct{ asked, release chan struct{} }

func (c slowCollector) Describe(chan<- *prometheus.Desc) {}

func (c slowCollector) Collect(chan<- prometheus.Metric) {
	c.asked <- struct{}{}
	<-c.release
}

func TestScrapesAreBounded(t *testing.T) {
	m, slow := newMetrics(), slowCollector{make(chan struct{}, 2*scrapes), make(chan struct{})}
	m.registry.MustRegister(slow)
	h := m.handler(&keys{}, new(atomic.Bool), "")
	get := func() int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Code
	}
	codes := make(chan int)
	for range scrapes {
		go func() { codes <- get() }()
		<-slow.asked
	}
	if code := get(); code != http.StatusServiceUnavailable {
		t.Errorf("one more is answered with %d", code)
	}
	close(slow.release)
	for range scrapes {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("answered with %d", code)
		}
	}
	if code := get(); code != http.StatusOK {
		t.Errorf("later: %d", code)
	}
}
