package state_test

import (
	"slices"
	"testing"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

// TestWhatAFilterNeedsBuildsItsProxiesAnew: a gate that was closed for want of something opens when that comes, and what it does not
// name builds nothing.
func TestWhatAFilterNeedsBuildsItsProxiesAnew(t *testing.T) {
	keys := &meshv1.Filter{Filter: &meshv1.Filter_ApiKey{ApiKey: &meshv1.ApiKey{Credentials: []*meshv1.SecretReference{{Secret: "keys"}}}}}
	asks := &meshv1.Filter{Filter: &meshv1.Filter_ExtAuth{ExtAuth: &meshv1.ExtAuth{Service: &meshv1.ExtAuth_Grpc_{Grpc: &meshv1.ExtAuth_Grpc{Target: &meshv1.Target{Destination: service("authz")}}}}}}
	secret := func(name, text string) *kdsv1.Record {
		return rec(t, "Secret", name, &meshv1.Secret{Data: []byte(text)})
	}
	authz := func(protocol string) *kdsv1.Record {
		a := available("west", "authz", 1)
		a.TagSets[0].Tags[resource.TagProtocol] = protocol
		return rec(t, "ServiceAvailability", "west.authz", a)
	}
	for _, c := range []struct {
		name                        string
		filter                      *meshv1.Filter
		before, other, comes, after *kdsv1.Record
		selects                     string
		want                        []string
	}{
		{"a Secret of a gateway", keys, secret("unread", "x"), secret("other", "y"), secret("keys", "a: k1\n"), secret("keys", "a: k2\n"), "edge", []string{"edge"}},
		{"a Secret of workloads", keys, secret("unread", "x"), secret("other", "y"), secret("keys", "a: k1\n"), secret("keys", "a: k2\n"), "echo", []string{"echo-10.0.0.2", "echo-10.0.0.3"}},
		{"a protocol", asks, authz("http"), rec(t, "ServiceAvailability", "west.db", available("west", "db", 1)), authz("grpc"), nil, "edge", []string{"edge"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := world(t)
			apply := func(r *kdsv1.Record) []string {
				if bad := s.Apply([]*kdsv1.Record{r}, nil, false); len(bad) > 0 {
					t.Fatal(bad)
				}
				proxies, _, _ := settle(t, s)
				return proxies
			}
			apply(c.before)
			apply(rec(t, "FilterPolicy", "guard", &meshv1.FilterPolicy{Selectors: sel(service(c.selects)), Conf: &meshv1.FilterPolicy_Conf{Filters: []*meshv1.Filter{c.filter}}}))
			rejected := func() int {
				n := 0
				for _, name := range c.want {
					n += len(s.RejectedBy("Dataplane/default/" + name))
				}
				return n
			}
			if rejected() != len(c.want) {
				t.Errorf("%d are rejected before", rejected())
			}
			if c.filter == keys {
				if got := apply(c.other); len(got) > 0 {
					t.Errorf("what nobody needs builds %v", got)
				}
			}
			if got := apply(c.comes); !slices.Equal(got, c.want) || rejected() != 0 {
				t.Errorf("what was missing builds %v, and %d are rejected", got, rejected())
			}
			if got := apply(c.other); len(got) > 0 {
				t.Errorf("what nobody needs builds %v afterwards", got)
			}
			if c.after != nil {
				if got := apply(c.after); !slices.Equal(got, c.want) {
					t.Errorf("a change of it builds %v", got)
				}
			}
		})
	}
}
