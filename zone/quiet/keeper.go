// Package quiet has thousands of connections of HTTP/2 that carry nothing cost next to nothing, while both ends know that the other one is
// there.
//
// Whoever has nothing from a server for half a minute asks it whether it lives, by a ping. Ten thousand who do wake it
// three hundred times a second, each time to read one question and to write one answer. So a Keeper speaks before it is asked: one
// goroutine goes around the connections once a second, a batch at a time, and sends over each a frame that means nothing, which
// puts off the question of the other end. That is one write in place of two wakeups, a read, an answer and a timer. That the machine at the
// other end is gone, the kernel finds: nobody acknowledges the frame. Now and then the frame is a ping, which finds a process that stands still
// while something answers for it.
//
// It decides nothing of what else is sent, never waits for the far end, and never writes into the midst of another frame.
package quiet

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	// rotation is in how many turns of a second each connection has its turn. Proxies ask after 30 s of silence (dataplane.Bootstrap).
	rotation = 27
	// asks is each how manieth frame is a ping. A process that stands still is noticed within (asks + 1) * rotation seconds.
	asks = 6
	// unacknowledged is how long the kernel waits for the far end to acknowledge what was sent. With rotation, which is longer, it bounds
	// when a proxy whose machine is gone is noticed.
	unacknowledged = 10 * time.Second
	// late is a pause between two turns after which this process, not the far end, is taken to have stood still.
	late = 3 * time.Second
)

// Keeper keeps the connections that its Credentials let in. Safe for concurrent use.
type Keeper struct {
	mu sync.Mutex
	// Guarded by mu: the connections by turn, and how many have come.
	slots [rotation]map[*conn]struct{}
	came  int

	// On the goroutine of Run alone: turns counts them, and answers to what was asked until void don't count as missing.
	turns, void uint64
	due         []*conn
}

// New makes a Keeper; it starts nothing.
func New() *Keeper {
	k := &Keeper{}
	for i := range k.slots {
		k.slots[i] = map[*conn]struct{}{}
	}
	return k
}

// Run speaks over the connections until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			k.turn(now.Sub(last) > late)
			last = now
		}
	}
}

// turn goes around the connections whose turn it is. stoodStill says that it comes late, so that answers may be here that nobody has read.
func (k *Keeper) turn(stoodStill bool) {
	k.turns++
	if stoodStill {
		k.void = k.turns
	}
	k.mu.Lock()
	k.due = k.due[:0]
	for c := range k.slots[k.turns%rotation] {
		k.due = append(k.due, c)
	}
	k.mu.Unlock()
	for _, c := range k.due {
		c.speak(k.turns, k.void)
	}
	clear(k.due)
}

func (k *Keeper) add(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.slot = k.came % rotation
	k.came++
	k.slots[c.slot][c] = struct{}{}
}

func (k *Keeper) remove(c *conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.slots[c.slot], c)
}

// Credentials are those of a gRPC server by TLS, whose connections are kept.
func (k *Keeper) Credentials(config *tls.Config) credentials.TransportCredentials {
	return kept{credentials.NewTLS(config), k}
}

type kept struct {
	credentials.TransportCredentials
	keeper *Keeper
}

// ServerHandshake is credentials.TransportCredentials's.
func (k kept) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	socket, known := socketOf(raw)
	if known {
		socket.bound(unacknowledged)
	}
	secured, info, err := k.TransportCredentials.ServerHandshake(raw)
	if err != nil || !known {
		return secured, info, err
	}
	c := &conn{Conn: secured, socket: socket, keeper: k.keeper}
	k.keeper.add(c)
	return c, encrypted, nil
}

// encrypted is what gRPC is told of each connection. It would keep what TLS has to tell for as long as that lives, and nobody asks for it.
var encrypted credentials.AuthInfo = authInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}

type authInfo struct{ credentials.CommonAuthInfo }

// AuthType is credentials.AuthInfo's.
func (authInfo) AuthType() string { return "tls" }

// Clone is credentials.TransportCredentials's.
func (k kept) Clone() credentials.TransportCredentials {
	return kept{k.TransportCredentials.Clone(), k.keeper}
}
