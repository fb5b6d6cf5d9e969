package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ServerLifetime is the default lifetime of a control plane's server certificate.
const ServerLifetime = 365 * 24 * time.Hour

// ErrInvalidHost says that a server certificate was asked for a name that is neither a host name nor an IP address.
var ErrInvalidHost = errors.New("invalid host")

// ServerCertificate is a control plane's TLS certificate with its key.
type ServerCertificate struct {
	// Chain is the leaf, then what stands between it and the root.
	Chain []*x509.Certificate
	Key   Key
}

// NewServerAuthority makes the self-signed authority of a control plane's server certificate. It signs leaves only, and
// has nothing to do with the roots of meshes.
func NewServerAuthority(random io.Reader, now time.Time, name string, v Validity) (Authority, error) {
	return newSelfSigned(random, now, name, 0, v)
}

// NewServerCertificate makes a certificate for hosts: DNS names (also "*.name") and IP addresses. Order and repetitions
// don't matter. It never outlives the authority.
func NewServerCertificate(random io.Reader, now time.Time, authority Authority, hosts []string, v Validity) (ServerCertificate, error) {
	if err := authority.check(now, 0); err != nil {
		return ServerCertificate{}, fmt.Errorf("server certificate: %w", err)
	}
	if len(hosts) == 0 {
		return ServerCertificate{}, fmt.Errorf("server certificate: %w: none is given; name at least one", ErrInvalidHost)
	}
	start, end, err := v.window(now, ServerLifetime, authority.notAfter())
	if err != nil {
		return ServerCertificate{}, fmt.Errorf("server certificate: %w", err)
	}
	hosts = slices.Clone(hosts)
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	template := &x509.Certificate{
		Subject:               subject(hosts[0]),
		NotBefore:             start,
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.Unmap().WithZone("").AsSlice())
			continue
		}
		for label := range strings.SplitSeq(strings.TrimPrefix(h, "*."), ".") {
			if err := checkLabel("host", strings.ToLower(label)); err != nil {
				return ServerCertificate{}, fmt.Errorf("server certificate: %w: %q is neither a host name nor an IP address", ErrInvalidHost, h)
			}
		}
		template.DNSNames = append(template.DNSNames, h)
	}
	key, err := NewKey(random)
	if err != nil {
		return ServerCertificate{}, fmt.Errorf("server certificate: %w", err)
	}
	leaf, err := sign(random, template, authority.Certificate, key.Public(), authority.Key)
	if err != nil {
		return ServerCertificate{}, fmt.Errorf("server certificate: %w", err)
	}
	s := ServerCertificate{Chain: append([]*x509.Certificate{leaf}, authority.Chain()...), Key: key}
	if missing := s.MissingHosts(hosts); len(missing) > 0 {
		return ServerCertificate{}, fmt.Errorf("server certificate: %w: %q are not covered", ErrInvalidHost, missing)
	}
	return s, nil
}

// MissingHosts are those of hosts that the certificate does not cover, in their order.
func (s ServerCertificate) MissingHosts(hosts []string) []string {
	var out []string
	for _, h := range hosts {
		name := h
		if ip, err := netip.ParseAddr(h); err == nil {
			name = ip.Unmap().WithZone("").String()
		} else if rest, ok := strings.CutPrefix(h, "*."); ok {
			name = "any." + rest
		}
		if s.Chain[0].VerifyHostname(name) != nil {
			out = append(out, h)
		}
	}
	return out
}

// NeedsRenewal is true in the last third of a lifetime, and after it.
func NeedsRenewal(w Window, now time.Time) bool {
	return !now.Before(w.NotAfter.Add(-w.NotAfter.Sub(w.NotBefore) / 3))
}
