package xds

import (
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
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
