// Package ir describes what one proxy does, in plain structs with all policies merged: listeners, routes, clusters,
// endpoints and secrets.
//
// It owns no logic of policies and knows no resource, no Envoy and no protocol between control planes. It imports nothing
// of this project, does no I/O, and its values are immutable once built, so they may be shared between goroutines.
// Equal input must give equal values: slices are ordered by their builder, and order is kept by what reads them.
package ir

import "time"

// ProxyKind says what a proxy is for.
type ProxyKind string

// Kinds of proxy.
const (
	Sidecar     ProxyKind = "sidecar"
	Gateway     ProxyKind = "gateway"
	ZoneIngress ProxyKind = "zone-ingress"
)

// Proxy is everything that one proxy is configured with, except endpoints and the bytes of secrets, which are shared.
type Proxy struct {
	Kind ProxyKind
	// Mesh is empty for a zone ingress.
	Mesh string
	Name string
	Zone string

	Listeners []Listener
	Routes    []RouteConfig
	Clusters  []Cluster
	// Authorizations are those of TCP chains; HTTP routes carry theirs themselves, so that a change drains no connection.
	Authorizations []NamedAuthorization
	// FormerJWT are what routes asked for before the last change of that. The proxy takes a filter over before the routes that need
	// it, and its old ones must still find what they ask for.
	FormerJWT []*JWT
	// Secrets are the names of all secrets that listeners and clusters refer to, sorted.
	Secrets []string
	// Own are texts that no other proxy like it has, its name and addresses, which may be in any text of it. Nothing is configured by
	// them: what the rest has in common with others is kept once.
	Own []string
	// Template changes what is built of all this; nil for nothing.
	Template *Template
}

// Direction says which way a listener's traffic goes.
type Direction string

// Directions.
const (
	Inbound  Direction = "inbound"
	Outbound Direction = "outbound"
	Edge     Direction = "edge" // gateway and zone ingress
	Own      Direction = "own"  // what the proxy itself answers
)

// Listener is one address and port. It changes only when ports, protocols or hostnames do, since a change drains it.
type Listener struct {
	Name    string
	Address string
	Port    uint32
	// Pipe is a socket in the directory in which the proxy runs, for its owner alone; excludes Address and Port.
	Pipe      string
	Direction Direction
	// Tags are those of the inbound, outbound or gateway that it is for. They are no part of what Envoy is told.
	Tags map[string]string
	// Chains are tried by their match, not by order. With more than one, or with ServerNames, TLS is inspected.
	Chains []FilterChain
	// QUIC listens at the UDP port instead of the TCP port; all chains then terminate TLS and speak HTTP.
	QUIC bool
	// ProxyProtocol is read before all else; empty takes connections as they come.
	ProxyProtocol ProxyProtocol
	// BufferLimit in bytes of a connection in each direction; 0 keeps Envoy's default.
	BufferLimit uint32
}

// FilterChain handles the connections that match; exactly one of HTTP and TCP is set.
type FilterChain struct {
	Name  string
	Match ChainMatch
	// TLS terminates TLS; nil takes what comes as it is.
	TLS  *DownstreamTLS
	HTTP *HTTPConnection
	TCP  *TCPProxy
	// MaxConnections at a time; 0 sets no bound.
	MaxConnections uint32
}

// ChainMatch selects connections; empty members match all.
type ChainMatch struct {
	// Transport is "tls", "raw_buffer" or empty.
	Transport string
	// ServerNames are exact or "*.example.com".
	ServerNames []string
}

// DownstreamTLS terminates TLS.
type DownstreamTLS struct {
	// Certificates are names of secrets.
	Certificates []string
	// ClientValidation is the name of the trust bundle by which clients must prove themselves; empty asks for no certificate.
	ClientValidation string
	// ClientOptional takes clients without a certificate too; what one shows must hold.
	ClientOptional bool
	// ClientSANs are the names of which a client must carry one; empty allows any that the bundle proves.
	ClientSANs []SANMatch
	// ClientHashes (SHA-256 of certificates, hexadecimal) and ClientKeys (SHA-256 of public keys, base64) are those of which a
	// client's must be one; empty allows any.
	ClientHashes []string
	ClientKeys   []string
	// ALPN are the offered protocols, preferred first.
	ALPN []string
	// MinVersion and MaxVersion are "1.2", "1.3" or empty, which is 1.2 and 1.3.
	MinVersion string
	MaxVersion string
	// CipherSuites of TLS 1.2, preferred first; empty keeps Envoy's.
	CipherSuites []string
}

