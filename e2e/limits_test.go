package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// limitRule is a rule of a route for a path, with filters as they stand in a list.
func limitRule(path, filters string) string {
	return fmt.Sprintf("      - matches: [{path: {match: PREFIX, value: %s}}]\n        filters: [%s]\n%s", path, filters, toV1)
}

// ended is an answer with its whole body.
type ended struct {
	status int
	header http.Header
	body   string
	took   time.Duration
}

// deliver sends a request with a body, of which the length is not told where chunked is set, and reads the whole answer.
func deliver(t *testing.T, client *http.Client, method, url string, body io.Reader, header ...string) ended {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	began := time.Now()
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return ended{response.StatusCode, response.Header, string(text), time.Since(began)}
}

// statuses sends requests one after the other.
func statuses(t *testing.T, client *http.Client, n int, url string, header ...string) (out []int) {
	t.Helper()
	for range n {
		out = append(out, deliver(t, client, http.MethodGet, url, nil, header...).status)
	}
	return out
}

func wantStatuses(t *testing.T, what string, got []int, want ...int) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestRateLimits counts requests at a real gateway and at the proxy of a service. Intervals are long, so that no token comes
// back while the test runs.
func TestRateLimits(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	route := gatewayRoute("routes", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1)

	t.Run("policy", func(t *testing.T) {
		f.apply(route, `apiVersion: kuma.io/v1alpha1
kind: RateLimit
metadata: {name: api-rate-limit, namespace: kuma-system}
spec:
  mesh: default
  selectors:
    - match:
        kuma.io/service: edge
  conf:
    http:
      - match:
          - path: {match: PREFIX, value: /limited}
        requests: 10
        interval: 24h
        onRateLimit:
          status: 429
          headers:
            - name: X-Rate-Limit-Retry-After
              value: "10"
`)
		f.answers(client, http.StatusOK, "GET", url("/free"))
		wantStatuses(t, "ten of ten", statuses(t, client, 10, url("/limited/a")), 200, 200, 200, 200, 200, 200, 200, 200, 200, 200)
		over := deliver(t, client, "GET", url("/limited/b"), nil)
		if over.status != 429 || over.header.Get("X-Rate-Limit-Retry-After") != "10" {
			t.Errorf("the 11th: %d %v", over.status, over.header)
		}
		wantStatuses(t, "another path", statuses(t, client, 12, url("/free")), 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200)
		// Neither another route nor a change of the limited one begins the count again.
		f.apply(gatewayRoute("unrelated", "other.example.com", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV2))
		f.answers(client, http.StatusOK, "GET", url("/"), "Host", "other.example.com")
		wantStatuses(t, "after another route has come", statuses(t, client, 2, url("/limited")), 429, 429)
		f.apply(gatewayRoute("routes", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV2))
		f.await("the route's new backend", func() error {
			_, a, err := ask(client, "GET", url("/free"))
			if err == nil && a.Workload != "v2" {
				err = fmt.Errorf("answered by %q", a.Workload)
			}
			return err
		})
		wantStatuses(t, "after the route has changed", statuses(t, client, 2, url("/limited")), 429, 429)
		f.cli("delete", "RateLimit", "api-rate-limit", "-m", "default")
		f.answers(client, http.StatusOK, "GET", url("/limited"))
	})

	t.Run("keys", func(t *testing.T) {
		f.apply(gatewayRoute("keys", "keys.example.com",
			limitRule("/key", "{rateLimit: {requests: 2, interval: 24h, keys: [{header: x-api-key}], onRateLimit: {retryAfter: true}, rateLimitHeaders: true}}")+
				limitRule("/few", "{rateLimit: {requests: 1, interval: 24h, keys: [{header: x-api-key}], maxKeys: 2}}")+
				limitRule("/both", "{type: RateLimit, rateLimit: {requests: 1, interval: 24h, keys: [path, {query: user}], onRateLimit: {status: 503}}}")+
				limitRule("/address", "{rateLimit: {requests: 1, interval: 24h, keys: [address]}}")))
		get := func(n int, path string, header ...string) []int {
			return statuses(t, hosted(client, "keys.example.com"), n, url(path), header...)
		}
		f.answers(client, http.StatusOK, "GET", url("/key"), "Host", "keys.example.com", "X-Api-Key", "first")
		for _, key := range []string{"a", "b"} {
			wantStatuses(t, "key "+key, get(3, "/key", "X-Api-Key", key), 200, 200, 429)
		}
		wantStatuses(t, "without a key", get(3, "/key"), 200, 200, 429)
		over := deliver(t, hosted(client, "keys.example.com"), "GET", url("/key"), nil, "X-Api-Key", "a")
		if h := over.header; h.Get("Retry-After") == "" || h.Get("X-Ratelimit-Limit") != "2" || h.Get("X-Ratelimit-Remaining") != "0" || h.Get("X-Ratelimit-Reset") == "" {
			t.Errorf("headers of a refusal: %v", over.header)
		}
		within := deliver(t, hosted(client, "keys.example.com"), "GET", url("/key"), nil, "X-Api-Key", "c")
		if within.status != 200 || within.header.Get("X-Ratelimit-Remaining") != "1" {
			t.Errorf("headers within the limit: %d %v", within.status, within.header)
		}
		// Two keys are kept: the third makes the first be forgotten, and with it that it had its request.
		for _, key := range []string{"a", "b", "c"} {
			wantStatuses(t, "key "+key, get(1, "/few", "X-Api-Key", key), 200)
		}
		wantStatuses(t, "the last key", get(1, "/few", "X-Api-Key", "c"), 429)
		wantStatuses(t, "the forgotten key", get(1, "/few", "X-Api-Key", "a"), 200)
		for _, c := range []struct {
			path string
			want int
		}{{"/both/x?user=1", 200}, {"/both/x?user=1&more=2", 503}, {"/both/y?user=1", 200}, {"/both/x?user=2", 200}, {"/both/x", 200}, {"/both/y", 503}} {
			wantStatuses(t, c.path, get(1, c.path), c.want)
		}
		wantStatuses(t, "one address", get(2, "/address"), 200, 429)
		wantStatuses(t, "an address that the client claims", get(1, "/address", "X-Forwarded-For", "192.0.2.1"), 429)
	})

	t.Run("client", func(t *testing.T) {
		shop := f.token("shop", "dataplane", "--mesh", "default", "--service", "shop")
		f.startProxy("east", 2, "shop", gatewayDocument("default", "shop", f.host(11)), shop)
		f.apply(strings.ReplaceAll(strings.ReplaceAll(edgeGateway, "edge", "shop"), "8080", "8081"),
			strings.ReplaceAll(gatewayRoute("shop", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1), "kuma.io/service: edge", "kuma.io/service: shop"), route,
			`apiVersion: kuma.io/v1alpha1
kind: RateLimit
mesh: default
metadata: {name: from-edge}
spec:
  sources: [{match: {kuma.io/service: edge}}]
  destinations: [{match: {kuma.io/service: echo}}]
  conf:
    http:
      requests: 3
      interval: 24h
      onRateLimit:
        status: 423
        headers: [{key: x-kuma-rate-limited, value: "true", append: true}]
`)
		f.settled("east", 4)
		other := "http://" + f.at(11, 8081) + "/"
		f.answers(client, http.StatusOK, "GET", other)
		f.await("the limit of the edge", func() error {
			if r := deliver(t, client, "GET", url("/"), nil); r.status != 423 || r.header.Get("X-Kuma-Rate-Limited") != "true" {
				return fmt.Errorf("%d %v", r.status, r.header)
			}
			return nil
		})
		wantStatuses(t, "another client", statuses(t, client, 5, other), 200, 200, 200, 200, 200)
		// A client can't pretend to be another.
		wantStatuses(t, "a forged client", statuses(t, client, 2, url("/"), "X-Forwarded-Client-Cert", "URI=spiffe://east.default.mesh/shop"), 423, 423)
	})
}

