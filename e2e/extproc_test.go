package e2e

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
)

// processor is an external processor: it sets headers, makes bodies upper case, refuses and fails where the path says so.
type processor struct {
	extprocv3.UnimplementedExternalProcessorServer
}

func (processor) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		out := &extprocv3.ProcessingResponse{}
		switch v := r.Request.(type) {
		case *extprocv3.ProcessingRequest_RequestHeaders:
			out.Response = &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{Response: setHeaders("x-proc", "request", "y-proc", "request")}}
			for _, h := range v.RequestHeaders.GetHeaders().GetHeaders() {
				switch string(h.GetRawValue()) {
				case "refuse":
					out.Response = &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
						Status: &typev3.HttpStatus{Code: typev3.StatusCode_Conflict}, Body: []byte("refused by the processor"),
					}}
				case "fail":
					return io.ErrUnexpectedEOF
				case "late":
					<-stream.Context().Done()
					return nil
				}
			}
		case *extprocv3.ProcessingRequest_RequestBody:
			out.Response = &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{Response: newBody(bytes.ToUpper(v.RequestBody.GetBody()))}}
		case *extprocv3.ProcessingRequest_ResponseHeaders:
			out.Response = &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{Response: setHeaders("x-proc", "response")}}
		case *extprocv3.ProcessingRequest_ResponseBody:
			out.Response = &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{Response: newBody(append(v.ResponseBody.GetBody(), '!'))}}
		}
		if err := stream.Send(out); err != nil {
			return err
		}
	}
}

func setHeaders(pairs ...string) *extprocv3.CommonResponse {
	m := &extprocv3.HeaderMutation{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.SetHeaders = append(m.SetHeaders, &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])}, AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return &extprocv3.CommonResponse{HeaderMutation: m}
}

// newBody also sets the length: of a body that is buffered with its headers, Envoy compares them.
func newBody(b []byte) *extprocv3.CommonResponse {
	out := setHeaders("content-length", strconv.Itoa(len(b)))
	out.BodyMutation = &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: b}}
	return out
}

func (f *federation) startProcessor(address string) {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	s := grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(s, processor{})
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
	outside := "target: {url: 'http://" + f.at(62, 9000) + "'}, "
	f.apply(startBodies(f),
		bodiesRoute("bodies", "{extProc: {"+outside+"request: {body: BUFFERED}, response: {headers: SEND, body: BUFFERED}, mutations: {allow: ['x-.*', content-length], deny: [x-other]}}}"),
		bodiesRoute("streamed", "{extProc: {"+outside+"request: {headers: SKIP, body: STREAMED}}}"),
		bodiesRoute("mesh", "{type: EXT_PROC, extProc: {target: {destination: {kuma.io/service: processor}}, request: {headers: SEND}}}"),
		bodiesRoute("open", "{extProc: {"+outside+"request: {headers: SEND}, failOpen: true, timeout: 300ms}}"),
		bodiesRoute("nobody", "{extProc: {target: {url: 'http://"+f.at(63, 9000)+"'}, request: {headers: SEND}}}"),
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
