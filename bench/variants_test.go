package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestStatic makes a file of a dump, and holds that each variant takes something out of it and nothing else does.
func TestStatic(t *testing.T) {
	dump := `[{"dynamic_listeners": [{"active_state": {"listener": {"name": "other"}}}, {"active_state": {"listener": {"@type": "l", "name": "gateway:18080", "address": {},
  "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {"@type": "m", "rds": {}, "use_remote_address": true, "normalize_path": true, "request_headers_timeout": "10s",
   "local_reply_config": {}, "upgrade_configs": [],
   "http_filters": [{"name": "limit", "config_discovery": {}}, {"name": "router", "typed_config": {"@type": "r"}}]}}]}]}}}]},
 {"dynamic_route_configs": [{"route_config": {"name": "cache"}}, {"route_config": {"name": "gateway:18080", "virtual_hosts": [{"routes": [` +
		strings.Repeat(`{"route": {"idle_timeout": "1800s"}}, `, pathRoutes) + `{"direct_response": {}}]}]}}]},
 {"dynamic_active_clusters": [{"cluster": {"name": "cache"}}, {"cluster": {"@type": "c", "name": "bench-path.all", "typed_extension_protocol_options": {}}}]},
 {"ecds_filters": [{"ecds_filter": {"name": "limit", "typed_config": {"@type": "limits"}}}]}]`
	made := map[string]string{}
	for _, v := range variants {
		out, err := static([]byte(dump), "127.0.0.9", v)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		for before, text := range made {
			if (string(out) == text) != (v.name == "nothing, again" && before == "nothing") {
				t.Errorf("without %s and without %s: equal is %v", v.name, before, string(out) == text)
			}
		}
		made[v.name] = string(out)
	}
	for _, part := range []string{`"address":"127.0.0.9"`, `{"name":"limit","typed_config":{"@type":"limits"}}`, `"name":"bench-path.all"`, `"route_config":{"name":"gateway:18080"`} {
		if !strings.Contains(made["nothing"], part) {
			t.Errorf("%s is missing in %s", part, made["nothing"])
		}
	}
	for _, part := range []string{"config_discovery", `"rds"`, `"@type":"l"`, `"@type":"c"`, `"other"`} {
		if strings.Contains(made["nothing"], part) {
			t.Errorf("%s is in %s", part, made["nothing"])
		}
	}
	if !json.Valid([]byte(made["nothing"])) {
		t.Error("it is no JSON")
	}
	if _, err := static([]byte(`[]`), "127.0.0.9", variants[0]); err == nil || !strings.Contains(err.Error(), "not what was applied") {
		t.Errorf("a dump of nothing: %v", err)
	}
}
