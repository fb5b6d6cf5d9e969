package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

func proxyTemplate(name, service, conf string) string {
	return fmt.Sprintf("type: ProxyTemplate\nmesh: default\nname: %s\nselectors: [{match: {kuma.io/service: %s}}]\nconf:\n%s", name, service, conf)
}

const luaFilter = `          name: envoy.filters.http.lua
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
            default_source_code:
              inline_string: |
                function envoy_on_response(handle)
                  handle:headers():add("x-lua", "%s")
                end
`

// TestProxyTemplate changes what real Envoys are told, in Kuma's language and by patches of JSON, and holds that a template which
// can't be used costs itself only.
func TestProxyTemplate(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(gatewayRoute("echo", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1))
	f.answers(client, http.StatusOK, "GET", url("/"))

	f.apply(proxyTemplate("edge", "edge", "  imports: [default-proxy]\n  modifications:\n    - httpFilter:\n        operation: addBefore\n        match: {name: envoy.filters.http.router, origin: gateway}\n        value: |\n"+
		fmt.Sprintf(luaFilter, "gateway")+
		"    - virtualHost:\n        operation: add\n        match: {origin: gateway, routeConfigurationName: 'gateway:8080'}\n        value: |\n"+
		"          name: added\n          domains: [added.example.com]\n          routes: [{match: {prefix: /}, direct_response: {status: 203}}]\n"+
		"    - virtualHost:\n        operation: patch\n        match: {origin: gateway, name: '*'}\n        value: |\n"+
		"          response_headers_to_add: [{header: {key: x-host, value: patched}}]\n"),
		proxyTemplate("echo", "echo", "  patches:\n    - type: route\n      match: {origin: inbound}\n      jsonPatch:\n        - {op: add, path: /virtual_hosts/0/response_headers_to_add, value: [{header: {key: x-json, value: patch}}]}\n"+
			"    - type: route\n      match: {nameRegex: 'inbound:.*'}\n      mergePatch: {response_headers_to_remove: [x-workload]}\n"))
	f.await("the templates", func() error {
		r, _, err := ask(client, "GET", url("/"))
		if err != nil {
			return err
		}
		for name, want := range map[string]string{"X-Lua": "gateway", "X-Host": "patched", "X-Json": "patch", "X-Workload": ""} {
			if got := r.Header.Get(name); r.StatusCode != http.StatusOK || got != want {
				return fmt.Errorf("%d, %s is %q, want %q", r.StatusCode, name, got, want)
			}
		}
		r, _, err = ask(client, "GET", url("/"), "Host", "added.example.com")
		if err == nil && r.StatusCode != http.StatusNonAuthoritativeInfo {
			err = fmt.Errorf("the added host answers %d", r.StatusCode)
		}
		return err
	})

	t.Run("most specific", func(t *testing.T) {
		f.apply(proxyTemplate("any", "'*'", "  patches: [{type: route, mergePatch: {response_headers_to_add: [{header: {key: x-any, value: one}}]}}]\n"))
		r, _, err := ask(client, "GET", url("/"))
		if err != nil || r.Header.Get("X-Any") != "" || r.Header.Get("X-Json") != "patch" {
			t.Errorf("the less specific template holds: %v %v", r, err)
		}
	})

	t.Run("out of the schema", func(t *testing.T) {
		f.fails(1, []string{"conf.modifications[0].httpFilter.value", "max_request_byts"}, "apply", "-f", f.write("refused.yaml",
			proxyTemplate("echo", "echo", "  modifications:\n    - httpFilter:\n        operation: addFirst\n        value: |\n          name: b\n          typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_byts: 1}\n")))
		f.settled("east", 3)
	})

	t.Run("only the zone can know", func(t *testing.T) {
		f.refusesToApply([]string{"ProxyTemplate default/echo", "what becomes of cluster", "ConnectTimeout"},
			proxyTemplate("echo", "echo", "  modifications:\n    - cluster: {operation: patch, match: {origin: inbound}, value: {connect_timeout: 0s}}\n"))
		f.await("the template's status", func() error {
			s, err := f.status("east")
			if err == nil && (len(s.Rejected) != 1 || s.Rejected[0].Name != "echo" || len(s.Nacks) != 0) {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})
		// All else works, and goes on to change.
		f.cli("apply", "-f", f.write("more.yaml", gatewayRoute("more", "", "      - matches: [{path: {match: PREFIX, value: /more}}]\n        filters: [{directResponse: {status: 202}}]\n")))
		f.answers(client, http.StatusAccepted, "GET", url("/more"))
		f.answers(client, http.StatusOK, "GET", url("/"))
		f.cli("delete", "proxytemplate", "echo", "--wait")
		f.settled("east", 3)
	})
}
