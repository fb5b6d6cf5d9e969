package e2e

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// outcome is what a request came to, in a word.
type outcome func(r *http.Response, a answer) string

// churn is one function that is switched between two configurations while requests go on.
type churn struct {
	name string
	// documents are the two configurations; an empty one deletes the resources of the other.
	documents [2]string
	// place is the URL's beginning, empty for that of the gateway's plain listener, and path the rest, empty for the name.
	place, path string
	method      string
	header      []string
	body        []byte
	// apart asks over a connection of its own each time.
	apart bool
	seen  outcome
	// want are the outcomes under each.
	want [2]string
}

// ask sends the function's request to a gateway, with an id.
func (c *churn) ask(client *http.Client, plain, id string) (*http.Response, answer, error) {
	r, err := http.NewRequest(cmp.Or(c.method, http.MethodGet), cmp.Or(c.place, plain)+cmp.Or(c.path, "/"+c.name), bytes.NewReader(c.body))
	if err != nil {
		return nil, answer{}, err
	}
	for i := 0; i+1 < len(c.header); i += 2 {
		r.Header.Set(c.header[i], c.header[i+1])
	}
	r.Header.Set("X-Churn-Request", id)
	r.Close = c.apart
	return answerTo(client, r)
}

func byWorkload(r *http.Response, a answer) string {
	return fmt.Sprintf("%d %s", r.StatusCode, a.Workload)
}

func byAnswerHeader(name string) outcome {
	return func(r *http.Response, _ answer) string { return fmt.Sprintf("%d %s", r.StatusCode, r.Header.Get(name)) }
}

func byRequestHeader(name string) outcome {
	return func(r *http.Response, a answer) string { return fmt.Sprintf("%d %s", r.StatusCode, a.Header.Get(name)) }
}

// churnRoute is a route of its own for a function, with what stands in its rule besides match and backends.
func churnRoute(name, rule string) string {
	return gatewayRoute("churn-"+name, "", "      - matches: [{path: {match: PREFIX, value: /"+name+"}}]\n"+rule)
}

// churnKeys is a set of keys of which nobody has the private one.
const churnKeys = `{"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "tour", "x": "lp7bFJPZegStYcA0vR-1fG_htvej1Xi52Zyij4qqfBg", "y": "7HbwtY58z28_6Qog1Zz6Oy4rsD5ZOQn0ywfniGjlFBY"}]}`

// churnGateway is the edge with a listener for each protocol.
const churnGateway = edgeGateway + `    - {port: 8443, protocol: HTTPS, tls: {mode: TERMINATE, certificates: [{secret: churn-tls}]}}
    - {port: 5432, protocol: TCP, tags: {bytes: plain}}
    - {port: 5433, protocol: TLS, hostname: api.example.com, tags: {bytes: tls}, tls: {mode: TERMINATE, certificates: [{secret: churn-bytes}]}}
`

// churns are the functions of the gateway, each on a path of its own, with what they need beside the edge.
func churns(f *federation) []churn {
	return append(routeChurns(), policyChurns(f)...)
}

