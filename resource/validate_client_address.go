package resource

import (
	"fmt"
	"net/netip"
	"strings"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

func checkClientAddress(s scope, c *meshv1.ClientAddress) {
	if len(c.GetAllow())+len(c.GetDeny()) == 0 {
		s.errorf("", "needs allow or deny")
	}
	for i, text := range c.GetAllow() {
		checkRange(s.at("allow").index(i), text)
	}
	for i, text := range c.GetDeny() {
		checkRange(s.at("deny").index(i), text)
	}
}

func checkRange(s scope, text string) {
	p, err := AddressRange(text)
	switch {
	case err != nil:
		s.errorf("write an address, or a range such as 10.0.0.0/8 or 2001:db8::/32", "%q is no address", text)
	case p.Addr().Is4In6():
		s.errorf(fmt.Sprintf("write %s", p.Addr().Unmap()), "%q is an IPv4 address in IPv6", text)
	case p.Masked() != p:
		s.errorf(fmt.Sprintf("write %s or %s", p.Masked(), p.Addr()), "%s names an address within its range", text)
	}
}

// AddressRange reads an address, which stands for itself alone, or a range in CIDR notation.
func AddressRange(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	if a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%s: a zone holds on one machine alone", text)
	}
	return a.Prefix(a.BitLen())
}
