package global

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/bench/simzone"
	"github.com/zoneforge/zoneforge/sync/kds"
)

// bigChange puts so many policies, of which each number makes others, and gives the revision.
func (r *running) bigChange(number int) uint64 {
	r.Helper()
	var resources []string
	for n := range 100 {
		resources = append(resources, fmt.Sprintf(`{"type":"Timeout","mesh":"default","name":"t-%d","sources":[{"match":{"kuma.io/service":"%s"}}],`+
			`"destinations":[{"match":{"kuma.io/service":"s-%d"}}],"conf":{"connectTimeout":"%dms"}}`, n, strings.Repeat("a", 200), n, number+1))
	}
	var done struct{ Revision uint64 }
	text := r.want(http.StatusOK, r.admin(), "POST", "/v1/changes", `{"resources":[`+strings.Join(resources, ",")+`]}`)
	if err := json.Unmarshal([]byte(text), &done); err != nil {
		r.Fatal(err)
	}
	return done.Revision
}

// TestZonesOverload has three hundred zones come back at once after a restart of global, with one among them that never acknowledges.
// All are back soon, each change reaches the others at once, and global holds nothing for the one that is stuck but what it was sent: what it
// missed meanwhile comes as one difference. A thousand zones are measured by make bench-scale.
func TestZonesOverload(t *testing.T) {
	const zones = 300
	cfg := config(t.TempDir())
	cfg.RESTAddress, cfg.KDSAddress = free(t), free(t) // it comes back to them
	r := start(t, cfg)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.file(filepath.Join("tls", "server-ca.crt")))
	fleet, err := simzone.New(simzone.Config{Target: r.Addresses().KDS, Roots: roots, Proxies: 3, Services: 1, Mesh: "default", MaxBackoff: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fleet.Stop)
	for i := range zones {
		name := fmt.Sprint("zone-", i)
		fleet.Add(name, r.token(r.admin(), "zone", fmt.Sprintf(`{"zone":%q}`, name)), nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	if err := fleet.Online(ctx, zones, r.bigChange(0)); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg)
	began := time.Now()
	stuck := r.connectWithRoom(0, "stuck", r.token(r.admin(), "zone", `{"zone":"stuck"}`))
	stuck.event("welcome", func(e kds.ZoneEvent) bool { return e.Welcome != nil })
	// A change in the middle of it.
	if err := fleet.Online(ctx, zones, r.bigChange(1)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d zones are back, with a change, after %s", zones, time.Since(began).Round(time.Millisecond))

	const changes = 20
	var last uint64
	for n := range changes {
		last = r.bigChange(2 + n)
	}
	if err := fleet.Online(ctx, zones, last); err != nil {
		t.Fatal(err)
	}
	r.want(http.StatusOK, r.admin(), "GET", "/v1/status/zones/stuck", "", `"inSync":false`, `"connected":true`)
	// Its acknowledgement may still be on its way.
	r.eventually(http.StatusOK, r.admin(), "/v1/status/zones/zone-7", `"inSync":true`)
	r.want(http.StatusOK, r.admin(), "GET", "/v1/status/zones/zone-7", "", `"connected":true`)
	// It has one delta in hand, and one more was on its way.
	deltas := 0
	for revision := uint64(0); revision < last; deltas++ {
		select {
		case a := <-stuck.applied:
			revision = a.Position.Revision
		case <-ctx.Done():
			t.Fatalf("it is at revision %d of %d after %d deltas", revision, last, deltas)
		}
	}
	if deltas > 3 {
		t.Errorf("%d deltas came for %d changes once it went on", deltas, changes)
	}
}
