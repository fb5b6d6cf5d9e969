package server

import (
	"testing"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// A renewed certificate goes alone: no listener or cluster is sent again for it, so no connection is drained.
func TestRenewedSecretGoesAlone(t *testing.T) {
	d, rs := started(t)
	secret := func(key string) []*xds.Resource {
		return []*xds.Resource{res(t, xds.TypeSecret, "svid", &tlsv3.Secret{Name: "svid",
			Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{Secrets: nil}}}),
			res(t, xds.TypeSecret, key, &tlsv3.Secret{Name: key})}
	}
	d.s.SetSnapshot(newSnapshot(2, rs, secret("one"), d.s.want))
	d.expect() // nobody asked for it
	d.ask("S", "svid", "one")
	d.expect("S+one+svid")
	d.acked(2)
	d.ack("S")
	d.s.SetSnapshot(newSnapshot(3, rs, secret("two"), d.s.want))
	d.expect("S-one")
	d.acked(2)
	d.ack("S")
	d.acked(3)
	d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeSecret, ResourceNamesSubscribe: []string{"two"},
		ResourceNamesUnsubscribe: []string{"one"}})
	d.expect("S+two")
}

func TestRemovedProxyIsForgotten(t *testing.T) {
	s, err := New(Config{Authenticator: newGate()})
	if err != nil {
		t.Fatal(err)
	}
	s.SetProxy("p", 3, nil, nil)
	s.SetProxy("p", 2, nil, nil)
	if st, ok := s.Status("p"); !ok || st.Wanted != 3 {
		t.Fatalf("status %+v, %v: an older revision must not replace a newer", st, ok)
	}
	s.RemoveProxy("p")
	if _, ok := s.Status("p"); ok {
		t.Fatal("still known")
	}
}
