package ir

import "time"

// Algorithm says how an endpoint is picked.
type Algorithm string

// Algorithms; none is RoundRobin.
const (
	RoundRobin   Algorithm = "round-robin"
	LeastRequest Algorithm = "least-request"
	RandomPick   Algorithm = "random"
	RingHash     Algorithm = "ring-hash"
	Maglev       Algorithm = "maglev"
)

// LoadBalancer picks an endpoint of a cluster. Members of 0 keep Envoy's default.
type LoadBalancer struct {
	Algorithm Algorithm
	// Choices is for LeastRequest.
	Choices uint32
	// Murmur, MinRing and MaxRing are for RingHash.
	Murmur  bool
	MinRing uint64
	MaxRing uint64
	// Table is the size of Maglev's table.
	Table uint64
	// SlowStart is for RoundRobin and LeastRequest.
	SlowStart *SlowStart
}

// Hashes tells whether a hash of the request picks the endpoint.
func (l *LoadBalancer) Hashes() bool {
	return l != nil && (l.Algorithm == RingHash || l.Algorithm == Maglev)
}

// SlowStart lets the share of a new endpoint grow.
type SlowStart struct {
	Window     time.Duration
	Aggression float64
	MinShare   float64 // percent
}

// HashPolicy is one thing of a request that is hashed; exactly one of Header, Cookie, Query and Source is set.
type HashPolicy struct {
	Header string
	Cookie *HashCookie
	Query  string
	// Source is the client's address.
	Source bool
	// Terminal ends the list where the request has what is named.
	Terminal bool
}

// HashCookie is generated for requests without it.
type HashCookie struct {
	Name string
	// TTL of 0 ends with the client's session.
	TTL  time.Duration
	Path string
}
