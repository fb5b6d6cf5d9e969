package e2e

import (
	"bytes"
	"encoding/base64"
	bigendian "encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// frame is a message of gRPC, or with flag 0x80 the trailers of gRPC-Web.
func frame(flag byte, data []byte) []byte {
	return append(bigendian.BigEndian.AppendUint32([]byte{flag}, uint32(len(data))), data...) // #nosec G115 -- a few bytes
}

// frames takes a body of gRPC-Web apart.
func frames(body []byte) (messages [][]byte, trailers string, err error) {
	for len(body) > 0 {
		if len(body) < 5 || len(body) < 5+int(bigendian.BigEndian.Uint32(body[1:])) {
			return nil, "", io.ErrUnexpectedEOF
		}
		flag, n := body[0], 5+int(bigendian.BigEndian.Uint32(body[1:]))
		if flag&0x80 != 0 {
			trailers += string(body[5:n])
		} else {
			messages = append(messages, body[5:n])
		}
		body = body[n:]
	}
	return messages, trailers, nil
}

// pieces undoes base64 that was written, and padded, piece by piece.
func pieces(text []byte) ([]byte, error) {
	var out []byte
	for len(text) >= 4 {
		piece, err := base64.StdEncoding.DecodeString(string(text[:4]))
		if err != nil {
			return nil, err
		}
		out, text = append(out, piece...), text[4:]
	}
	if len(text) > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return out, nil
}

// TestGRPCWeb speaks gRPC-Web as a browser does, over HTTP/1.1: binary and text, from another origin.
func TestGRPCWeb(t *testing.T) {
	f, _ := startHealth(t)
	client := newClient(t)
	url := "http://" + f.at(10, 8080) + "/grpc.health.v1.Health/"
	const origin = "https://app.example.com"
	f.apply(gatewayRoute("web", "", "      - matches: [{path: {match: PREFIX, value: /grpc.health.v1.Health}}]\n"+
		"        filters:\n          - type: GRPC_WEB\n          - cors: {allowOrigins: [{exact: '"+origin+"'}], allowMethods: [POST], allowHeaders: [content-type, x-grpc-web, x-user-agent, grpc-timeout], exposeHeaders: [grpc-status, grpc-message]}\n"+toHealth))

	preflight := []string{"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type,x-grpc-web"}
	f.await("the preflight", func() error {
		r, _, err := send(client, "OPTIONS", url+"Check", nil, preflight...)
		if err == nil && (r.StatusCode != http.StatusOK || r.Header.Get("Access-Control-Allow-Origin") != origin || !strings.Contains(r.Header.Get("Access-Control-Allow-Headers"), "x-grpc-web")) {
			err = fmt.Errorf("%d %v", r.StatusCode, r.Header)
		}
		return err
	})

	for _, text := range []bool{false, true} {
		for service, want := range map[string]string{"orders": "SERVING", "stock": "NOT_SERVING", "nothing": ""} {
			message, err := proto.Marshal(&healthv1.HealthCheckRequest{Service: service})
			if err != nil {
				t.Fatal(err)
			}
			kind, body := "application/grpc-web+proto", frame(0, message)
			if text {
				kind, body = "application/grpc-web-text+proto", []byte(base64.StdEncoding.EncodeToString(body))
			}
			r, body, err := send(client, "POST", url+"Check", body, "Content-Type", kind, "Accept", kind, "X-Grpc-Web", "1", "Origin", origin)
			if err != nil {
				t.Fatal(err)
			}
			if text {
				if body, err = pieces(body); err != nil {
					t.Fatal(err)
				}
			}
			messages, trailers, err := frames(body)
			if err != nil || r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != kind || r.Header.Get("Access-Control-Allow-Origin") != origin {
				t.Fatalf("%s of %s: %d %v %q: %v", kind, service, r.StatusCode, r.Header, body, err)
			}
			if want == "" {
				if status := r.Header.Get("Grpc-Status") + trailers; len(messages) > 0 || !strings.Contains(status, "5") {
					t.Errorf("%s of %s: %d messages, %v, %q", kind, service, len(messages), r.Header, trailers)
				}
				continue
			}
			answer := &healthv1.HealthCheckResponse{}
			if len(messages) != 1 || proto.Unmarshal(messages[0], answer) != nil || answer.GetStatus().String() != want || !strings.Contains(trailers, "grpc-status:0") {
				t.Errorf("%s of %s: %d messages, %v, trailers %q, want %s", kind, service, len(messages), answer, trailers, want)
			}
		}
	}

	// A stream comes message by message, and a browser may leave it.
	request, err := http.NewRequestWithContext(t.Context(), "POST", url+"Watch", bytes.NewReader(frame(0, []byte{0x0a, 6, 'o', 'r', 'd', 'e', 'r', 's'})))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc-web+proto")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 7)
	if _, err := io.ReadFull(response.Body, first); err != nil || !bytes.Equal(first, frame(0, []byte{0x08, 1})) {
		t.Errorf("the stream begins with %v: %v", first, err)
	}
	_ = response.Body.Close()
}
