package server

import (
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// A proxy that asks by name for what was made for others, such as endpoints of another mesh, which all share one map, is told
// that there is no such thing.
func TestNothingOfOthersExists(t *testing.T) {
	d, rs := started(t)
	d.endpoints["of-another-mesh"] = load(t, "of-another-mesh", 0)
	d.s.SetSnapshot(newSnapshot(2, rs, []*xds.Resource{res(t, xds.TypeSecret, "svid:web", &tlsv3.Secret{Name: "svid:web"})}, d.s.want))
	d.expect()
	d.ask("E", "of-another-mesh")
	d.expect("E-of-another-mesh")
	d.ack("E")
	d.ask("S", "svid:pay", "*")
	d.expect("S-svid:pay")
	d.ack("S")
	d.ask("R", "route-of-another")
	d.expect("R-route-of-another")
	d.ack("R")
	d.s.EndpointsChanged(7, []string{"of-another-mesh"})
	d.expect()
}