// routeChurns are what the routes of the gateway itself may say.
func routeChurns() []churn {
	base := func(name string) string { return churnRoute(name, toV1) }
	with := func(name, filters string) string { return churnRoute(name, "        filters: ["+filters+"]\n"+toV1) }
	policyFor := func(name, filters string) string {
		return fmt.Sprintf("type: FilterPolicy\nmesh: default\nname: churn-%s\nselectors: [{match: {kuma.io/service: edge}}]\nroutes: [churn-%s]\nconf: {filters: [%s]}\n", name, name, filters)
	}
	return []churn{
		{name: "backend", documents: [2]string{base("backend"), churnRoute("backend", toV2)}, seen: byWorkload, want: [2]string{"200 v1", "200 v2"}},
		{name: "header", documents: [2]string{base("header"), with("header", "{requestHeader: {set: [{name: x-churn, value: b}]}}")},
			seen: byRequestHeader("X-Churn"), want: [2]string{"200 ", "200 b"}},
		{name: "cors", documents: [2]string{base("cors"), with("cors", "{cors: {allowOrigins: [{exact: 'https://a.example.com'}]}}")}, header: []string{"Origin", "https://a.example.com"},
			seen: byAnswerHeader("Access-Control-Allow-Origin"), want: [2]string{"200 ", "200 https://a.example.com"}},
		{name: "rewrite", documents: [2]string{base("rewrite"), with("rewrite", "{rewrite: {replacePrefixMatch: /other}}")},
			seen: func(r *http.Response, a answer) string { return fmt.Sprintf("%d %s", r.StatusCode, a.Path) }, want: [2]string{"200 /rewrite", "200 /other"}},
		{name: "direct", documents: [2]string{base("direct"), churnRoute("direct", "        filters: [{directResponse: {status: 418, body: x}}]\n")},
			seen: byWorkload, want: [2]string{"200 v1", "418 "}},
		{name: "redirect", documents: [2]string{base("redirect"), churnRoute("redirect", "        filters: [{redirect: {scheme: https, hostname: a.example.com}}]\n")},
			seen: byAnswerHeader("Location"), want: [2]string{"200 ", "302 https://a.example.com/redirect"}},
		{name: "mirror", documents: [2]string{base("mirror"), with("mirror", "{mirror: {destination: {kuma.io/service: echo, version: v2}}}")}, seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "policy", documents: [2]string{base("policy"), base("policy") + "---\n" + policyFor("policy", "{responseHeader: {set: [{name: x-churn, value: p}]}}")},
			seen: byAnswerHeader("X-Churn"), want: [2]string{"200 ", "200 p"}},
		{name: "listener", documents: [2]string{base("listener") + "---\n" + churnGateway, base("listener") + "---\n" + strings.Replace(churnGateway, "HTTP}", "HTTP, filters: [{responseHeader: {set: [{name: x-listener, value: l}]}}]}", 1)},
			seen: byAnswerHeader("X-Listener"), want: [2]string{"200 ", "200 l"}},
		{name: "fault", documents: [2]string{base("fault"), with("fault", "{fault: {abort: {httpStatus: 418, percentage: 100}}}")}, seen: byWorkload, want: [2]string{"200 v1", "418 "}},
		{name: "limit", documents: [2]string{base("limit"), with("limit", "{rateLimit: {requests: 1000000, interval: 1s, keys: [address]}}, {bodySize: {max: 1Mi}}, {bandwidth: {response: 50 gbps}}, {admission: {}}")},
			seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "limits", documents: [2]string{base("limits"), base("limits") + "---\ntype: RateLimit\nmesh: default\nname: churn-limits\nselectors: [{match: {kuma.io/service: edge}}]\n" +
			"conf: {http: [{match: [{path: {match: PREFIX, value: /limits}}], requests: 1000000, interval: 1s}]}\n"}, seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "compressed", documents: [2]string{base("compressed"), with("compressed", "{compression: {minLength: 30, contentTypes: [text/plain]}}")}, // The client asks for gzip by itself.
			seen: func(r *http.Response, _ answer) string { return fmt.Sprintf("%d %v", r.StatusCode, r.Uncompressed) }, want: [2]string{"200 false", "200 true"}},
		{name: "token", documents: [2]string{base("token"), with("token", "{jwt: {providers: {one: {issuer: 'https://issuer.example.com', localJwks: {inlineString: '"+churnKeys+"'}}}}}")},
			seen: byWorkload, want: [2]string{"200 v1", "401 "}},
		{name: "address", documents: [2]string{base("address"), with("address", "{clientAddress: {deny: [127.0.0.0/8]}}")}, seen: byWorkload, want: [2]string{"200 v1", "403 "}},
		{name: "lua", documents: [2]string{base("lua"), with("lua", `{lua: {script: "function envoy_on_response(h)\n h:headers():add('x-lua', 'l')\nend"}}`)},
			seen: byAnswerHeader("X-Lua"), want: [2]string{"200 ", "200 l"}},
		{name: "transform", documents: [2]string{base("transform"), with("transform", "{transform: {request: {headers: {set: [{name: x-transform, value: t}]}}}}")},
			method: http.MethodPost, header: []string{"Content-Type", "application/json"}, body: []byte(`{"a": 1}`),
			seen: byRequestHeader("X-Transform"), want: [2]string{"200 ", "200 t"}},
		{name: "cache", documents: [2]string{base("cache"), with("cache", "{cache: {defaultTtl: 60s}}")},
			seen: func(r *http.Response, a answer) string {
				return fmt.Sprintf("%d %s %v", r.StatusCode, a.Workload, r.Header.Get("X-Cache") != "")
			}, want: [2]string{"200 v1 false", "200 v1 true"}},
	}
}

