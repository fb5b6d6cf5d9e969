package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// judge decides about requests: those with x-token: good pass. It holds requests while it is slow.
type judge struct {
	authv3.UnimplementedAuthorizationServer
	asked atomic.Int64
	// told is what the last request showed of itself.
	told atomic.Value
	// held closes when those that wait go on; nil while nobody has to wait.
	held atomic.Pointer[chan struct{}]
}

// slow holds requests until quick is called, also those whose time is up: by gRPC the judge knows that time too, and an answer at
// its end would race with the proxy's timer.
func (j *judge) slow() (quick func()) {
	held := make(chan struct{})
	j.held.Store(&held)
	return sync.OnceFunc(func() { j.held.Store(nil); close(held) })
}

func (j *judge) hold() {
	if held := j.held.Load(); held != nil {
		<-*held
	}
}

// ServeHTTP answers as an authorization service by HTTP does.
func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	j.asked.Add(1)
	body, _ := io.ReadAll(r.Body) // what is missing shows below
	j.told.Store(fmt.Sprintf("%s %s host=%s token=%s secret=%s body=%s", r.Method, r.URL, r.Host, r.Header.Get("X-Token"), r.Header.Get("X-Secret"), body))
	j.hold()
	switch r.Header.Get("X-Token") {
	case "good":
		w.Header().Set("X-Subject", "ann")
		w.Header().Set("X-Internal", "judge")
	case "nameless":
	case "broken":
		w.WriteHeader(http.StatusInternalServerError)
	default:
		w.Header().Set("X-Reason", "token")
		w.Header().Set("X-Internal", "judge")
		w.WriteHeader(http.StatusPaymentRequired)
		_, _ = io.WriteString(w, "no token, no answer") // the client sees it
	}
}

// Check answers as one by gRPC does.
func (j *judge) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	j.asked.Add(1)
	h := r.GetAttributes().GetRequest().GetHttp()
	j.told.Store(fmt.Sprintf("%s %s tier=%s token=%s secret=%s body=%s", h.GetMethod(), h.GetPath(), r.GetAttributes().GetContextExtensions()["tier"],
		h.GetHeaders()["x-token"], h.GetHeaders()["x-secret"], h.GetRawBody()))
	j.hold()
	header := func(name, value string) []*corev3.HeaderValueOption {
		return []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}}
	}
	if h.GetHeaders()["x-token"] == "good" {
		return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: header("x-subject", "ann"), HeadersToRemove: []string{"x-secret"}, ResponseHeadersToAdd: header("x-judged", "yes")}}}, nil
	}
	return &authv3.CheckResponse{Status: &status.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
		DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_PaymentRequired}, Headers: header("x-reason", "token"), Body: "no token, no answer"}}}, nil
}

// startJudges runs the service by HTTP and by gRPC, the latter as a workload of the mesh; stop ends them.
func startJudges(f *federation) (j *judge, stop func()) {
	f.t.Helper()
	j = &judge{}
	j.told.Store("")
	listen := func(port int) net.Listener {
		l, err := net.Listen("tcp", f.at(40, port))
		if err != nil {
			f.t.Fatal(err)
		}
		return l
	}
	http := &httptest.Server{Listener: listen(9000), Config: &http.Server{Handler: j}}
	http.Start()
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, j)
	served := make(chan struct{})
	l := listen(9001)
	go func() { defer close(served); _ = server.Serve(l) }()
	stop = func() { http.CloseClientConnections(); http.Close(); server.Stop(); <-served }
	f.t.Cleanup(stop)
	f.startProxy("east", 2, "authz", sidecarDocument("default", "authz", f.host(40), inboundOf("authz", "grpc", f.host(40), 9001, "")),
		f.token("authz", "dataplane", "--mesh", "default", "--service", "authz"))
	f.settled("east", 4)
	return j, stop
}

