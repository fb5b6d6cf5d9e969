package zone

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
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
