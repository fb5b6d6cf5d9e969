package ir

// ProxyProtocol says whether connections begin with the PROXY protocol, which names the client.
type ProxyProtocol string

// Ways to take the PROXY protocol.
const (
	ProxyProtocolRequired ProxyProtocol = "required"
	ProxyProtocolOptional ProxyProtocol = "optional"
)

// SANKind is a kind of name in a certificate.
type SANKind string

// Kinds of name.
const (
	SANDNS   SANKind = "dns"
	SANURI   SANKind = "uri"
	SANEmail SANKind = "email"
)

// SANMatch compares the names of one kind in a certificate.
type SANMatch struct {
	SAN SANKind
	TextMatch
}