// postAs sends a body, and gives the answer with its text.
func postAs(t *testing.T, client *http.Client, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

// TestExtAuth asks real services by HTTP and gRPC about each request: they let pass, refuse with headers and a body, fail, take too
// long and are gone.
func TestExtAuth(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	j, stop := startJudges(f)
	byHTTP := fmt.Sprintf("http: {target: {url: 'http://%s'}, pathPrefix: /check, requestHeaders: [x-token], backendHeaders: [x-subject], clientHeaders: [x-reason]}", f.at(40, 9000))
	const byGRPC = "grpc: {target: {destination: {kuma.io/service: authz}}, requestHeaders: [x-token], contextExtensions: {tier: gold}}"
	within := func(timeout string) {
		t.Helper()
		f.apply(gatewayRoute("asked", "",
			guarded("/http", "{type: EXT_AUTH, extAuth: {"+byHTTP+", timeout: "+timeout+", body: {maxBytes: 16}}}")+
				guarded("/http-open", "{extAuth: {"+byHTTP+", timeout: "+timeout+", failOpen: true}}")+
				guarded("/grpc", "{extAuth: {"+byGRPC+", timeout: "+timeout+", statusOnError: 503, body: {maxBytes: 4, allowPartial: true}}}")+
				guarded("/grpc-open", "{extAuth: {"+byGRPC+", timeout: "+timeout+", failOpen: true}}")+
				"      - matches: [{path: {match: PREFIX, value: /free}}]\n"+toV2))
		for _, path := range []string{"/http", "/grpc"} {
			f.answers(client, http.StatusOK, "GET", url(path), "X-Token", "good")
		}
	}
	within("20s")

	for _, c := range []struct {
		path   string
		header []string
		status int
		told   string
	}{
		{"/http/a?b=c", []string{"X-Token", "good", "X-Secret", "s"}, 200, "GET /check/http/a?b=c host=" + f.at(10, 8080) + " token=good secret= body="},
		{"/http", []string{"X-Token", "bad"}, 402, "GET /check/http host=" + f.at(10, 8080) + " token=bad secret= body="},
		{"/http", []string{"X-Token", "broken"}, 403, ""},
		{"/http-open", []string{"X-Token", "broken"}, 200, ""},
		{"/http-open", []string{"X-Token", "bad"}, 402, ""},
		{"/grpc/a?b=c", []string{"X-Token", "good", "X-Secret", "s"}, 200, "GET /grpc/a?b=c tier=gold token=good secret= body="},
		{"/grpc", []string{"X-Token", "bad"}, 402, ""},
		{"/grpc-open", []string{"X-Token", "bad"}, 402, ""},
	} {
		// The client claims what only the service may say.
		r, a, err := ask(client, "GET", url(c.path), append(c.header, "X-Subject", "eve", "X-Envoy-Auth-Failure-Mode-Allowed", "true")...)
		if err != nil {
			t.Fatal(err)
		}
		if told := j.told.Load().(string); r.StatusCode != c.status || c.told != "" && told != c.told {
			t.Errorf("%s %v: %d, and the service saw %q; want %d and %q", c.path, c.header, r.StatusCode, told, c.status, c.told)
		}
		switch passed := c.header[1] == "good"; {
		case passed && (strings.Join(a.Header["X-Subject"], ",") != "ann" || a.Header.Get("X-Internal") != ""):
			t.Errorf("%s: the backend sees %v", c.path, a.Header)
		case passed && strings.HasPrefix(c.path, "/grpc") && (a.Header.Get("X-Secret") != "" || r.Header.Get("X-Judged") != "yes"):
			t.Errorf("%s: the backend sees %v, the client %v", c.path, a.Header, r.Header)
		case c.status == 402 && (r.Header.Get("X-Reason") != "token" || r.Header.Get("X-Internal") != ""):
			t.Errorf("%s: the client sees %v", c.path, r.Header)
		}
	}
	if r, text := postAs(t, client, url("/http"), ""); r.StatusCode != 402 || text != "no token, no answer" {
		t.Errorf("a refusal is %d %q", r.StatusCode, text)
	}
	_, a, err := ask(client, "GET", url("/http"), "X-Token", "nameless", "X-Subject", "eve")
	if err != nil || a.Workload != "v1" || a.Header.Get("X-Subject") != "" {
		t.Errorf("the client named itself to the backend: %v %v", a.Header, err)
	}

	// Bodies are sent along up to their bound.
	if r, _ := postAs(t, client, url("/http"), "sixteen bytes ok", "X-Token", "good"); r.StatusCode != 200 || !strings.HasSuffix(j.told.Load().(string), "body=sixteen bytes ok") {
		t.Errorf("with a body: %d, and the service saw %q", r.StatusCode, j.told.Load())
	}
	before := j.asked.Load()
	if r, _ := postAs(t, client, url("/http"), "seventeen bytes no", "X-Token", "good"); r.StatusCode != http.StatusRequestEntityTooLarge || j.asked.Load() != before {
		t.Errorf("with a longer body: %d, and the service was asked %d times", r.StatusCode, j.asked.Load()-before)
	}
	if r, _ := postAs(t, client, url("/grpc"), "more than four", "X-Token", "good"); r.StatusCode != 200 || !strings.HasSuffix(j.told.Load().(string), "body=more") {
		t.Errorf("with the beginning of a body: %d, and the service saw %q", r.StatusCode, j.told.Load())
	}

	fails := func(why string) {
		t.Helper()
		for path, code := range map[string]int{"/http": 403, "/grpc": 503, "/http-open": 200, "/grpc-open": 200, "/free": 200} {
			r, a, err := ask(client, "GET", url(path), "X-Token", "good", "X-Subject", "eve")
			if err != nil || r.StatusCode != code {
				t.Errorf("%s: %s: %v %v, want %d", why, path, r, err, code)
				continue
			}
			if open := strings.HasSuffix(path, "-open"); open != (a.Header.Get("X-Envoy-Auth-Failure-Mode-Allowed") == "true") || path == "/http-open" && a.Header.Get("X-Subject") != "" {
				t.Errorf("%s: %s: the backend sees %v", why, path, a.Header)
			}
		}
	}
	within("500ms")
	quick := j.slow()
	defer quick()
	fails("too slow")
	quick()
	f.answers(client, http.StatusOK, "GET", url("/http"), "X-Token", "good")
	f.answers(client, http.StatusOK, "GET", url("/grpc"), "X-Token", "good")
	stop()
	fails("gone")
}

// TestGatewayPermission holds that a workload takes a gateway's requests only where a permission names the gateway, and so does a
// service that is asked about requests.
func TestGatewayPermission(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	startJudges(f)
	f.apply(gatewayRoute("open", "", "      - matches: [{path: {match: PREFIX, value: /}}]\n"+toV1+
		guarded("/asked", "{extAuth: {grpc: {target: {destination: {kuma.io/service: authz}}}, statusOnError: 503}}")))
	f.answers(client, http.StatusOK, "GET", url("/"))
	f.answers(client, http.StatusOK, "GET", url("/asked"), "X-Token", "good")

	f.apply(permit("default", "edge-to-echo", "edge", "echo", "ALLOW"))
	f.cli("delete", "tp", "all")
	f.answers(client, http.StatusServiceUnavailable, "GET", url("/asked"), "X-Token", "good")
	f.answers(client, http.StatusOK, "GET", url("/"))
	f.apply(permit("default", "edge-to-authz", "edge", "authz", "ALLOW"))
	f.answers(client, http.StatusOK, "GET", url("/asked"), "X-Token", "good")
	f.apply(permit("default", "edge-to-echo", "other", "echo", "ALLOW"))
	f.answers(client, http.StatusForbidden, "GET", url("/"))
	f.answers(client, http.StatusForbidden, "GET", url("/asked"), "X-Token", "good")
}
