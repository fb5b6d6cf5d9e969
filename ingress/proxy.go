package ingress

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/zoneforge/zoneforge/ir"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
)

// ConnectTimeout is how long a zone ingress waits for a connection to a proxy of its own zone.
const ConnectTimeout = 5 * time.Second

// Proxy describes the zone ingress named name: one listener that hands each TLS connection, unopened, to the cluster that
// its server name names, and one cluster per destination. The listener depends on address and port alone, so services
// come and go without draining a connection. Destinations may repeat and come in any order; their clusters are sorted by name.
func Proxy(name string, zi *meshv1.ZoneIngress, destinations []Destination) (ir.Proxy, error) {
	n := zi.GetNetworking()
	if n.GetAddress() == "" || n.GetPort() == 0 || n.GetPort() > math.MaxUint16 {
		return ir.Proxy{}, fmt.Errorf("zone ingress %q: networking %q port %d cannot be listened on; set networking.address and a networking.port from 1 to %d",
			name, n.GetAddress(), n.GetPort(), math.MaxUint16)
	}
	p := ir.Proxy{
		Kind: ir.ZoneIngress,
		Name: name,
		Zone: zi.GetZone(),
		Listeners: []ir.Listener{{
			Name:      "zone-ingress",
			Address:   n.GetAddress(),
			Port:      n.GetPort(),
			Direction: ir.Edge,
			Chains: []ir.FilterChain{{
				Name: "sni",
				// Without the suffix, a stranger could name any cluster that the proxy has, such as one of its bootstrap.
				Match: ir.ChainMatch{Transport: "tls", ServerNames: []string{ServerNames}},
				TCP:   &ir.TCPProxy{StatPrefix: "zone-ingress", SNICluster: true},
			}},
		}},
	}
	for _, d := range destinations {
		sni, err := d.SNI()
		if err != nil {
			return ir.Proxy{}, fmt.Errorf("zone ingress %q: %w", name, err)
		}
		p.Clusters = append(p.Clusters, ir.Cluster{
			Name:           sni,
			Protocol:       ir.TCP,
			EndpointsName:  EndpointsName(sni, IngressView),
			ConnectTimeout: ConnectTimeout,
		})
	}
	slices.SortFunc(p.Clusters, func(a, b ir.Cluster) int { return cmp.Compare(a.Name, b.Name) })
	p.Clusters = slices.CompactFunc(p.Clusters, func(a, b ir.Cluster) bool { return a.Name == b.Name })
	return p, nil
}
