package dataplane

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	zaptestobserver "go.uber.org/zap/zaptest/observer"
)

// TestZoneWatch has an Envoy lose its zone and get it back, and reads what its launcher says.
func TestZoneWatch(t *testing.T) {
	connected, certificates := true, `{"certificates":[]}`
	mux := http.NewServeMux()
	mux.HandleFunc("/stats", func(w http.ResponseWriter, r *http.Request) {
		state := 0
		if connected {
			state = 1
		}
		if r.URL.Query().Get("filter") == `^control_plane\.connected_state$` {
			fmt.Fprintf(w, "control_plane.connected_state: %d\n", state)
			_ = http.NewResponseController(w).Flush() // in a chunk, as Envoy does
		}
	})
	mux.HandleFunc("/certs", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, certificates) })
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })

	core, logs := zaptestobserver.New(zap.DebugLevel)
	w := newZoneWatch(socket, "zone:5678", zap.New(core))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// said looks after a while, and gives the level and the end that were told.
	said := func(after time.Duration) string {
		t.Helper()
		now = now.Add(after)
		w.look(t.Context(), now)
		var out []string
		for _, e := range logs.TakeAll() {
			what, until := e.Level.String(), ""
			if v, ok := e.ContextMap()["until"].(time.Time); ok {
				until = " until " + v.UTC().Format("15:04")
			}
			if e.Level == zapcore.InfoLevel {
				what = e.Message
			}
			out = append(out, what+until)
		}
		return strings.Join(out, ", ")
	}
	expect := func(after time.Duration, want string) {
		t.Helper()
		if got := said(after); got != want {
			t.Errorf("at %s: %q, want %q", now.Format("15:04:05"), got, want)
		}
	}
	expect(0, "")
	connected = false
	expect(watchInterval, "")
	connected = true // it was restarted
	expect(watchInterval, "")
	connected = false
	expect(watchInterval, "")
	expect(watchInterval, "warn") // no mutual TLS
	expect(watchInterval, "")
	connected = true
	expect(watchInterval, "the zone control plane is back")

	entry := func(name, until string) string {
		return fmt.Sprintf(`{"ca_cert":[{"expiration_time":"2036-03-01T00:00:00Z"}],"cert_chain":[{"subject_alt_names":[%s],"expiration_time":"2026-03-01T%s:00Z"}]}`, name, until)
	}
	certificates = `{"certificates":[` + strings.Join([]string{
		entry(`{"uri":"spiffe://east.default.mesh/web"}`, "16:00"), entry(`{"uri":"spiffe://east.default.mesh/web"}`, "15:00"),
		entry(`{"dns":"www.example.com"}`, "13:00"), `{"ca_cert":[],"cert_chain":[]}`}, ",") + `]}`
	connected = false
	now = time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)
	expect(0, "")
	expect(15*time.Second, "warn until 15:00")
	expect(30*time.Minute, "")
	expect(30*time.Minute, "warn until 15:00")
	expect(30*time.Minute, "error until 15:00")
	expect(15*time.Minute, "error until 15:00")
	expect(time.Hour, "error until 15:00")
	certificates = "nonsense"
	expect(time.Minute, "warn, warn")
	// An Envoy that doesn't answer is its supervisor's to tell of.
	_ = server.Close()
	expect(time.Hour, "")
}
