package e2e

import (
	"net"
	"net/http"
	"strings"
	"testing"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"

	"github.com/zoneforge/zoneforge/deploy/demo/talk"
)

func (f *federation) startProcessor(address string) {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	s := grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(s, talk.Processor{})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	f.t.Cleanup(func() { s.Stop(); <-done })
}

// TestExtProc lets gRPC services, one outside the mesh and one within, change requests and responses, refuse, fail and be late.
func TestExtProc(t *testing.T) {
	f := startEdge(t)
	client := newClient(t)
	url := func(path string) string { return "http://" + f.at(10, 8080) + path }
	f.startProcessor(f.at(62, 9000))
	f.startProcessor(f.at(33, 9000))
	f.startProxy("east", 2, "processor", sidecarDocument("default", "processor", f.host(33), inboundOf("processor", "grpc", f.host(33), 9000, "")),
		f.token("processor", "dataplane", "--mesh", "default", "--service", "processor"))
	f.settled("east", 4)
	const long = "20s"
	outside := "target: {url: 'http://" + f.at(62, 9000) + "'}, timeout: " + long + ", "
	f.apply(startBodies(f),
		bodiesRoute("bodies", "{extProc: {"+outside+"request: {body: BUFFERED}, response: {headers: SEND, body: BUFFERED}, mutations: {allow: ['x-.*', content-length], deny: [x-other]}}}"),
		bodiesRoute("streamed", "{extProc: {"+outside+"request: {headers: SKIP, body: STREAMED}}}"),
		bodiesRoute("mesh", "{type: EXT_PROC, extProc: {target: {destination: {kuma.io/service: processor}}, request: {headers: SEND}, timeout: "+long+"}}"),
		bodiesRoute("open", "{extProc: {"+strings.Replace(outside, long, "300ms", 1)+"request: {headers: SEND}, failOpen: true}}"),
		bodiesRoute("nobody", "{extProc: {target: {url: 'http://"+f.at(63, 9000)+"'}, request: {headers: SEND}, timeout: "+long+"}}"),
		bodiesRoute("late", "{extProc: {target: {destination: {kuma.io/service: processor}}, request: {headers: SEND}, timeout: 300ms}}"))

	r := f.posts(client, url("/bodies/raw"), "abc", http.StatusOK, "ABC!")
	if r.Header.Get("X-Proc") != "response" {
		t.Errorf("the response's headers are %v", r.Header)
	}
	f.posts(client, url("/streamed/raw"), "abc", http.StatusOK, "ABC")
	f.posts(client, url("/mesh/raw"), "abc", http.StatusOK, "abc")
	if got := forwarded(t, client, url("/mesh"), "text/plain", "abc"); got.Header.Get("X-Proc") != "request" || got.Header.Get("Y-Proc") != "request" {
		t.Errorf("forwarded with %v", got.Header)
	}
	if r, body, err := post(client, url("/mesh/raw"), "text/plain", "abc", "X-Do", "refuse"); err != nil || r.StatusCode != http.StatusConflict || body != "refused by the processor" {
		t.Errorf("refused: %v %q %v", r, body, err)
	}
	for _, c := range []struct {
		path, do string
		status   int
	}{
		{"/mesh/raw", "fail", http.StatusServiceUnavailable}, {"/open/raw", "fail", http.StatusOK}, {"/open/raw", "late", http.StatusOK},
		{"/late/raw", "late", http.StatusGatewayTimeout}, {"/nobody/raw", "", http.StatusServiceUnavailable},
	} {
		if r, _, err := post(client, url(c.path), "text/plain", "abc", "X-Do", c.do); err != nil || r.StatusCode != c.status {
			t.Errorf("%s %s: %v %v, want %d", c.path, c.do, r, err, c.status)
		}
	}
	// Only what the policy allows is changed.
	f.apply(bodiesRoute("bodies", "{extProc: {"+outside+"request: {headers: SEND}, mutations: {allow: ['x-.*']}}}"))
	f.posts(client, url("/bodies/raw"), "abc", http.StatusOK, "abc")
	if got := forwarded(t, client, url("/bodies"), "text/plain", "abc"); got.Header.Get("X-Proc") != "request" || got.Header.Get("Y-Proc") != "" {
		t.Errorf("forwarded with %v", got.Header)
	}

	// A service that speaks no gRPC is that route's trouble alone.
	f.refusesToApply([]string{"echo speaks no gRPC: give its inbounds kuma.io/protocol: grpc"},
		bodiesRoute("plain", "{extProc: {target: {destination: {kuma.io/service: echo}}, request: {headers: SEND}}}"))
	f.cli("delete", "MeshGatewayRoute", "plain")
	f.refusesToApply([]string{"sends nothing to the service"}, bodiesRoute("bad", "{extProc: {"+outside+"}}"))
	f.posts(client, url("/mesh/raw"), "abc", http.StatusOK, "abc")
}
