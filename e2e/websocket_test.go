package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"github.com/zoneforge/zoneforge/deploy/demo/talk"
)

func exchange(ctx context.Context, conn *websocket.Conn, message string) error {
	if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		return err
	}
	_, got, err := conn.Read(ctx)
	if err == nil && string(got) != "again: "+message {
		err = fmt.Errorf("%q", got)
	}
	return err
}

// TestWebSocket turns requests into WebSockets: through the gateway to another zone, and from a workload through its sidecar. They
// outlive the timeout of requests.
func TestWebSocket(t *testing.T) {
	const timeout = 500 * time.Millisecond
	f := startAcross(t, edgeGateway, permit("default", "client", "client", "*", "ALLOW"),
		gatewayRoute("chat", "", "      - backends: [{destination: {kuma.io/service: chat}}]\n"),
		fmt.Sprintf("type: Timeout\nmesh: default\nname: short\nsources: [{match: {kuma.io/service: '*'}}]\ndestinations: [{match: {kuma.io/service: chat}}]\nconf: {http: {requestTimeout: %s}}\n", timeout))
	slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	f.workload(f.at(31, 8080), "chat", map[string]http.HandlerFunc{"/chat": talk.Chat, "/slow": slow})
	f.startInWest("chat", "chat", "http", 31, "")
	f.startProxy("east", 2, "client", sidecarDocument("default", "client", f.host(40), inboundOf("client", "http", f.host(40), 8080, "")+
		fmt.Sprintf("  outbound:\n    - {port: 7001, address: %s, tags: {kuma.io/service: chat}}\n", f.host(40))), f.token("client", "dataplane", "--mesh", "default", "--service", "client"))
	f.settled("west", 2)
	f.settled("east", 2)

	for name, address := range map[string]string{"gateway": f.at(10, 8080), "sidecar": f.at(40, 7001)} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), awaitTime)
			defer cancel()
			var conn *websocket.Conn
			f.await("a WebSocket", func() (err error) {
				conn, _, err = websocket.Dial(ctx, "ws://"+address+"/chat", nil)
				return err
			})
			defer conn.CloseNow()
			begin := time.Now()
			if err := exchange(ctx, conn, "one"); err != nil {
				t.Fatal(err)
			}
			// A request beside it that is as old meets its timeout.
			r, _, err := ask(newClient(t), "GET", "http://"+address+"/slow")
			if err != nil || r.StatusCode != http.StatusGatewayTimeout {
				t.Fatalf("the request's timeout is not in force: %v: %v", r, err)
			}
			for i := 0; time.Since(begin) < 4*timeout; i++ {
				if err := exchange(ctx, conn, fmt.Sprint(i)); err != nil {
					t.Fatalf("after %s: %v", time.Since(begin), err)
				}
			}
			if err := conn.Write(ctx, websocket.MessageText, []byte("stop")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := conn.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Errorf("it ends with %v", err)
			}
		})
	}

	// Browsers of HTTP/2 would use extended CONNECT where it is offered, and workloads of HTTP/1.1 refuse what comes of it.
	transport := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, f.at(10, 8080))
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "http://"+f.at(10, 8080)+"/chat", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header[":protocol"] = []string{"websocket"}
	response, err := transport.RoundTrip(r)
	if err == nil {
		response.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "extended connect not supported") {
		t.Errorf("the gateway offers extended CONNECT: %v", err)
	}
}
