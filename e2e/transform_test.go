package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// toBodies leads to the ExternalService behind which startBodies answers.
const toBodies = "        backends: [{destination: {kuma.io/service: bodies}}]\n"

// seen is what the service behind startBodies says of a request.
type seen struct {
	Header http.Header
	Body   string
}

// startBodies serves POSTs at address 60: under /raw, wherever it stands in the path, with the body that came, else with what came.
func startBodies(f *federation) string {
	f.t.Helper()
	f.serve(f.at(60, 8080), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if strings.Contains(r.URL.Path, "/raw") {
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			_, _ = w.Write(body)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(seen{r.Header, string(body)})
	}))
	return fmt.Sprintf("type: ExternalService\nmesh: default\nname: bodies\ntags: {kuma.io/service: bodies, kuma.io/protocol: http}\nnetworking: {address: '%s'}\n", f.at(60, 8080))
}

// serve runs an HTTP server until the test ends.
func (f *federation) serve(address string, h http.Handler) {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	f.t.Cleanup(func() { _ = s.Close(); <-done })
}

// post sends a body and reads the answer.
func post(client *http.Client, url, contentType, body string, header ...string) (*http.Response, string, error) {
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	r.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	out, err := io.ReadAll(response.Body)
	return response, string(out), err
}

// posts waits until a POST of JSON is answered as wanted.
func (f *federation) posts(client *http.Client, url, body string, status int, want string) *http.Response {
	f.t.Helper()
	var last *http.Response
	f.await("POST "+url, func() error {
		r, got, err := post(client, url, "application/json", body)
		if err == nil && (r.StatusCode != status || got != want) {
			err = fmt.Errorf("%d %q, want %d %q", r.StatusCode, got, status, want)
		}
		last = r
		return err
	})
	return last
}

// forwarded sends a body and gives what came to the service.
func forwarded(t *testing.T, client *http.Client, url, contentType, body string, header ...string) seen {
	t.Helper()
	r, got, err := post(client, url, contentType, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	var s seen
	if err := json.Unmarshal([]byte(got), &s); err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %q: %v", url, r.StatusCode, got, err)
	}
	return s
}

// bodiesRoute is a route of the edge to the service behind startBodies with one filter.
func bodiesRoute(name, filter string) string {
	return gatewayRoute(name, "", "      - matches: [{path: {match: PREFIX, value: /"+name+"}}]\n        filters:\n          - "+filter+"\n"+toBodies)
}

// TestTransform changes headers and JSON bodies by templates, and leaves alone what is no JSON object.
func TestTransform(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.apply(startBodies(f),
		bodiesRoute("merge", `{type: Transform, transform: {request: {
              headers: {set: [{name: x-model, value: '%REQUEST_BODY(model)%'}, {name: x-who, value: '%REQUEST_BODY(user:name)% at 100%%'}], remove: [x-gone]},
              body: {merge: '{"user": {"id": "%REQUEST_BODY(user:id)%", "via": "%REQ(x-via)%"}, "added": true}'}}}}`),
		bodiesRoute("replace", `{transform: {response: {headers: {set: [{name: x-total, value: '%RESPONSE_BODY(sum:total)%'}]}, body: {replace: '{"total": "%RESPONSE_BODY(sum:total)%", "list": ["%RESPONSE_BODY(name)%", "%RESPONSE_CODE%"]}'}}}}`),
		bodiesRoute("text", `{transform: {response: {body: {text: "name=%RESPONSE_BODY(name)%\n", contentType: text/plain}}}}`))

	f.posts(client, url("/replace/raw"), `{"name": "a\"b", "sum": {"total": 41.5}, "secret": "s"}`, http.StatusOK, `{"list":["a\"b",200],"total":41.5}`+"\n")
	if r := f.posts(client, url("/text/raw"), `{"name": "n"}`, http.StatusOK, "name=n\n"); r.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("the text is of type %q", r.Header.Get("Content-Type"))
	}
	if r := f.posts(client, url("/replace/raw"), `{"sum": {"total": 7}}`, http.StatusOK, `{"list":[null,200],"total":7}`+"\n"); r.Header.Get("X-Total") != "7" {
		t.Errorf("the response's headers are %v", r.Header)
	}
	got := forwarded(t, client, url("/merge"), "application/json; charset=utf-8", `{"model": "m-1", "user": {"name": "ann", "id": 7, "age": 30}, "kept": [1, 2]}`, "X-Gone", "here", "X-Via", `a "quote"`, "X-Model", "theirs")
	var body, want any
	if err := json.Unmarshal([]byte(got.Body), &body); err != nil {
		t.Fatalf("%q: %v", got.Body, err)
	}
	if err := json.Unmarshal([]byte(`{"model": "m-1", "kept": [1, 2], "added": true, "user": {"id": 7, "via": "a \"quote\""}}`), &want); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(body) != fmt.Sprint(want) {
		t.Errorf("the body is %v, want %v", body, want)
	}
	if h := got.Header; fmt.Sprint(h["X-Model"]) != "[m-1]" || h.Get("X-Who") != "ann at 100%" || len(h["X-Gone"]) != 0 {
		t.Errorf("the request's headers are %v", h)
	}

	// What is no JSON object passes as it is.
	for contentType, body := range map[string]string{"application/json": `{"model": `, "application/json;a": `[{"model": "m"}]`, "text/plain": `{"model": "m"}`} {
		got := forwarded(t, client, url("/merge"), contentType, body, "X-Gone", "here", "X-Model", "theirs")
		if got.Body != body || got.Header.Get("X-Gone") != "here" || got.Header.Get("X-Model") != "theirs" {
			t.Errorf("%s %s came as %q with %v", contentType, body, got.Body, got.Header)
		}
	}

	f.refusesToApply([]string{"unknown command %REQEST_BODY%", "conf.http.rules[0].filters[0].transform.request.body.merge"},
		bodiesRoute("bad", `{transform: {request: {body: {merge: '{"a": "%REQEST_BODY(a)%"}'}}}}`))
	f.posts(client, url("/text/raw"), `{"name": "still"}`, http.StatusOK, "name=still\n")
}
