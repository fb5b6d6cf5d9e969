package e2e

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// startExtendedConnect serves WebSockets by HTTP/2 alone (RFC 8441), one connection after the other and each frame of a message back
// as it came. asked counts the requests with their :protocol.
func (f *federation) startExtendedConnect(address string, asked chan<- string) {
	f.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = extendedConnect(conn, asked) // the client ends it
			}()
		}
	}()
}

func extendedConnect(conn net.Conn, asked chan<- string) error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}); err != nil {
		return err
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = framer.WritePing(true, frame.Data)
			}
		case *http2.MetaHeadersFrame:
			asked <- frame.PseudoValue("method") + " " + frame.PseudoValue("protocol") + " " + frame.PseudoValue("path")
			var block bytes.Buffer
			encoder := hpack.NewEncoder(&block)
			err = encoder.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
			// The client speaks HTTP/1.1 and wants its key answered (RFC 6455, section 4.2.2), which Envoy leaves to the workload.
			for _, h := range frame.RegularFields() {
				if h.Name == "sec-websocket-key" {
					sum := sha1.Sum([]byte(h.Value + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
					err = errors.Join(err, encoder.WriteField(hpack.HeaderField{Name: "sec-websocket-accept", Value: base64.StdEncoding.EncodeToString(sum[:])}))
				}
			}
			err = errors.Join(err, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: block.Bytes(), EndHeaders: true}))
		case *http2.DataFrame:
			var back []byte
			if back, err = unmasked(frame.Data()); err == nil && len(back) > 0 {
				err = framer.WriteData(frame.StreamID, frame.StreamEnded(), back)
			}
		}
		if err != nil {
			return err
		}
	}
}

// unmasked is a client's WebSocket frame as a server would send it (RFC 6455, section 5.2). The test's are short and come whole.
func unmasked(frame []byte) ([]byte, error) {
	if len(frame) == 0 {
		return nil, nil
	}
	if len(frame) < 6 || frame[1] < 0x80 || int(frame[1]&0x7f) != len(frame)-6 {
		return nil, fmt.Errorf("not one short frame of a client: %x", frame)
	}
	out := []byte{frame[0], frame[1] & 0x7f}
	for i, b := range frame[6:] {
		out = append(out, b^frame[2+i%4])
	}
	return out, nil
}

// TestWebSocketToHTTP2 opens WebSockets of HTTP/1.1 clients at a workload that speaks HTTP/2, which takes them as extended CONNECT:
// through the gateway, and from a workload through its sidecar.
func TestWebSocketToHTTP2(t *testing.T) {
	f := startEdge(t)
	f.apply(gatewayRoute("chat", "", "      - backends: [{destination: {kuma.io/service: chat}}]\n"))
	asked := make(chan string, 100)
	f.startExtendedConnect(f.at(34, 8080), asked)
	f.startProxy("east", 2, "chat", sidecarDocument("default", "chat", f.host(34), inboundOf("chat", "http2", f.host(34), 8080, "")), f.serviceToken("chat"))
	f.startProxy("east", 2, "client", sidecarDocument("default", "client", f.host(40), inboundOf("client", "http", f.host(40), 8080, "")+
		fmt.Sprintf("  outbound:\n    - {port: 7001, address: %s, tags: {kuma.io/service: chat}}\n", f.host(40))), f.serviceToken("client"))
	f.settled("east", 5)
	for way, address := range map[string]string{"gateway": f.at(10, 8080), "sidecar": f.at(40, 7001)} {
		t.Run(way, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), awaitTime)
			defer cancel()
			var conn *websocket.Conn
			f.await("a WebSocket", func() (err error) {
				conn, _, err = websocket.Dial(ctx, "ws://"+address+"/chat?room=1", nil)
				return err
			})
			defer conn.CloseNow()
			if got, want := <-asked, "CONNECT websocket /chat?room=1"; got != want {
				t.Errorf("the workload was asked %q, want %q", got, want)
			}
			for i := range 20 {
				message := fmt.Sprintf("message %d", i)
				if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
					t.Fatal(err)
				}
				kind, got, err := conn.Read(ctx)
				if err != nil || kind != websocket.MessageText || string(got) != message {
					t.Fatalf("%q comes back as %q: %v", message, got, err)
				}
			}
		})
	}
}
