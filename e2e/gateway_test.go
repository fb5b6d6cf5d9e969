package e2e

import (
	"fmt"
	"net/http"
	"testing"
)

const strictMesh = "type: Mesh\nname: default\nmtls:\n  enabledBackend: ca\n  backends: [{name: ca, type: builtin, mode: STRICT}]\n"

const edgeGateway = `type: MeshGateway
mesh: default
name: edge
selectors: [{match: {kuma.io/service: edge}}]
conf:
  listeners:
    - {port: 8080, protocol: HTTP}
`

// gatewayRoute is a route of the edge; rules are indented as its list is.
func gatewayRoute(name, hostnames, rules string) string {
	return fmt.Sprintf("type: MeshGatewayRoute\nmesh: default\nname: %s\nselectors: [{match: {kuma.io/service: edge}}]\nconf:\n  http:\n    hostnames: [%s]\n    rules:\n%s", name, hostnames, rules)
}

const toV1 = "        backends: [{destination: {kuma.io/service: echo, version: v1}}]\n"
const toV2 = "        backends: [{destination: {kuma.io/service: echo, version: v2}}]\n"

// startEdge runs one zone with a gateway at address 10 and echo in two versions at 31 and 32.
func startEdge(t *testing.T) *federation {
	t.Helper()
	f := newFederation(t)
	f.startGlobal()
	f.startZone("east", 2)
	f.apply(strictMesh, edgeGateway, permit("default", "all", "*", "*", "ALLOW"))
	echo, edge := f.token("echo", "dataplane", "--mesh", "default", "--service", "echo"), f.token("edge", "dataplane", "--mesh", "default", "--service", "edge")
	for i, version := range []string{"v1", "v2"} {
		host := f.host(31 + i)
		f.workload(host+":8080", version, map[string]http.HandlerFunc{"/large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 100<<10)) }})
		f.startProxy("east", 2, "echo-"+version, sidecarDocument("default", "echo-"+version, host, inboundOf("echo", "http", host, 8080, ", version: "+version)), echo)
	}
	f.startProxy("east", 2, "edge", gatewayDocument("default", "edge", f.host(10)), edge)
	f.settled("east", 3)
	return f
}

// TestGateway sends requests through a real gateway, for each thing that a route may say.
func TestGateway(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }

	t.Run("routes", func(t *testing.T) {
		f.apply(gatewayRoute("routes", "",
			"      - matches: [{path: {match: EXACT, value: /exact}}]\n"+toV1+
				"      - matches: [{path: {match: PREFIX, value: /prefix}}]\n"+toV1+
				"      - matches: [{path: {match: PREFIX, value: /prefix/longer}}]\n"+toV2+
				"      - matches: [{path: {match: REGEX, value: '/items/[0-9]+'}}]\n"+toV1+
				"      - matches: [{path: {match: PREFIX, value: /m}, method: POST}]\n"+toV2+
				"      - matches: [{path: {match: PREFIX, value: /h}, headers: [{name: x-a, match: EXACT, value: one}, {name: x-b, match: PRESENT}]}]\n"+toV1+
				"      - matches: [{path: {match: PREFIX, value: /h}, headers: [{name: x-a, match: REGEX, value: 't.*'}, {name: x-b, match: ABSENT}]}]\n"+toV2+
				"      - matches: [{path: {match: PREFIX, value: /q}, queryParameters: [{name: v, match: EXACT, value: '1'}]}]\n"+toV1+
				"      - matches: [{path: {match: PREFIX, value: /q}, queryParameters: [{name: v, match: PREFIX, value: '2'}]}]\n"+toV2+
				"      - matches: [{path: {match: PREFIX, value: /change}}]\n"+
				"        filters:\n          - requestHeader: {set: [{name: x-set, value: '100% %REQ(x)% mine'}], add: [{name: x-add, value: more}], remove: [x-gone]}\n"+
				"          - responseHeader: {set: [{name: x-answer, value: '50%'}], remove: [x-workload-secret]}\n"+toV1+
				"      - matches: [{path: {match: PREFIX, value: /cors}}]\n"+
				"        cors: {allowOrigins: [{exact: 'https://a.example.com'}, {regex: 'https://.*\\.b\\.example\\.com'}], allowMethods: [GET, PUT], allowHeaders: [x-token], exposeHeaders: [x-seen], maxAge: 60, allowCredentials: true}\n"+toV1))
		f.answers(client, http.StatusOK, "GET", url("/exact"))
		for _, c := range []struct {
			method, path string
			header       []string
			status       int
			workload     string
		}{
			{"GET", "/exact", nil, 200, "v1"},
			{"GET", "/exact?with=query", nil, 200, "v1"},
			{"GET", "/exact/", nil, 404, ""},
			{"GET", "/prefix", nil, 200, "v1"},
			{"GET", "/prefix/", nil, 200, "v1"},
			{"GET", "/prefixed", nil, 404, ""},
			{"GET", "/prefix/longer/x", nil, 200, "v2"},
			{"GET", "/prefix/../prefix/longer", nil, 200, "v2"},
			{"GET", "//prefix/longer", nil, 200, "v2"},
			{"GET", "/items/42", nil, 200, "v1"},
			{"GET", "/items/42?x=y", nil, 200, "v1"},
			{"GET", "/items/42x", nil, 404, ""},
			{"POST", "/m", nil, 200, "v2"},
			{"GET", "/m", nil, 404, ""},
			{"GET", "/h", []string{"X-A", "one", "X-B", ""}, 200, "v1"},
			{"GET", "/h", []string{"X-A", "one"}, 404, ""},
			{"GET", "/h", []string{"X-A", "two"}, 200, "v2"},
			{"GET", "/h", []string{"X-A", "two", "X-B", "b"}, 404, ""},
			{"GET", "/q?v=1", nil, 200, "v1"},
			{"GET", "/q?u=1&v=23", nil, 200, "v2"},
			{"GET", "/q", nil, 404, ""},
		} {
			r, a, err := ask(client, c.method, url(c.path), c.header...)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != c.status || a.Workload != c.workload {
				t.Errorf("%s %s %v: %d from %q, want %d from %q", c.method, c.path, c.header, r.StatusCode, a.Workload, c.status, c.workload)
			}
		}
		r, a, err := ask(client, "GET", url("/change"), "X-Gone", "here", "X-Set", "theirs", "X-Add", "first", "X-Forwarded-Client-Cert", "URI=spiffe://forged")
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Header; got.Get("X-Set") != "100% %REQ(x)% mine" || len(got["X-Set"]) != 1 || len(got["X-Gone"]) != 0 || fmt.Sprint(got["X-Add"]) != "[first more]" && got.Get("X-Add") != "first,more" {
			t.Errorf("the request's headers are %v", got)
		}
		if r.Header.Get("X-Answer") != "50%" {
			t.Errorf("the response's headers are %v", r.Header)
		}
		for origin, allowed := range map[string]string{"https://a.example.com": "https://a.example.com", "https://x.b.example.com": "https://x.b.example.com", "https://evil.example.com": ""} {
			r, _, err := ask(client, "OPTIONS", url("/cors"), "Origin", origin, "Access-Control-Request-Method", "PUT")
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Header.Get("Access-Control-Allow-Origin"); got != allowed {
				t.Errorf("preflight from %s is allowed %q: %v", origin, got, r.Header)
			}
			if allowed != "" && (r.Header.Get("Access-Control-Allow-Methods") != "GET,PUT" || r.Header.Get("Access-Control-Max-Age") != "60" || r.Header.Get("Access-Control-Allow-Credentials") != "true") {
				t.Errorf("preflight from %s: %v", origin, r.Header)
			}
		}
	})

	t.Run("weights", func(t *testing.T) {
		f.apply(gatewayRoute("weights", "", "      - matches: [{path: {match: PREFIX, value: /none}}]\n        backends: [{weight: 0, destination: {kuma.io/service: echo, version: v1}}, {weight: 1, destination: {kuma.io/service: echo, version: v2}}]\n"+
			"      - matches: [{path: {match: PREFIX, value: /half}}]\n        backends: [{destination: {kuma.io/service: echo, version: v1}}, {destination: {kuma.io/service: echo, version: v2}}]\n"))
		f.answers(client, http.StatusOK, "GET", url("/none"))
		seen := map[string]int{}
		for range 30 {
			_, a, err := ask(client, "GET", url("/none"))
			if err != nil || a.Workload != "v2" {
				t.Fatalf("weight 0 was answered by %q: %v", a.Workload, err)
			}
			_, a, err = ask(client, "GET", url("/half"))
			if err != nil {
				t.Fatal(err)
			}
			seen[a.Workload]++
		}
		// One in 2^30 runs sees one of them not at all.
		if seen["v1"] == 0 || seen["v2"] == 0 || seen["v1"]+seen["v2"] != 30 {
			t.Errorf("halves are %v", seen)
		}
	})

	t.Run("hostnames", func(t *testing.T) {
		f.apply(gatewayRoute("one", "one.example.com", "      - matches: [{path: {match: EXACT, value: /host}}]\n"+toV1),
			gatewayRoute("wide", `"*.example.com"`, "      - matches: [{path: {match: EXACT, value: /host}}]\n"+toV2+
				"      - matches: [{path: {match: EXACT, value: /wide}}]\n"+toV2))
		f.answers(client, http.StatusOK, "GET", url("/host"), "Host", "one.example.com")
		for _, c := range []struct {
			host, path, workload string
			status               int
		}{
			{"one.example.com", "/wide", "v2", 200}, {"two.example.com", "/host", "v2", 200}, {"two.example.com:8080", "/host", "v2", 200},
			{"ONE.example.com", "/wide", "v2", 200}, {"example.com", "/host", "", 404}, {"deep.two.example.com", "/host", "v2", 200},
		} {
			r, a, err := ask(client, "GET", url(c.path), "Host", c.host)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != c.status || a.Workload != c.workload {
				t.Errorf("%s%s: %d from %q, want %d from %q", c.host, c.path, r.StatusCode, a.Workload, c.status, c.workload)
			}
		}
	})
}
