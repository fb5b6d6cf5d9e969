package zone

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// greetings is how many handshakes are computed at once for each processor. Less would have those that come wait for all that those do who are
// there, and Envoy gives up a connection after 5 s; more are only in the way of all else.
const greetings = 16

// greeter has the handshakes of TLS come one after another when thousands of proxies come back at once. All of them under way together
// would be thousands of goroutines that each processor goes around between two steps of anything else, a health check among them, and
// each keeps what it has computed until it ends.
type greeter struct {
	credentials.TransportCredentials
	room  chan struct{}
	ended <-chan struct{}
	// waiting counts those that wait for their turn.
	waiting atomic.Int64
}

// newGreeter makes one that lets nobody in any more once ended is closed.
func newGreeter(ended <-chan struct{}) *greeter {
	return &greeter{room: make(chan struct{}, greetings*runtime.GOMAXPROCS(0)), ended: ended}
}

// bind has the handshakes of credentials made with a configuration take turns.
func (g *greeter) bind(config *tls.Config, credentials func(*tls.Config) credentials.TransportCredentials) credentials.TransportCredentials {
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, ok := hello.Conn.(*greeting); ok {
			return nil, c.enter()
		}
		return nil, nil
	}
	g.TransportCredentials = credentials(config)
	return g
}

// ServerHandshake is credentials.TransportCredentials's.
func (g *greeter) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := &greeting{Conn: raw, greeter: g}
	defer c.leave()
	return g.TransportCredentials.ServerHandshake(c)
}

// greeting is the connection of a handshake. Its turn begins when the client has said all that there is to answer, and ends when that is
// answered: so whoever says nothing keeps nobody waiting.
type greeting struct {
	net.Conn
	greeter *greeter
	// inside is for the handshake's goroutine, and false after it.
	inside bool
}

var (
	errGone   = errors.New("the proxy gave up before its handshake had its turn")
	errEnding = errors.New("this zone control plane is stopping")
)

func (c *greeting) enter() error {
	select {
	case c.greeter.room <- struct{}{}:
	default:
		c.greeter.waiting.Add(1)
		defer c.greeter.waiting.Add(-1)
		select {
		case c.greeter.room <- struct{}{}:
		case <-c.greeter.ended:
			return errEnding
		}
	}
	c.inside = true
	if gone(c.Conn) {
		return errGone
	}
	return nil
}

func (c *greeting) leave() {
	if c.inside {
		c.inside = false
		<-c.greeter.room
	}
}

// Read is net.Conn's. A handshake that reads waits for the client.
func (c *greeting) Read(p []byte) (int, error) {
	c.leave()
	return c.Conn.Read(p)
}

// NetConn is the connection below.
func (c *greeting) NetConn() net.Conn { return c.Conn }
