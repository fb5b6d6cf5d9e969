package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// script is a filter; the text is indented as a rule's list of filters is.
func script(text, more string) string {
	return "lua:\n" + more + "              script: |\n                " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n                ")
}

// TestLua runs scripts with requests and responses, at a gateway and at a workload, and scripts that fail.
func TestLua(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	const open = "              failOpen: true\n"
	f.apply(startBodies(f),
		bodiesRoute("change", script(`
function envoy_on_request(handle)
  local body = handle:body()
  handle:headers():replace("x-length", tostring(body:length()))
  body:setBytes(string.upper(body:getBytes(0, body:length())))
end
function envoy_on_response(handle)
  handle:headers():add("x-script", "ran")
end`, "")),
		bodiesRoute("refuse", script(`
function envoy_on_request(handle)
  if not handle:headers():get("x-key") then
    handle:respond({[":status"] = "403"}, "no key")
  end
end`, "")),
		bodiesRoute("fails", script("function envoy_on_request(handle)\n  local nothing = handle:headers():get('x-ok')\n  handle:headers():replace('x-seen', nothing .. '!')\nend", "")),
		bodiesRoute("open", script("function envoy_on_request(handle)\n  error('broken')\nend", open)),
		bodiesRoute("masks", script("function envoy_on_response(handle)\n  local body = handle:body()\n  error('broken before it was masked')\nend", "")),
		// The first line fails while the script is loaded, for which an Envoy would refuse the route table.
		bodiesRoute("load", script("local json = require('not-there')\nfunction envoy_on_request(handle)\nend", "")),
		"type: FilterPolicy\nmesh: default\nname: at-workload\nselectors: [{match: {kuma.io/service: echo, version: v1}}]\nconf:\n  filters:\n    - lua: {script: \"function envoy_on_request(handle) handle:headers():add('x-sidecar', 'ran') end\"}\n",
		gatewayRoute("workloads", "", "      - matches: [{path: {match: EXACT, value: /v1}}]\n"+toV1+"      - matches: [{path: {match: EXACT, value: /v2}}]\n"+toV2))

	r := f.posts(client, url("/change/raw"), "abc", http.StatusOK, "ABC")
	if r.Header.Get("X-Script") != "ran" {
		t.Errorf("the response's headers are %v", r.Header)
	}
	if got := forwarded(t, client, url("/change"), "text/plain", "four"); got.Header.Get("X-Length") != "4" || got.Body != "FOUR" {
		t.Errorf("forwarded as %+v", got)
	}
	f.posts(client, url("/refuse/raw"), "x", http.StatusForbidden, "no key")
	if r, body, err := post(client, url("/refuse/raw"), "text/plain", "x", "X-Key", "k"); err != nil || r.StatusCode != http.StatusOK || body != "x" {
		t.Errorf("with a key: %v %q %v", r, body, err)
	}
	const failed = "a script of this route failed\n"
	f.posts(client, url("/fails/raw"), "x", http.StatusInternalServerError, failed)
	if got := forwarded(t, client, url("/fails"), "text/plain", "x", "X-Ok", "yes"); got.Header.Get("X-Seen") != "yes!" {
		t.Errorf("forwarded as %+v", got)
	}
	f.posts(client, url("/open/raw"), "x", http.StatusOK, "x")
	f.posts(client, url("/masks/raw"), "secret", http.StatusInternalServerError, failed)
	f.posts(client, url("/load/raw"), "x", http.StatusInternalServerError, failed)
	for _, words := range []string{"script:3: attempt to concatenate local 'nothing'", "script:2: broken", "module 'not-there' not found"} {
		f.logs("edge", words)
	}

	if a := f.answers(client, http.StatusOK, "GET", url("/v1")); a.Header.Get("X-Sidecar") != "ran" {
		t.Errorf("the workload's headers are %v", a.Header)
	}
	if a := f.answers(client, http.StatusOK, "GET", url("/v2")); a.Header.Get("X-Sidecar") != "" {
		t.Errorf("the headers of a workload without the policy are %v", a.Header)
	}

	f.refusesToApply([]string{"script line:2(column:", "lua.script"}, bodiesRoute("bad", script("function envoy_on_request(handle)\n  if then\nend", "")))
	f.refusesToApply([]string{"defines neither envoy_on_request nor envoy_on_response"}, bodiesRoute("bad", script("function on_request(handle)\nend", "")))
	f.settled("east", 3)
}