// UpstreamTLS originates TLS to a proxy of the mesh, or to a service outside it.
type UpstreamTLS struct {
	// Certificate is the name of the secret with the client's certificate.
	Certificate string
	// Validation is the name of the trust bundle; excludes Roots.
	Validation string
	// SANs are the URIs of which the server must carry one; with Validation.
	SANs []TextMatch
	// Roots prove a server outside the mesh.
	Roots *Roots
	SNI   string
	ALPN  []string
	// Renegotiation lets the server ask for it.
	Renegotiation bool
}

// Roots prove a server outside the mesh.
type Roots struct {
	// PEM of the certificates; empty takes the roots of the proxy's machine.
	PEM []byte
	// ServerName is the DNS name or IP address that the server's certificate must hold.
	ServerName string
}

// SystemRoots is the name of the secret with the roots of the proxy's machine, which its bootstrap brings along.
const SystemRoots = "system-roots"

// HTTPConnection decodes HTTP. Its routes come from a RouteConfig.
type HTTPConnection struct {
	// StatPrefix must not contain what changes.
	StatPrefix  string
	RouteConfig string
	// Bare says that no route turns a filter on, ever: then none stands there but the router.
	Bare bool
	// Edge is set where clients are not trusted: addresses and headers that they claim are not believed, and paths are
	// normalised.
	Edge bool
	// NormalizePath resolves dots and needless escapes in paths where Edge is not set, so that what is asked of a path holds however it
	// is written.
	NormalizePath bool
	// TrustedHops is how many proxies in front are trusted in x-forwarded-for.
	TrustedHops uint32
	// ForwardClientCertificate puts what the peer's certificate proves in x-forwarded-client-cert. With Edge set that replaces what
	// the client sent, else it stands behind what the peer, a proxy of the mesh, says of its own client.
	ForwardClientCertificate bool
	// IdleTimeout of a connection without requests; 0 keeps Envoy's default.
	IdleTimeout time.Duration
	// Logs are written for the requests of the routes that name them.
	Logs []AccessLog
	// Tracing may be nil, for no spans.
	Tracing *Tracing
}

// TCPProxy forwards bytes to clusters by weight, or to the cluster that the SNI names.
type TCPProxy struct {
	// Name, where it is set, lets the proxy travel apart from its listener, so that a change drains no connection.
	Name       string
	StatPrefix string
	Clusters   []WeightedCluster
	// SNICluster takes the SNI as the name of the cluster; excludes Clusters.
	SNICluster bool
	// Authorization is the name of a NamedAuthorization; empty allows all.
	Authorization string
	// IdleTimeout without a byte; 0 keeps Envoy's default.
	IdleTimeout time.Duration
	// MaxConnectAttempts in all; 0 means 1.
	MaxConnectAttempts uint32
	// HashSource picks the endpoint by the client's address, where the clusters' balancer hashes.
	HashSource bool
	// Logs are written for each connection.
	Logs []AccessLog
}

// WeightedCluster takes its share of the sum of weights.
type WeightedCluster struct {
	Cluster string
	Weight  uint32
}

// RouteConfig is a table of routes that listeners refer to by name.
type RouteConfig struct {
	Name         string
	VirtualHosts []VirtualHost
	// ResponseHeaders change every answer.
	ResponseHeaders HeaderChange
	// Behind says that other routes of the proxy lead to these. What it loses stays for a while.
	Behind bool
}

// VirtualHost holds the routes of some hostnames.
type VirtualHost struct {
	Name string
	// Domains are exact, "*.example.com" or "*".
	Domains []string
	// Routes are tried in order.
	Routes []Route
}

// Route acts on requests that match; exactly one of Forward, Redirect and Direct is set.
type Route struct {
	// Name tells which resource and rule it came from.
	Name  string
	Match RouteMatch

	Forward  *Forward
	Redirect *Redirect
	Direct   *DirectResponse

	RequestHeaders  HeaderChange
	ResponseHeaders HeaderChange
	Filters         Filters
	// Log may be nil, for no line.
	Log *RouteLog
	// Tracing may be nil, where the connection has none.
	Tracing *RouteTracing
}

