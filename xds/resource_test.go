package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/zoneforge/zoneforge/ir"
)

func TestResourceVersionFollowsBytes(t *testing.T) {
	build := func(alt string) *Resource {
		r, err := NewResource(TypeCluster, "a", &clusterv3.Cluster{Name: "a", AltStatName: alt})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if a, b := build("x"), build("x"); a.Version != b.Version || len(a.Version) != 32 {
		t.Errorf("versions of equal messages are %q and %q, want equal ones of 32 digits", a.Version, b.Version)
	}
	if a, b := build("x"), build("y"); a.Version == b.Version {
		t.Errorf("versions of different messages are both %q", a.Version)
	}
}

func TestNewResourceRefuses(t *testing.T) {
	if _, err := NewResource(TypeCluster, "", &clusterv3.Cluster{}); err == nil {
		t.Error("an empty name is accepted")
	}
	if _, err := NewResource(TypeRoute, "a", &clusterv3.Cluster{}); err == nil {
		t.Error("a message of another type is accepted")
	}
	if _, err := NewResource(TypeCluster, "a", &clusterv3.Cluster{Name: "\xff"}); err == nil {
		t.Error("text that isn't UTF-8 is accepted")
	}
}

func TestInternerSharesEqualResources(t *testing.T) {
	var in Interner
	got := make([]*Resource, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			r, err := NewResource(TypeCluster, "a", &clusterv3.Cluster{Name: "a"})
			if err == nil {
				got[i] = in.Intern(r)
			}
		})
	}
	wg.Wait()
	for _, r := range got {
		if r == nil || r != got[0] {
			t.Fatal("equal resources are not shared")
		}
	}
	if n := in.Keep(func(*Resource) bool { return false }); n != 0 {
		t.Errorf("%d resources remain, want none", n)
	}
}

// Two listeners differ in little, and that is all that each has for itself.
func TestListenersShareTheirFilters(t *testing.T) {
	build := func(address string) *Resource {
		t.Helper()
		p := &ir.Proxy{
			Listeners: []ir.Listener{{Name: "in", Address: address, Port: 80, Direction: ir.Inbound, Chains: []ir.FilterChain{{Name: "http",
				HTTP: &ir.HTTPConnection{StatPrefix: "in", RouteConfig: "in"}}}}},
			Routes:   []ir.RouteConfig{{Name: "in", VirtualHosts: []ir.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []ir.Route{goodRoute()}}}}},
			Clusters: []ir.Cluster{{Name: "a", Protocol: ir.HTTP1, Static: &ir.Endpoint{Address: "127.0.0.1", Port: 81}, ConnectTimeout: time.Second}},
		}
		built, err := Build(p)
		if err != nil {
			t.Fatal(err)
		}
		return built.Listeners[0]
	}
	a, b := build("127.0.0.1"), build("127.0.0.2")
	if &a.shared[0] != &b.shared[0] {
		t.Error("each has filters of its own")
	}
	if own, all := len(a.any.GetValue())+len(a.after), len(a.Any().GetValue()); own*4 > all || all != own+len(a.shared) {
		t.Errorf("%d of %d bytes are its own", own, all)
	}
	if sum := sha256.Sum256(a.Any().GetValue()); a.Version != hex.EncodeToString(sum[:16]) {
		t.Error("the version is not that of what is sent")
	}
	var l listenerv3.Listener
	if err := a.Any().UnmarshalTo(&l); err != nil || l.GetAddress().GetSocketAddress().GetAddress() != "127.0.0.1" {
		t.Errorf("%v, %v", err, &l)
	}
	for _, name := range []string{"in", "envoy.filters.http.router", "http"} {
		if !a.Contains(append([]byte{byte(len(name))}, name...)) {
			t.Errorf("%q is not found in it", name)
		}
	}
	if a.Contains([]byte("127.0.0.2")) {
		t.Error("it holds the address of the other")
	}
}
