package proxyir

import (
	"fmt"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func clientAddress(c *meshv1.ClientAddress, r *ir.Route) error {
	allow, err := ranges(c.GetAllow())
	if err != nil {
		return fmt.Errorf("clientAddress: allow: %w", err)
	}
	deny, err := ranges(c.GetDeny())
	if err != nil {
		return fmt.Errorf("clientAddress: deny: %w", err)
	}
	r.Filters.ClientAddress = &ir.ClientAddress{Allow: allow, Deny: deny}
	return nil
}

func ranges(texts []string) ([]ir.AddressRange, error) {
	var out []ir.AddressRange
	for _, text := range texts {
		p, err := resource.AddressRange(text)
		if err != nil {
			return nil, err
		}
		out = append(out, ir.AddressRange{Address: p.Addr().String(), Bits: uint32(p.Bits())})
	}
	return out, nil
}