// policyChurns are policies of kinds of their own, filters that need somebody beside the edge, and other protocols.
func policyChurns(f *federation) []churn {
	beside := f.startBeside()
	base := func(name string) string { return churnRoute(name, toV1) }
	with := func(name, filters string) string { return churnRoute(name, "        filters: ["+filters+"]\n"+toV1) }
	// beyond is a policy beside the route, for connections from the edge to echo; of nothing that one could see of an answer.
	beyond := func(name, kind, conf string) churn {
		return churn{name: name, documents: [2]string{base(name), base(name) + fmt.Sprintf("---\ntype: %s\nmesh: default\nname: churn-%s\nsources: [{match: {kuma.io/service: edge}}]\n"+
			"destinations: [{match: {kuma.io/service: echo}}]\nconf: {%s}\n", kind, name, conf)}, seen: byWorkload, want: [2]string{"200 v1", "200 v1"}}
	}
	selected := func(name, kind, rest string) [2]string {
		return [2]string{base(name), base(name) + fmt.Sprintf("---\ntype: %s\nmesh: default\nname: churn-%s\nselectors: [{match: {kuma.io/service: edge}}]\nconf: %s", kind, name, rest)}
	}
	toHealthBy := func(name, match, filters string) string {
		return gatewayRoute("churn-"+name, "", "      - matches: [{path: {match: PREFIX, value: "+match+"}}]\n"+filters+toHealth)
	}
	check, err := proto.Marshal(&healthv1.HealthCheckRequest{Service: "orders"})
	if err != nil {
		f.t.Fatal(err)
	}
	bytesTo := func(name, version string) string {
		return strings.Replace(bytesRoute("churn-"+name, "", "{destination: {kuma.io/service: echo, version: "+version+"}}"), "kuma.io/service: edge", "bytes: "+name, 1)
	}
	const tlsPort, bytesPort, tlsBytesPort = 8443, 5432, 5433
	return []churn{
		beyond("balance", "TrafficRoute", "destination: {kuma.io/service: echo}, loadBalancer: {maglev: {}}"),
		beyond("breaker", "CircuitBreaker", "thresholds: {maxRequests: 1000}"),
		beyond("timeout", "Timeout", "connectTimeout: 3s, http: {requestTimeout: 9s}"),
		beyond("retry", "Retry", "http: {numRetries: 2}"),
		beyond("health", "HealthCheck", "interval: 1s, timeout: 20s, unhealthyThreshold: 3, healthyThreshold: 1, http: {path: /}"),
		beyond("injection", "FaultInjection", "delay: {value: 1ms, percentage: 100}"),
		beyond("log", "TrafficLog", "backend: churn"),
		{name: "locality", documents: [2]string{base("locality"), base("locality") + "---\n" + strings.Replace(locality("  localFirst: false\n  weights: {east: 1}\n"), "name: echo", "name: churn-locality", 1)},
			seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "trace", documents: selected("trace", "MeshTrafficTrace", fmt.Sprintf("{backend: {zipkin: {url: 'http://%s/api/v2/spans'}}, sampling: 100}\n", beside.spans)), seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "template", documents: selected("template", "ProxyTemplate", "\n  patches: [{type: route, match: {origin: gateway}, mergePatch: {response_headers_to_add: [{header: {key: x-template, value: t}}]}}]\n"),
			seen: byAnswerHeader("X-Template"), want: [2]string{"200 ", "200 t"}},
		{name: "outside", documents: [2]string{base("outside"), churnRoute("outside", "        backends: [{destination: {kuma.io/service: outside}}]\n") + "---\n" +
			"type: ExternalService\nmesh: default\nname: outside\ntags: {kuma.io/service: outside, kuma.io/protocol: http}\nnetworking: {address: '" + beside.outside + "'}\n"},
			seen: byWorkload, want: [2]string{"200 v1", "200 outside"}},
		{name: "composition", documents: [2]string{base("composition"), base("composition") + "---\ntype: Composition\nmesh: default\nname: churn-composition\nselectors: [{match: {kuma.io/service: edge}}]\n" +
			"conf: {path: /composition, calls: [{name: one, destination: {kuma.io/service: echo, version: v2}}]}\n"},
			seen: byAnswerHeader("Content-Type"), want: [2]string{"200 text/plain; charset=utf-8", "200 application/json"}},
		{name: "key", documents: [2]string{base("key"), with("key", "{apiKey: {credentials: [{secret: churn-keys}], keySources: [{header: x-api-key}]}}")}, seen: byWorkload, want: [2]string{"200 v1", "401 "}},
		{name: "password", documents: [2]string{base("password"), with("password", "{basicAuth: {secret: churn-users, usernameHeader: x-user}}")}, header: basic("ann", "hush"),
			seen: byRequestHeader("X-User"), want: [2]string{"200 ", "200 ann"}},
		{name: "asked", documents: [2]string{base("asked"), with("asked", "{extAuth: {http: {target: {url: 'http://"+beside.judge+"'}}}}")}, seen: byWorkload, want: [2]string{"200 v1", "403 "}},
		{name: "login", documents: [2]string{base("login"), with("login", "{oidc: {authorizationEndpoint: 'https://login.example.com/authorize', tokenEndpoint: {uri: 'https://login.example.com/token'}, "+
			"clientId: shop, clientSecret: {secret: churn-client}}}")}, seen: byWorkload, want: [2]string{"200 v1", "302 "}},
		{name: "module", documents: [2]string{base("module"), with("module", "{wasm: {module: {inline: "+base64.StdEncoding.EncodeToString(tinyModule())+"}}}")},
			seen: byAnswerHeader("X-Tiny"), want: [2]string{"200 ", "200 yes"}},
		{name: "processor", documents: [2]string{base("processor"), with("processor", "{extProc: {target: {url: 'http://"+beside.processor+"'}, request: {headers: SEND}}}")},
			seen: byRequestHeader("X-Proc"), want: [2]string{"200 ", "200 request"}},
		{name: "service", documents: [2]string{base("service"), with("service", "{service: {target: {url: 'http://"+beside.transformer+"'}, response: true}}")},
			seen: byAnswerHeader("Content-Type"), want: [2]string{"200 text/plain; charset=utf-8", "200 text/upper"}},
		{name: "transcode", documents: [2]string{toHealthBy("transcode", "/transcode", ""), toHealthBy("transcode", "/transcode", "        filters: [{transcode: {services: [grpc.health.v1.Health], "+
			"descriptor: {secret: churn-descriptor}}}]\n")}, path: "/transcode/orders", seen: byAnswerHeader("Content-Type"), want: [2]string{"415 application/grpc", "200 application/json"}},
		{name: "web", documents: [2]string{toHealthBy("web", "/grpc.health.v1.Health", ""), toHealthBy("web", "/grpc.health.v1.Health", "        filters: [{type: GRPC_WEB}]\n")},
			path: "/grpc.health.v1.Health/Check", method: http.MethodPost, header: []string{"Content-Type", "application/grpc-web+proto", "X-Grpc-Web", "1"}, body: frame(0, check),
			seen: byAnswerHeader("Content-Type"), want: [2]string{"415 application/grpc", "200 application/grpc-web+proto"}},
		{name: "certificate", documents: [2]string{base("certificate") + "---\n" + beside.certificates[0], base("certificate") + "---\n" + beside.certificates[1]},
			place: "https://" + f.at(10, tlsPort), apart: true, seen: func(r *http.Response, a answer) string {
				return fmt.Sprintf("%d %s by %s", r.StatusCode, a.Workload, r.TLS.PeerCertificates[0].SerialNumber)
			}, want: [2]string{"200 v1 by 1", "200 v1 by 2"}},
		{name: "plain", documents: [2]string{bytesTo("plain", "v1"), bytesTo("plain", "v2")}, place: "http://" + f.at(10, bytesPort), apart: true, seen: byWorkload, want: [2]string{"200 v1", "200 v2"}},
		{name: "tls", documents: [2]string{bytesTo("tls", "v1"), bytesTo("tls", "v2")}, place: "https://" + f.at(10, tlsBytesPort), apart: true, seen: byWorkload, want: [2]string{"200 v1", "200 v2"}},
	}
}

