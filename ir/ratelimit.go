package ir

import "time"

// RateLimit bounds how many requests pass. Routes whose limits have the same name share one count, and are given the same limit.
type RateLimit struct {
	// Name tells which resource it came from; in a shared limit it stands for the limit in all proxies.
	Name     string
	Requests uint32
	Interval time.Duration
	// Status of the answer to a request beyond the limit; 0 means 429.
	Status  uint32
	Headers []LimitHeader
	// RetryAfter adds the header of that name to answers with status 429.
	RetryAfter bool
	// Keys tell clients apart, all of them together. Those without one of them are counted as one client.
	Keys []LimitKey
	// MaxKeys is how many clients are told apart at a time.
	MaxKeys uint32
	// Announce adds headers with the limit and what is left of it to all answers.
	Announce bool
	// Shared asks a service; nil counts in the proxy.
	Shared *SharedLimit
}

// LimitHeader is a header of the answer to a request beyond a limit.
type LimitHeader struct {
	Header
	// Append keeps values that are there.
	Append bool
}

// LimitKeyKind says what tells clients apart.
type LimitKeyKind string

// Kinds of key.
const (
	KeyAddress LimitKeyKind = "address"
	KeyHeader  LimitKeyKind = "header"
	KeyClaim   LimitKeyKind = "claim"
	KeyQuery   LimitKeyKind = "query"
	KeyPath    LimitKeyKind = "path"
)

// LimitKey is a property of requests by which clients are told apart.
type LimitKey struct {
	Kind LimitKeyKind
	// Name of the header, claim or query parameter.
	Name string
	// IPv4Prefix and IPv6Prefix are the bits of an address that count.
	IPv4Prefix uint32
	IPv6Prefix uint32
}

// SharedLimit is counted by a service that speaks Envoy's rate limit protocol.
type SharedLimit struct {
	Cluster string
	Domain  string
	// Deny answers requests with 500 while the service can't be asked.
	Deny    bool
	Timeout time.Duration
}
