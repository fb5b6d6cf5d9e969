package talk

import (
	"bytes"
	"errors"
	"io"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// Processor is an external processor: it sets headers, makes bodies upper case, and refuses, fails or is late where a header of the
// request has that value.
type Processor struct {
	extprocv3.UnimplementedExternalProcessorServer
}

// Process answers what Envoy sends of one request.
func (Processor) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
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