// beside are the others that functions need, with their addresses and documents.
type beside struct {
	spans, outside, judge, processor, transformer string
	certificates                                  [2]string
}

// startBeside runs them, and applies the listeners and secrets of the edge that stay.
func (f *federation) startBeside() beside {
	f.t.Helper()
	b := beside{outside: f.at(60, 8080), judge: f.at(61, 9000), spans: f.at(62, 9411), transformer: f.at(63, 8080), processor: f.at(64, 9000)}
	f.workload(b.outside, "outside", nil)
	f.serve(b.judge, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	f.startSpans(b.spans)
	f.serve(b.transformer, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/upper")
		// The server stops to read once it answers.
		if body, err := io.ReadAll(r.Body); err == nil {
			_, _ = w.Write(body)
		}
	}))
	f.startProcessor(b.processor)
	f.startGRPC(f.at(33, 8080)).SetServingStatus("orders", healthv1.HealthCheckResponse_SERVING)
	f.startProxy("east", 2, "health", sidecarDocument("default", "health", f.host(33), inboundOf("health", "grpc", f.host(33), 8080, "")), f.serviceToken("health"))
	for i := range b.certificates {
		chain, key := certificate(f.t, int64(i+1), "api.example.com")
		b.certificates[i] = secretDocument("churn-tls", chain, key)
	}
	chain, key := certificate(f.t, 3, "api.example.com")
	f.apply(b.certificates[0], secretDocument("churn-bytes", chain, key), secretDocument("churn-keys", []byte("acme: hush\n")), secretDocument("churn-users", []byte(htpasswd("ann", "hush"))),
		secretDocument("churn-client", []byte("open sesame\n")), secretDocument("churn-descriptor", healthDescriptor(f.t, "/transcode/{service}", "")), churnGateway,
		// A first backend and a first collector drain connections, as the docs say, and so are there from the beginning. The log has what
		// Envoy thinks of each answer, for those that nothing explains.
		fmt.Sprintf("%slogging:\n  backends: [{name: churn, type: file, conf: {path: %q}, format: '%%REQ(X-CHURN-REQUEST)%% %%START_TIME%% %%DURATION%%ms %%ROUTE_NAME%% to %%UPSTREAM_CLUSTER%% "+
			"%%RESPONSE_CODE%% %%RESPONSE_FLAGS%% %%RESPONSE_CODE_DETAILS%% %%UPSTREAM_TRANSPORT_FAILURE_REASON%% %%CONNECTION_TERMINATION_DETAILS%%'}]\n", strictMesh, f.churnLog()),
		trafficLog("churn", "edge", "*", "{backend: churn}"), trace("MeshTrafficTrace", "churn", fmt.Sprintf("{backend: {zipkin: {url: 'http://%s/api/v2/spans'}}, sampling: 0}", b.spans)))
	f.settled("east", churnProxies)
	return b
}

// churnProxies is how many proxies run.
const churnProxies = 4

func (f *federation) churnLog() string { return f.path("churn.log") }
