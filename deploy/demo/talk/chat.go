package talk

import (
	"net/http"

	"github.com/coder/websocket"
)

// Chat takes WebSockets and sends every message back until one says "stop".
func Chat(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if string(message) == "stop" {
			_ = conn.Close(websocket.StatusNormalClosure, "stopped") // the client may be gone
			return
		}
		if err := conn.Write(r.Context(), kind, append([]byte("again: "), message...)); err != nil {
			return
		}
	}
}
