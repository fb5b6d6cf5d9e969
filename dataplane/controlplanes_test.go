package dataplane

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// beforeReplicas is a sidecar of a zone in three replicas.
func beforeReplicas(name string) Bootstrap {
	b := sidecar()
	b.Name, b.ControlPlanes = name, []string{"10.0.0.1:5678", "10.0.0.2:5678", "10.0.0.3:5678"}
	return b
}

// Each replica is first choice of about a third of the proxies, and when one goes, its proxies have no other choice in common.
func TestProxiesSpreadOverReplicas(t *testing.T) {
	first, second := map[string]int{}, map[string]int{}
	const proxies = 9000
	for i := range proxies {
		b := beforeReplicas(fmt.Sprint("web-", i))
		got, name := b.target()
		order := strings.Split(strings.TrimPrefix(got.uri, "ipv4:"), ",")
		if again, _ := b.target(); got != again || got.shuffled || name != commonName {
			t.Fatalf("%+v, then %+v, with the name %q", got, again, name)
		}
		if sorted := slices.Sorted(slices.Values(order)); !slices.Equal(sorted, b.ControlPlanes) {
			t.Fatalf("%s of %v", got.uri, b.ControlPlanes)
		}
		first[order[0]]++
		second[order[0]+order[1]]++
	}
	for _, n := range first {
		if len(first) != 3 || n < proxies/3*8/10 || n > proxies/3*12/10 {
			t.Errorf("first choices are %v", first)
		}
	}
	for _, n := range second {
		if len(second) != 6 || n < proxies/6*8/10 || n > proxies/6*12/10 {
			t.Errorf("second choices are %v", second)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		addresses []string
		name      string
		uri, want string
		shuffled  bool
	}{
		{[]string{"zone.example.com:5678"}, "", "dns:///zone.example.com:5678", "", true},
		{[]string{"10.0.0.1:5678"}, "zone.example.com", "dns:///10.0.0.1:5678", "zone.example.com", false},
		{[]string{"10.0.0.1:5678", "10.0.0.1:5678"}, "", "ipv4:10.0.0.1:5678,10.0.0.1:5678", commonName, false},
		{[]string{"[::1]:5678", "[::1]:5678"}, "zone.example.com", "ipv6:[::1]:5678,[::1]:5678", "zone.example.com", false},
	} {
		b := sidecar()
		b.ControlPlanes, b.ServerName = c.addresses, c.name
		if got, name := b.target(); got != (target{c.uri, c.shuffled}) || name != c.want {
			t.Errorf("%v: %+v with the name %q", c.addresses, got, name)
		}
	}
	for want, addresses := range map[string][]string{
		"no control plane": nil, "is a name among several": {"10.0.0.1:5678", "zone.example.com:5678"},
		"give those of one": {"10.0.0.1:5678", "[::1]:5678"}, "needs a host": {"10.0.0.1:5678", ":5678"},
	} {
		b := sidecar()
		b.ControlPlanes = addresses
		if _, err := b.JSON(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want an error with %q", addresses, err, want)
		}
	}
}
