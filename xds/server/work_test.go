package server

import (
	"fmt"
	"testing"

	"github.com/zoneforge/zoneforge/xds"
)

// since is what a server did since an earlier time.
func (w Work) since(before Work) Work {
	return Work{w.Told - before.Told, w.Responses - before.Responses, w.Resources - before.Resources, w.Bytes - before.Bytes}
}

// TestServerWorkFollowsTheChange counts what is sent for a change, to the byte: it grows with the proxies that it concerns, and not with
// what else they have.
func TestServerWorkFollowsTheChange(t *testing.T) {
	type done struct{ endpoints, route, nothing Work }
	measure := func(proxies, clusters int) (d done) {
		f := newFleet(t, proxies, clusters)
		changed := load(t, f.clusters[0], 1)
		count := func(into *Work, reached func(Progress) bool, change func()) {
			before := f.s.Work()
			all := f.waiter.until(proxies, reached)
			change()
			<-all
			*into = f.s.Work().since(before)
		}
		count(&d.endpoints, func(p Progress) bool { return p.EndpointsAcked >= 2 }, func() {
			f.s.SetEndpoints(2, map[string]*xds.Resource{f.clusters[0]: changed})
		})
		if want := uint64(proxies * changed.Size()); d.endpoints.Bytes != want {
			t.Errorf("endpoints of %d bytes to %d proxies are %d bytes, want %d", changed.Size(), proxies, d.endpoints.Bytes, want)
		}
		other := &xds.Resources{Clusters: f.resources.Clusters, Listeners: f.resources.Listeners,
			Routes: append([]*xds.Resource{routeTo(t, "route:10000", f.clusters[1])}, f.resources.Routes[1:]...)}
		give := func(revision uint64) func() {
			return func() {
				for i := range proxies {
					f.s.SetProxy(ProxyID(fmt.Sprintf("Dataplane/default/p%d", i)), revision, other, nil)
				}
			}
		}
		count(&d.route, func(p Progress) bool { return p.Acked >= 2 }, give(2))
		count(&d.nothing, func(p Progress) bool { return p.Acked >= 3 }, give(3))
		return d
	}
	few, many, wide := measure(10, 10), measure(100, 10), measure(10, 100)
	t.Logf("10 proxies: %+v", few)
	times := func(w Work, n uint64) Work { return Work{w.Told * n, w.Responses * n, w.Resources * n, w.Bytes * n} }
	if many != (done{times(few.endpoints, 10), times(few.route, 10), times(few.nothing, 10)}) {
		t.Errorf("100 proxies take %+v, 10 take %+v", many, few)
	}
	if wide != few {
		t.Errorf("proxies with 100 clusters take %+v, with 10 %+v", wide, few)
	}
	if few.endpoints.Told != 10 || few.endpoints.Resources != 10 || few.route.Resources != 10 || few.nothing != (Work{Told: 10}) {
		t.Errorf("10 proxies take %+v, want one resource each, and none where nothing changed", few)
	}
}
