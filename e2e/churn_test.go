package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.yaml.in/yaml/v3"
)

// outcome is what a request came to, in a word.
type outcome func(r *http.Response, a answer) string

// churn is one function that is switched between two configurations while requests go on.
type churn struct {
	name string
	// documents are the two configurations; an empty one deletes the resources of the other.
	documents [2]string
	method    string
	path      string
	header    []string
	seen      outcome
	// want are the outcomes under each.
	want [2]string
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

// churns are the functions of the gateway, each on a path of its own.
func churns(f *federation) []churn {
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
		{name: "listener", documents: [2]string{base("listener") + "---\n" + edgeGateway, base("listener") + "---\n" + strings.Replace(edgeGateway, "HTTP}", "HTTP, filters: [{responseHeader: {set: [{name: x-listener, value: l}]}}]}", 1)},
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
			seen: byRequestHeader("X-Transform"), want: [2]string{"200 ", "200 "}},
		{name: "cache", documents: [2]string{base("cache"), with("cache", "{cache: {statusHeader: x-cache}}")}, seen: byAnswerHeader("X-Cache"), want: [2]string{"200 ", "200 MISS"}},
		{name: "balance", documents: [2]string{base("balance"), base("balance") + "---\ntype: TrafficRoute\nmesh: default\nname: churn-balance\nsources: [{match: {kuma.io/service: edge}}]\n" +
			"destinations: [{match: {kuma.io/service: echo}}]\nconf: {destination: {kuma.io/service: echo}, loadBalancer: {maglev: {}}}\n"}, seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "breaker", documents: [2]string{base("breaker"), base("breaker") + "---\ntype: CircuitBreaker\nmesh: default\nname: churn-breaker\nsources: [{match: {kuma.io/service: edge}}]\n" +
			"destinations: [{match: {kuma.io/service: echo}}]\nconf: {thresholds: {maxRequests: 1000}}\n"}, seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "timeout", documents: [2]string{base("timeout"), base("timeout") + "---\ntype: Timeout\nmesh: default\nname: churn-timeout\nsources: [{match: {kuma.io/service: edge}}]\n" +
			"destinations: [{match: {kuma.io/service: echo}}]\nconf: {connectTimeout: 3s, http: {requestTimeout: 9s}}\n"}, seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "retry", documents: [2]string{base("retry"), base("retry") + "---\ntype: Retry\nmesh: default\nname: churn-retry\nsources: [{match: {kuma.io/service: edge}}]\n" +
			"destinations: [{match: {kuma.io/service: echo}}]\nconf: {http: {numRetries: 2}}\n"}, seen: byWorkload, want: [2]string{"200 v1", "200 v1"}},
		{name: "composition", documents: [2]string{base("composition"), base("composition") + "---\ntype: Composition\nmesh: default\nname: churn-composition\nselectors: [{match: {kuma.io/service: edge}}]\n" +
			"conf: {path: /composition, calls: [{name: one, destination: {kuma.io/service: echo, version: v2}}]}\n"},
			seen: byAnswerHeader("Content-Type"), want: [2]string{"200 text/plain; charset=utf-8", "200 application/json"}},
	}
}

// strange is an answer that no configuration explains.
type strange struct{ function, request, told string }