// hosted sends requests to one name.
func hosted(client *http.Client, host string) *http.Client {
	c := *client
	c.Transport = hostTransport{client.Transport, host}
	return &c
}

type hostTransport struct {
	http.RoundTripper
	host string
}

func (h hostTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Host = h.host
	return h.RoundTripper.RoundTrip(r)
}

// TestBodyAndBandwidth bounds bodies at a real gateway.
func TestBodyAndBandwidth(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	var arrived atomic.Int64
	f.workload(f.host(34)+":8080", "sink", map[string]http.HandlerFunc{
		"/small": func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			if err == nil {
				arrived.Add(1)
			}
			fmt.Fprint(w, n)
		},
		"/down": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 200<<10)) },
		"/up": func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		},
	})
	sink := f.token("sink", "dataplane", "--mesh", "default", "--service", "sink")
	f.startProxy("east", 2, "sink", sidecarDocument("default", "sink", f.host(34), inboundOf("sink", "http", f.host(34), 8080, "")), sink)
	f.settled("east", 4)
	rule := func(path, filters string) string {
		return strings.ReplaceAll(limitRule(path, filters), "{kuma.io/service: echo, version: v1}", "{kuma.io/service: sink}")
	}
	f.apply(gatewayRoute("bodies", "", rule("/small", "{bodySize: {max: 1Ki}}")+
		rule("/down", "{bandwidth: {response: 800 kbps}}")+rule("/up", "{bandwidth: {request: 800 kbps}}")))
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.answers(client, http.StatusOK, "GET", url("/small"))

	arrived.Store(0)
	// A reader of which the length isn't known is sent in chunks.
	chunked := func(n int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("x", n))) }
	for _, c := range []struct {
		what string
		body io.Reader
		want int
	}{
		{"at the bound", strings.NewReader(strings.Repeat("x", 1024)), 200},
		{"beyond it", strings.NewReader(strings.Repeat("x", 1025)), 413},
		{"in chunks", chunked(1024), 200},
		{"in chunks beyond it", chunked(64 << 10), 413},
	} {
		if r := deliver(t, client, "POST", url("/small"), c.body); r.status != c.want || c.want == 200 && r.body != "1024" {
			t.Errorf("%s: %d %q, want %d", c.what, r.status, r.body, c.want)
		}
	}
	if n := arrived.Load(); n != 2 {
		t.Errorf("%d whole bodies arrived, want 2", n)
	}

	// 200 KiB at 98 KiB a second take two seconds, less what the bucket holds at first; unbounded they take no tenth of it.
	if r := deliver(t, client, "GET", url("/down"), nil); r.status != 200 || len(r.body) != 200<<10 || r.took < time.Second {
		t.Errorf("response: %d, %d bytes in %s", r.status, len(r.body), r.took)
	}
	if r := deliver(t, client, "POST", url("/up"), strings.NewReader(strings.Repeat("x", 200<<10))); r.status != 200 || r.body != "204800" || r.took < time.Second {
		t.Errorf("request: %d, %s bytes in %s", r.status, r.body, r.took)
	}
}

