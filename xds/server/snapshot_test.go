package server

import (
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// TestSnapshotsListNothingTwice: what proxies share stands in no list of each one's own, but for what it asks for beside that.
func TestSnapshotsListNothingTwice(t *testing.T) {
	shared := &xds.Resources{Clusters: []*xds.Resource{edsCluster(t, "a", ""), edsCluster(t, "c", "")}, Listeners: []*xds.Resource{plainListener(t, "out", "")}}
	of := func(own ...*xds.Resource) *snapshot {
		return newSnapshot(1, &xds.Resources{Clusters: own, Listeners: []*xds.Resource{plainListener(t, "in", "")}, Shared: shared}, nil, nil)
	}
	one, two, more := of(), of(res(t, xds.TypeCluster, "workload", &clusterv3.Cluster{Name: "workload"})), of(edsCluster(t, "b", ""))
	if !identical(one.permitted, shared.EndpointsNames()) || !identical(two.permitted, one.permitted) || !slices.Equal(one.permitted, []string{"a", "c"}) {
		t.Errorf("one that asks for nothing else is permitted %v", one.permitted)
	}
	if !slices.Equal(more.permitted, []string{"a", "b", "c"}) || !more.permits("b") || one.permits("b") {
		t.Errorf("one that asks for another is permitted %v", more.permitted)
	}
	var names []string
	for r := range more.each(xds.TypeCluster) {
		names = append(names, r.Name)
		if more.get(xds.TypeCluster, r.Name) != r {
			t.Errorf("%s is not found", r)
		}
	}
	if !slices.Equal(names, []string{"a", "b", "c"}) || more.get(xds.TypeCluster, "d") != nil {
		t.Errorf("it has %v", names)
	}
	var changed []string
	more.changed(xds.TypeCluster, one, func(name string) { changed = append(changed, name) })
	if !slices.Equal(changed, []string{"b"}) || more.same(xds.TypeCluster, one) || !one.same(xds.TypeCluster, of()) {
		t.Errorf("%v changed", changed)
	}
}
