package pki

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ErrInvalidID says that a SPIFFE ID, or a part of one, is malformed.
var ErrInvalidID = errors.New("invalid SPIFFE ID")

const (
	scheme = "spiffe://"
	// Limits of the SPIFFE ID specification, section 2, and of DNS labels (RFC 1035), in bytes.
	maxTrustDomain = 255
	maxID          = 2048
	maxLabel       = 63
)

// TrustDomain is <zone>.<mesh>.<domain>. Zone and mesh hold no dots, so that the text has one reading only and no zone's
// domain lies below that of another.
type TrustDomain struct {
	Zone string
	Mesh string
	// Domain of the federation; one or more labels.
	Domain string
}

// NewTrustDomain validates the parts.
func NewTrustDomain(zone, mesh, domain string) (TrustDomain, error) {
	t := TrustDomain{Zone: zone, Mesh: mesh, Domain: domain}
	return t, t.Validate()
}

// Validate returns an error that wraps ErrInvalidID.
func (t TrustDomain) Validate() error {
	if err := checkLabel("zone", t.Zone); err != nil {
		return err
	}
	if err := checkLabel("mesh", t.Mesh); err != nil {
		return err
	}
	for label := range strings.SplitSeq(t.Domain, ".") {
		if err := checkLabel("domain", label); err != nil {
			return err
		}
	}
	if n := len(t.String()); n > maxTrustDomain {
		return fmt.Errorf("%w: trust domain has %d bytes, at most %d are allowed", ErrInvalidID, n, maxTrustDomain)
	}
	return nil
}

// String is the host of the SPIFFE ID.
func (t TrustDomain) String() string { return t.Zone + "." + t.Mesh + "." + t.Domain }

// URI is the SPIFFE ID of the trust domain itself.
func (t TrustDomain) URI() *url.URL { return &url.URL{Scheme: "spiffe", Host: t.String()} }

// ID names one service of one zone: spiffe://<zone>.<mesh>.<domain>/<service>.
type ID struct {
	TrustDomain
	Service string
}

// Validate returns an error that wraps ErrInvalidID.
func (id ID) Validate() error {
	if err := id.TrustDomain.Validate(); err != nil {
		return err
	}
	switch id.Service {
	case "":
		return fmt.Errorf("%w: service is empty", ErrInvalidID)
	case ".", "..":
		return fmt.Errorf("%w: service %q is a relative path", ErrInvalidID, id.Service)
	}
	for i := 0; i < len(id.Service); i++ {
		if c := id.Service[i]; !isPathByte(c) {
			return fmt.Errorf("%w: service %q holds %q; use letters, digits, '.', '-' and '_'", ErrInvalidID, id.Service, c)
		}
	}
	if n := len(id.String()); n > maxID {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrInvalidID, n, maxID)
	}
	return nil
}

// String is the SPIFFE ID as text.
func (id ID) String() string { return scheme + id.TrustDomain.String() + "/" + id.Service }

// URI is the SPIFFE ID as it stands in a certificate.
func (id ID) URI() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.TrustDomain.String(), Path: "/" + id.Service}
}

// ParseID reads the SPIFFE ID of a service. It accepts exactly what ID.String writes: no upper case in the trust domain,
// no port, query, fragment, escapes or trailing slash, because an identity with two spellings could pass one check and
// miss another.
func ParseID(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return ID{}, fmt.Errorf("%w: %.100q does not start with %s", ErrInvalidID, s, scheme)
	}
	host, service, ok := strings.Cut(rest, "/")
	if !ok {
		return ID{}, fmt.Errorf("%w: %.100q names no service; want %s<zone>.<mesh>.<domain>/<service>", ErrInvalidID, s, scheme)
	}
	td, err := ParseTrustDomain(host)
	if err != nil {
		return ID{}, err
	}
	id := ID{TrustDomain: td, Service: service}
	if err := id.Validate(); err != nil {
		return ID{}, err
	}
	return id, nil
}

// ParseTrustDomain reads <zone>.<mesh>.<domain>.
func ParseTrustDomain(s string) (TrustDomain, error) {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) != 3 {
		return TrustDomain{}, fmt.Errorf("%w: trust domain %.100q is not <zone>.<mesh>.<domain>", ErrInvalidID, s)
	}
	td, err := NewTrustDomain(parts[0], parts[1], parts[2])
	if err != nil {
		return TrustDomain{}, err
	}
	return td, nil
}

// checkLabel takes what both SPIFFE (no upper case) and X.509 name constraints (DNS labels) allow.
func checkLabel(part, s string) error {
	if s == "" {
		return fmt.Errorf("%w: %s is empty or has an empty label", ErrInvalidID, part)
	}
	if len(s) > maxLabel {
		return fmt.Errorf("%w: %s has a label of %d bytes, at most %d are allowed", ErrInvalidID, part, len(s), maxLabel)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && i > 0 && i < len(s)-1 {
			continue
		}
		return fmt.Errorf("%w: %s %q holds %q at %d; use lower case letters, digits, and '-' inside", ErrInvalidID, part, s, c, i)
	}
	return nil
}

func isPathByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
}
