package overload

import (
	"sync"
	"time"
)

// maxClients bounds how many clients are told apart. It is far more than a replica has of any kind, as all may come at once: those of a zone
// that was restarted, of which none asks too often.
const maxClients = 1 << 16

// Clients bounds how often each client asks. A client that was quiet may ask a burst of times at once; beyond that it has to wait. When
// too many clients ask to be told apart, those who come last share one allowance.
type Clients struct {
	every time.Duration
	burst time.Duration

	mu sync.Mutex
	// free is when the whole allowance of a client is there again; guarded by mu.
	free map[string]time.Time
	// swept is when the clients with a whole allowance were forgotten last.
	swept   time.Time
	refused uint64
}

// NewClients allows each client to ask once in a while, and a burst of times after a rest. Without a while, all may ask always.
func NewClients(every time.Duration, burst int) *Clients {
	return &Clients{every: every, burst: every * time.Duration(max(burst, 1)), free: map[string]time.Time{}}
}

// Ask counts one more time of a client; when it asks too often it gives how long it has to wait, and counts nothing.
func (c *Clients) Ask(client string, now time.Time) (wait time.Duration) {
	if c.every <= 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	free, known := c.free[client]
	if !known && len(c.free) >= maxClients {
		// At most once in the time that an allowance takes to come back, as it looks at all.
		if now.Sub(c.swept) >= c.burst {
			c.swept = now
			for other, at := range c.free {
				if !now.Before(at) {
					delete(c.free, other)
				}
			}
		}
		if len(c.free) >= maxClients {
			client = ""
			free = c.free[client]
		}
	}
	if free.Before(now) {
		free = now
	}
	free = free.Add(c.every)
	if wait = free.Sub(now) - c.burst; wait > 0 {
		c.refused++
		return wait
	}
	c.free[client] = free
	return 0
}

// Refused counts how often clients were told to wait.
func (c *Clients) Refused() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}
