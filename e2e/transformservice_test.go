package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestTransformService lets a service make bodies of requests and responses, refuse some, fail and be late.
func TestTransformService(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.serve(f.at(61, 8080), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		switch {
		case r.Method != http.MethodPost || r.URL.Path != "/v1/v2" || r.Host != f.at(61, 8080):
			w.WriteHeader(http.StatusNotImplemented)
		case string(body) == "bad":
			http.Error(w, "no such thing", http.StatusUnprocessableEntity)
		case string(body) == "broken":
			w.WriteHeader(http.StatusInternalServerError)
		case string(body) == "late":
			<-r.Context().Done()
		default:
			w.Header().Set("Content-Type", "text/upper")
			_, _ = io.WriteString(w, strings.Join([]string{r.Header.Get("X-Transform"), r.Header.Get("X-Original-Method"), r.Header.Get("X-Original-Path"),
				r.Header.Get("X-Original-Status"), r.Header.Get("Content-Type"), strings.ToUpper(string(body))}, "|"))
		}
	}))
	filter := func(more string) string {
		return "{type: Service, service: {target: {url: 'http://" + f.at(61, 8080) + "'}, path: /v1/v2, " + more + "}}"
	}
	f.apply(startBodies(f), bodiesRoute("requests", filter("request: true, timeout: 500ms")), bodiesRoute("responses", filter("response: true, timeout: 500ms")),
		bodiesRoute("open", filter("request: true, response: true, failOpen: true, timeout: 500ms")))

	const failed = "the transformation service failed\n"
	f.posts(client, url("/requests/raw?q=1"), "abc", http.StatusOK, "request|POST|/requests/raw?q=1||application/json|ABC")
	f.posts(client, url("/requests/raw"), "bad", http.StatusUnprocessableEntity, "no such thing\n")
	f.posts(client, url("/requests/raw"), "broken", http.StatusBadGateway, failed)
	begin := time.Now()
	f.posts(client, url("/requests/raw"), "late", http.StatusBadGateway, failed)
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("a late service was waited for %s", took)
	}
	if r := f.posts(client, url("/responses/raw"), "abc", http.StatusOK, "response|POST|/responses/raw|200|application/json|ABC"); r.Header.Get("Content-Type") != "text/upper" {
		t.Errorf("the response is of type %q", r.Header.Get("Content-Type"))
	}
	f.posts(client, url("/responses/raw"), "broken", http.StatusBadGateway, failed)
	f.posts(client, url("/responses/raw"), "bad", http.StatusBadGateway, failed)
	f.posts(client, url("/open/raw"), "broken", http.StatusOK, "broken")
	f.posts(client, url("/open/raw"), "", http.StatusOK, "")
	f.logs("edge", "transform service "+f.at(61, 8080)+": status 500")
	f.refusesToApply([]string{"needs request: true or response: true"}, bodiesRoute("bad", filter("timeout: 1s")))
}
