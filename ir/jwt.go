package ir

import "time"

// JWT asks for a JSON Web Token of one of the providers.
type JWT struct {
	// Providers are sorted by name.
	Providers []JWTProvider
	// Optional lets requests without a token pass.
	Optional bool
	// Claims must all be met, by any token.
	Claims []JWTClaim
}

// JWTProvider issues tokens; exactly one of Remote and Local is set.
type JWTProvider struct {
	Name string
	// Issuer and Audiences take any where they are empty.
	Issuer    string
	Audiences []string
	Remote    *RemoteKeys
	// Local is a key set as JSON.
	Local []byte
	// Forward leaves the token in the request.
	Forward bool
	// Headers, Params and Cookies are where tokens are looked for; with none of them, where RFC 6750 says.
	Headers []TokenHeader
	Params  []string
	Cookies []string
	// ClaimHeaders replace what the client sent.
	ClaimHeaders []ClaimHeader
	// PayloadHeader carries all claims; empty for none.
	PayloadHeader string
	// ClockSkew is in full seconds; 0 keeps Envoy's default.
	ClockSkew         time.Duration
	RequireExpiration bool
	// MaxLifetime is 0 for none.
	MaxLifetime time.Duration
}

// HTTPCall is an address that the proxy itself calls.
type HTTPCall struct {
	URI     string
	Cluster string
	Timeout time.Duration
}

// RemoteKeys are fetched by the proxy.
type RemoteKeys struct {
	Call  HTTPCall
	Cache time.Duration
	// Ahead fetches them before a request needs them, and again after Refetch where that failed.
	Ahead   bool
	Refetch time.Duration
	// Retries are made at once.
	Retries      uint32
	BaseInterval time.Duration
	MaxInterval  time.Duration
}

// TokenHeader is a header with what stands before the token.
type TokenHeader struct {
	Name   string
	Prefix string
}

// ClaimHeader copies a claim into a header. Path leads to it, object by object.
type ClaimHeader struct {
	Header string
	Path   []string
}

// JWTClaim is what a token has to say. Path leads to it, object by object.
type JWTClaim struct {
	Path []string
	// Values are those of which it has one; empty asks only that the claim is there.
	Values []string
	// Words says that the claim may be a text of words, of which one counts.
	Words bool
}
