package overload

import (
	"net/http"
	"time"
)

// maxHead bounds the head of a request, in bytes.
const maxHead = 64 << 10

// Patience is how long an HTTP server waits for who is slow, on purpose or not, before it ends the connection.
type Patience struct {
	// Head is for the handshake of TLS and for the head of a request, and Request for all of a request.
	Head, Request time.Duration
	// Answer is from the head of a request until its answer has been taken.
	Answer time.Duration
	// Idle is for a connection between two requests.
	Idle time.Duration
}

// Bind sets the bounds of a server that doesn't serve yet.
func (p Patience) Bind(s *http.Server) {
	s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout, s.MaxHeaderBytes = p.Head, p.Request, p.Answer, p.Idle, maxHead
}