// Filters are what HTTP filters do with the requests of a route; a nil member does nothing.
type Filters struct {
	// Authorization decides before the action; nil allows all.
	Authorization *Authorization
	CORS          *CORS
	// Admission comes first, so that what it refuses costs nothing.
	Admission *AdmissionControl
	// PolicyLimit is that of a RateLimit, and RateLimit that of a filter; a request must be within both.
	PolicyLimit *RateLimit
	RateLimit   *RateLimit
	// Faults are tried one after the other.
	Faults    []Fault
	Bandwidth *Bandwidth
	// MaxBody is how many bytes a request's body may have; 0 bounds nothing.
	MaxBody       uint64
	GRPCWeb       *GRPCWeb
	Compression   *Compression
	Transcode     *Transcode
	ClientAddress *ClientAddress
	BasicAuth     *BasicAuth
	APIKey        *APIKey
	ExtAuth       *ExtAuth

	Transform        *Transform
	TransformService *TransformService
	Lua              *Lua
	ExtProc          *ExtProc
	Wasm             *Wasm
	// Cache keeps answers. It turns off all filters behind it, which are for the route by which the cache asks for what it doesn't
	// have: there CacheFill is set, and turns off those that requests passed before.
	Cache     *Cache
	CacheFill *Cache
	JWT       *JWT
	OIDC      *OIDC
}

// RouteMatch holds conditions that must all be met.
type RouteMatch struct {
	Path PathMatch
	// Method is empty for any.
	Method  *TextMatch
	Headers []ValueMatch
	Query   []ValueMatch
}

// PathKind says how a path is compared.
type PathKind string

// Path kinds.
const (
	PathExact PathKind = "exact"
	// PathPrefix compares text; PathSegments only matches on borders of segments.
	PathPrefix   PathKind = "prefix"
	PathSegments PathKind = "segments"
	PathRegex    PathKind = "regex"
)

// PathMatch compares the path without its query.
type PathMatch struct {
	Kind  PathKind
	Value string
}

// TextKind says how a text is compared.
type TextKind string

// Text kinds.
const (
	TextExact   TextKind = "exact"
	TextPrefix  TextKind = "prefix"
	TextRegex   TextKind = "regex"
	TextPresent TextKind = "present"
	TextAbsent  TextKind = "absent"
)

// TextMatch compares a text. A regex is RE2 and matches the whole text.
type TextMatch struct {
	Kind  TextKind
	Value string
}

// ValueMatch compares a header or a query parameter.
type ValueMatch struct {
	Name string
	TextMatch
}

// PathRewriteKind says what of a path is replaced.
type PathRewriteKind string

// Kinds of rewrite.
const (
	RewriteFull PathRewriteKind = "full"
	// RewritePrefix replaces what a path match by prefix or segments matched.
	RewritePrefix PathRewriteKind = "prefix"
)

// PathRewrite replaces a path or its beginning; the query is kept.
type PathRewrite struct {
	Kind  PathRewriteKind
	Value string
}

// Redirect sends the client elsewhere; empty members stay as in the request.
type Redirect struct {
	Scheme string
	Host   string
	Port   uint32
	Path   *PathRewrite
	// Status is 301, 302, 303, 307 or 308.
	Status uint32
}

// Mirror sends a copy of requests to a cluster; its answers are dropped.
type Mirror struct {
	Cluster string
	// Millionths is the share of requests that is copied, in millionths.
	Millionths uint32
}

// Forward sends the request to clusters by weight.
type Forward struct {
	Clusters []WeightedCluster
	// Path is rewritten unless it is nil, Host unless it is empty.
	Path    *PathRewrite
	Host    string
	Mirrors []Mirror
	// Timeout of the whole request; 0 means none.
	Timeout time.Duration
	// IdleTimeout of the stream; 0 means none.
	IdleTimeout time.Duration
	// MaxDuration of the stream; 0 means none.
	MaxDuration time.Duration
	Retry       *Retry
	// Hash is what picks the endpoint, where the clusters' balancer hashes.
	Hash []HashPolicy
}

