package global

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestWorkFollowsTheChange applies the same changes to a store with few resources and to one with many, and counts what global did
// for them: keys and bytes to and from etcd, and resources that were looked at.
func TestWorkFollowsTheChange(t *testing.T) {
	few, many := workOf(t, 20), workOf(t, 2000)
	for name, n := range few {
		t.Logf("%s: %g of 20 resources, %g of 2000", name, n, many[name])
		// What runs beside is not of a change: it may fall into either.
		if many[name] > 1.1*n {
			t.Errorf("%s: %g with 2000 resources, %g with 20", name, many[name], n)
		}
		if n == 0 {
			t.Errorf("%s: nothing is counted", name)
		}
	}
}

// workOf is what 25 changes cost with so many policies stored, each of a route, a timeout and a Secret that one route names.
func workOf(t *testing.T, stored int) map[string]float64 {
	// A comparison with etcd is not of a change, and reads everything on a machine that stood still: what is on its way looks like a lost event.
	r := start(t, config(t.TempDir()), func(g *Global) { g.compareStore = time.Hour })
	defer func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}()
	apply := func(documents ...string) {
		t.Helper()
		code, text := r.do(r.admin(), http.MethodPost, "/v1/changes", strings.Join(documents, "---\n"), "Content-Type", "application/yaml")
		if code != http.StatusOK {
			t.Fatalf("%d: %s", code, text)
		}
	}
	route := func(n int, mark string) string {
		return fmt.Sprintf("type: MeshGatewayRoute\nmesh: default\nname: route-%04d\nselectors:\n  - match: {kuma.io/service: edge}\nconf:\n  http:\n    rules:\n"+
			"      - matches:\n          - path: {match: PREFIX, value: /%04d}\n        filters:\n          - requestHeader:\n              set:\n"+
			"                - {name: x-mark, value: \"%s\"}\n        backends:\n          - destination: {kuma.io/service: web}\n", n, n, mark)
	}
	timeout := func(n, seconds int) string {
		return fmt.Sprintf("type: Timeout\nmesh: default\nname: timeout-%04d\nsources:\n  - match: {kuma.io/service: \"*\"}\n"+
			"destinations:\n  - match: {kuma.io/service: web}\nconf:\n  connectTimeout: %ds\n", n, seconds)
	}
	secret := func(key string) string {
		return fmt.Sprintf("type: Secret\nmesh: default\nname: keys\ndata: %s\n", key)
	}
	var documents []string
	for n := range stored / 2 {
		documents = append(documents, route(n, "00"), timeout(n, 99))
	}
	apply(documents...)
	apply(secret(base64.StdEncoding.EncodeToString([]byte("alice: a-key-of-alice-00\n"))), strings.Replace(route(9999, "00"), "          - requestHeader", "          - apiKey: {secret: keys}\n          - requestHeader", 1))
	before := r.work()
	for i := range 25 {
		apply(route(0, fmt.Sprint(10+i)), timeout(0, 10+i))
		apply(secret(base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "alice: a-key-of-alice-%02d\n", i+1))))
	}
	after := r.work()
	for name := range after {
		after[name] -= before[name]
	}
	return after
}

// work reads the counters of the store.
func (r *running) work() map[string]float64 {
	r.Helper()
	out := map[string]float64{}
	for line := range strings.Lines(r.want(http.StatusOK, r.admin(), http.MethodGet, "/metrics", "")) {
		for _, name := range []string{"zoneforge_store_keys_total", "zoneforge_store_bytes_total", "zoneforge_store_visited_total"} {
			var n float64
			if rest, ok := strings.CutPrefix(line, name); ok {
				label, value, _ := strings.Cut(rest, " ")
				if _, err := fmt.Sscan(value, &n); err != nil {
					r.Fatal(err)
				}
				out[name+label] = n
			}
		}
	}
	return out
}
