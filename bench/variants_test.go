package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestTogether makes a file of a dump, and holds that each variant takes something out of it and nothing else does.
func TestTogether(t *testing.T) {
	dump := `[{"dynamic_listeners": [{"active_state": {"listener": {"name": "other"}}}, {"active_state": {"listener": {"@type": "l", "name": "gateway:18080", "address": {},
  "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {"@type": "m", "rds": {}, "use_remote_address": true, "normalize_path": true, "stream_idle_timeout": "10s",
   "local_reply_config": {}, "upgrade_configs": [],
   "http_filters": [{"name": "limit", "config_discovery": {}}, {"name": "router", "typed_config": {"@type": "r"}}]}}]}]}}}]},
 {"dynamic_route_configs": [{"route_config": {"name": "cache"}}, {"route_config": {"name": "gateway:18080", "virtual_hosts": [{"routes": [` +
		strings.Repeat(`{"route": {"cluster": "bench-path.all", "idle_timeout": "1800s"}}, `, pathRoutes) + `{"direct_response": {}}]}]}}]},
 {"dynamic_active_clusters": [{"cluster": {"name": "cache"}}, {"cluster": {"@type": "c", "name": "bench-path.all", "typed_extension_protocol_options": {}}}]},
 {"ecds_filters": [{"ecds_filter": {"name": "limit", "typed_config": {"@type": "limits"}}}]}]`
	made := map[string]string{}
	one := func(p part, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		out, err := together([]part{p}, func(i int) string { return fmt.Sprintf("127.0.0.%d", 9+i) })
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, v := range variants {
		text := one(generatedPart([]byte(dump), v))
		for before, other := range made {
			if (text == other) != (v.name == "nothing, again" && before == "nothing") {
				t.Errorf("without %s and without %s: equal is %v", v.name, before, text == other)
			}
		}
		made[v.name] = text
	}
	for _, part := range []string{`"address":"127.0.0.9"`, `{"name":"limit","typed_config":{"@type":"limits"}}`, `"name":"upstream-0"`, `"cluster":"upstream-0"`, `"route_config":{"name":"gateway:18080"`} {
		if !strings.Contains(made["nothing"], part) {
			t.Errorf("%s is missing in %s", part, made["nothing"])
		}
	}
	for _, part := range []string{"config_discovery", `"rds"`, `"@type":"l"`, `"@type":"c"`, `"other"`, `"cluster":"bench-path.all"`} {
		if strings.Contains(made["nothing"], part) {
			t.Errorf("%s is in %s", part, made["nothing"])
		}
	}
	minimal := one(writtenPart(written("127.0.0.2", "127.0.0.3", "")))
	if strings.Count(minimal, `"cluster":"upstream-0"`) != pathRoutes || !strings.Contains(minimal, `"address":"127.0.0.9"`) {
		t.Errorf("the one written by hand: %s", minimal)
	}
	if protected := one(writtenPart(written("127.0.0.2", "127.0.0.3", protection))); !strings.Contains(protected, `"use_remote_address":true`) {
		t.Errorf("the one with protection: %s", protected)
	}
	if _, err := generatedPart([]byte(`[]`), variants[0]); err == nil || !strings.Contains(err.Error(), "not what was applied") {
		t.Errorf("a dump of nothing: %v", err)
	}
}