// Retry repeats a request.
type Retry struct {
	// On are Envoy's conditions, sorted.
	On            []string
	Attempts      uint32
	PerTryTimeout time.Duration
	BaseInterval  time.Duration
	MaxInterval   time.Duration
	StatusCodes   []uint32
	Methods       []string
	// Headers are those of a response that make the request be repeated.
	Headers []ValueMatch
	// Reset are headers that say when to repeat; ResetLimit bounds them, and 0 keeps Envoy's default.
	Reset      []ResetHeader
	ResetLimit time.Duration
	// OtherHosts takes an endpoint that was not tried yet, where there is one.
	OtherHosts bool
}

// ResetHeader says when a request may be repeated: in so many seconds, or at a point in time.
type ResetHeader struct {
	Name      string
	Timestamp bool
}

// DirectResponse answers without forwarding.
type DirectResponse struct {
	Status uint32
	Body   string
}

// HeaderChange changes headers.
type HeaderChange struct {
	Set    []Header
	Add    []Header
	Remove []string
}

// Header is a name and a value.
type Header struct {
	Name  string
	Value string
}

// CORS answers cross-origin requests.
type CORS struct {
	Origins       []TextMatch
	Methods       []string
	Headers       []string
	ExposeHeaders []string
	MaxAge        *time.Duration
	Credentials   bool
}

// NamedAuthorization is an Authorization that TCP chains refer to.
type NamedAuthorization struct {
	Name string
	Authorization
}

// Authorization allows a peer when any rule matches; without rules it denies all.
type Authorization struct {
	Rules []AuthorizationRule
}

// AuthorizationRule matches a peer that one of Allow matches and none of Except does.
type AuthorizationRule struct {
	// Name tells which resource it came from.
	Name   string
	Allow  []TextMatch
	Except []TextMatch
}

// Protocol is spoken to a cluster's endpoints.
type Protocol string

// Protocols.
const (
	TCP   Protocol = "tcp"
	HTTP1 Protocol = "http1"
	HTTP2 Protocol = "http2"
)

// Cluster is a destination.
type Cluster struct {
	Name     string
	Protocol Protocol
	// EndpointsName is the name of the Endpoints that it takes; excludes Static.
	EndpointsName string
	// Static is an address of the workload beside the proxy.
	Static *Endpoint
	// Hosts are outside the mesh, by IP address or by a DNS name that the proxy resolves; excludes the two above.
	Hosts          []Endpoint
	ConnectTimeout time.Duration
	// IdleTimeout of a connection without requests; 0 keeps Envoy's default.
	IdleTimeout time.Duration
	TLS         *UpstreamTLS
	// LoadBalancer may be nil, for round robin.
	LoadBalancer *LoadBalancer
	Limits       Limits
	Outlier      *Outlier
	HealthCheck  *HealthCheck
}

// Endpoints are where a service is reached; one value is shared by all proxies with the same view of it.
type Endpoints struct {
	Name       string
	Localities []Locality
	// Overprovisioning is by how many percent of its need a priority is taken to be equipped; 0 keeps Envoy's 140.
	Overprovisioning uint32
}

// Locality groups the endpoints of one zone. Priority 0 is tried first.
type Locality struct {
	Zone      string
	Priority  uint32
	Weight    uint32
	Endpoints []Endpoint
}

// Endpoint is one address.
type Endpoint struct {
	Address string
	Port    uint32
	// Pipe is a socket in the directory in which the proxy runs; excludes Address and Port.
	Pipe string
	// Weight is relative to the others of its locality; 0 means 1.
	Weight uint32
}

// Secret is a certificate with its key, a trust bundle or a text; exactly one member is set. It must not be printed.
type Secret struct {
	Name        string
	Certificate *Certificate
	// Bundle is PEM of the roots.
	Bundle []byte
	// Text is what a proxy shows or seals with.
	Text []byte
}

// Certificate is a chain with its private key, both PEM.
type Certificate struct {
	Chain []byte
	Key   []byte
	// Root is the SHA-256 fingerprint of the root above the chain; zero where nobody asks for it.
	Root [32]byte
}

// String redacts.
func (s Secret) String() string { return "secret " + s.Name + " (redacted)" }

// GoString redacts.
func (s Secret) GoString() string { return s.String() }

// String redacts.
func (c Certificate) String() string { return "certificate (redacted)" }

// GoString redacts.
func (c Certificate) GoString() string { return c.String() }
