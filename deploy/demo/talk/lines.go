// Package talk owns servers that show other protocols than plain requests: bytes over TCP, WebSocket, and gRPC with its health
// service, Envoy's external processing and Envoy's rate limit protocol.
//
// They stand behind sidecars in the demo, and behind gateways in tests. They keep what they know in memory, and are no part of
// what a zone runs.
package talk

import (
	"fmt"
	"net"
)

// maxWord bounds what ServeLines reads of a connection, in bytes.
const maxWord = 64

// ServeLines answers each connection with a name and the bytes that come first, and closes it. It ends when the listener is closed.
func ServeLines(l net.Listener, name string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			word := make([]byte, maxWord)
			if n, err := conn.Read(word); err == nil {
				fmt.Fprintf(conn, "%s: %s", name, word[:n])
			}
		}()
	}
}