// TestAdmission has a backend fail, so that the gateway asks less of it.
func TestAdmission(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	var asked atomic.Int64
	f.workload(f.host(34)+":8080", "weak", map[string]http.HandlerFunc{"/fails": func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}})
	weak := f.token("weak", "dataplane", "--mesh", "default", "--service", "weak")
	f.startProxy("east", 2, "weak", sidecarDocument("default", "weak", f.host(34), inboundOf("weak", "http", f.host(34), 8080, "")), weak)
	f.settled("east", 4)
	rule := func(path string) string {
		return strings.ReplaceAll(limitRule(path, "{admission: {minRequestsPerSecond: 0, samplingWindow: 60s}}"), "{kuma.io/service: echo, version: v1}", "{kuma.io/service: weak}")
	}
	f.apply(gatewayRoute("weak", "", rule("/fails")+rule("/works")))
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.answers(client, http.StatusOK, "GET", url("/works"))
	got := map[int]int{}
	n := 100 * f.workers("edge")
	for _, status := range statuses(t, client, n, url("/fails")) {
		got[status]++
	}
	// Each worker refuses with 3/4 or more from its fourth request on. Of the 194 such requests to two workers less than 60 are refused less
	// than once in 10^30.
	if got[500]+got[503] != n || got[503] < 3*n/10 || int64(got[500]) != asked.Load() {
		t.Errorf("answers %v, of which the backend gave %d", got, asked.Load())
	}
	// Each rule has a rate of its own.
	for i, status := range statuses(t, client, 50, url("/works")) {
		if status != 200 {
			t.Errorf("request %d to what works: %d", i, status)
		}
	}
}