// TestEveryAnswerIsExplained changes functions of the gateway 500 times, one after the other, while requests go on over kept
// connections. Each answer must be one that the configuration before or after explains: of a function that is not being changed, its own.
func TestEveryAnswerIsExplained(t *testing.T) {
	const changes = 500
	f := startEdge(t)
	all := churns(f)
	var first []string
	for _, c := range all {
		first = append(first, c.documents[0])
	}
	f.apply(first...)
	log := f.path("churn.log")
	// What Envoy thinks of each answer, for those that nothing explains.
	f.apply(trafficLog("churn", "edge", "*", fmt.Sprintf("{file: {path: %q}, format: {text: '%%REQ(X-CHURN-REQUEST)%% %%START_TIME%% %%DURATION%%ms %%ROUTE_NAME%% to %%UPSTREAM_CLUSTER%% "+
		"%%RESPONSE_CODE%% %%RESPONSE_FLAGS%% %%RESPONSE_CODE_DETAILS%% %%UPSTREAM_TRANSPORT_FAILURE_REASON%% %%CONNECTION_TERMINATION_DETAILS%%'}}", log)))
	for _, c := range all {
		client := newClient(t)
		f.await(c.name, func() error {
			r, a, err := ask(client, method(c), "http://"+f.at(10, 8080)+"/"+c.name, c.header...)
			if err == nil && c.seen(r, a) != c.want[0] {
				err = fmt.Errorf("%s, want %s", c.seen(r, a), c.want[0])
			}
			return err
		})
	}

	// state holds, for each function, which configuration is in force: 0, 1, or both while it may be either.
	const either = 2
	state := make([]atomic.Int32, len(all))
	var requests atomic.Int64
	var mu sync.Mutex
	var unexplained []strange
	var changing atomic.Value
	changing.Store("nothing had changed")
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for s := range 3 {
		senders.Go(func() {
			// Connections are kept, so that one that a change ended would show.
			client := &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			defer client.CloseIdleConnections()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				i := n % len(all)
				c := all[i]
				id := fmt.Sprintf("%d-%d", s, n)
				before, during := state[i].Load(), changing.Load()
				r, a, err := ask(client, method(c), "http://"+f.at(10, 8080)+"/"+c.name, append([]string{"X-Churn-Request", id}, c.header...)...)
				after := state[i].Load()
				requests.Add(1)
				got := ""
				if err == nil {
					got = c.seen(r, a)
					if (before != 1 || after != 1) && got == c.want[0] || (before != 0 || after != 0) && got == c.want[1] {
						continue
					}
				}
				mu.Lock()
				unexplained = append(unexplained, strange{c.name, id,
					fmt.Sprintf("%q %v %q, with the state %d before and %d after, when %v", got, err, a.Text, before, after, during)})
				mu.Unlock()
			}
		})
	}
	now := make([]int, len(all))
	// Envoy's workers take a change over a moment after it was acknowledged, so a function counts as changing until the next ones are.
	var settling []int
	for n := range changes {
		i := n % len(all)
		state[i].Store(either)
		next := 1 - now[i]
		changing.Store(fmt.Sprintf("change %d was on its way, of %s to %d", n, all[i].name, next))
		f.post(all[i].documents[next], all[i].documents[now[i]])
		f.settled("east", 3)
		now[i] = next
		settling = append(settling, i)
		if len(settling) > 3 {
			state[settling[0]].Store(int32(now[settling[0]]))
			settling = settling[1:]
		}
	}
	close(stop)
	senders.Wait()
	t.Logf("%d changes, %d requests", changes, requests.Load())
	if len(unexplained) > 0 {
		f.end("edge") // writes what is left of the log
		lines, err := fileLines(log)
		for _, u := range unexplained[:min(len(unexplained), 20)] {
			t.Errorf("%s: %s", u.function, u.told)
			for _, l := range lines {
				if strings.HasPrefix(l, u.request+" ") {
					t.Log("Envoy says of it:", l)
				}
			}
		}
		t.Errorf("%d of %d answers are not explained (log: %v)", len(unexplained), requests.Load(), err)
	}
	if requests.Load() < 2*changes {
		t.Errorf("%d requests are too few to tell", requests.Load())
	}
}

func method(c churn) string {
	if c.method != "" {
		return c.method
	}
	return http.MethodGet
}

// post applies a document by REST, and deletes in the same change what the one before held and it doesn't.
func (f *federation) post(document, before string) {
	f.t.Helper()
	type key struct {
		Kind string `json:"kind"`
		Mesh string `json:"mesh"`
		Name string `json:"name"`
	}
	read := func(text string) (list []map[string]any, keys []key) {
		for _, part := range strings.Split(text, "---\n") {
			var one map[string]any
			if err := yaml.Unmarshal([]byte(part), &one); err != nil {
				f.t.Fatal(err)
			}
			list = append(list, one)
			keys = append(keys, key{fmt.Sprint(one["type"]), fmt.Sprint(one["mesh"]), fmt.Sprint(one["name"])})
		}
		return list, keys
	}
	body := struct {
		Resources []map[string]any `json:"resources"`
		Deletes   []key            `json:"deletes,omitempty"`
	}{}
	var has []key
	body.Resources, has = read(document)
	_, had := read(before)
	for _, k := range had {
		gone := true
		for _, h := range has {
			gone = gone && h != k
		}
		if gone {
			body.Deletes = append(body.Deletes, k)
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	code, answer, err := f.rest(http.MethodPost, "/v1/changes", bytes.NewReader(text))
	if err != nil || code/100 != 2 {
		f.t.Fatalf("change: %d %s %v\n%s", code, answer, err, text)
	}
}
