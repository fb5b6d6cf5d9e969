package server

import (
	"fmt"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// tableBehind holds a route a cluster, by its name in a header, and a last one for all the rest.
func tableBehind(t testing.TB, name string, clusters ...string) *xds.Resource {
	t.Helper()
	host := &routev3.VirtualHost{Name: "all", Domains: []string{"*"}}
	match := func(headers ...*routev3.HeaderMatcher) *routev3.RouteMatch {
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}, Headers: headers}
	}
	for _, c := range clusters {
		host.Routes = append(host.Routes, &routev3.Route{Match: match(&routev3.HeaderMatcher{Name: "to-" + c}),
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: c}}}})
	}
	host.Routes = append(host.Routes, &routev3.Route{Match: match(), Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 404}}})
	r := res(t, xds.TypeRoute, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{host}})
	r.Behind = true
	return r
}

// startedWithBehind brings a proxy up with a route r, and a table deep behind it that leads to a and b.
func startedWithBehind(t *testing.T) (*driver, *xds.Resources) {
	d := newDriver(t)
	d.endpoints["a"], d.endpoints["b"] = load(t, "a", 0), load(t, "b", 0)
	rs := &xds.Resources{
		Clusters:  []*xds.Resource{edsCluster(t, "a", ""), edsCluster(t, "b", "")},
		Listeners: []*xds.Resource{plainListener(t, "in", "")},
		Routes:    []*xds.Resource{tableBehind(t, "deep", "a", "b"), routeTo(t, "r", "a")},
	}
	d.set(rs)
	d.ask("C")
	d.expect("C+a+b")
	d.ack("C")
	d.ask("E", "a", "b")
	d.expect("E+a+b")
	d.ack("E")
	d.ask("L")
	d.expect("L+in")
	d.ack("L")
	d.ask("R", "r", "deep")
	d.expect("R+deep")
	d.ack("R")
	d.expect("R+r")
	d.acked(0)
	d.ack("R")
	d.acked(1)
	return d, rs
}

// sentRoutes are the routes of the table in the newest response, each as the header that it asks for.
func (d *driver) sentRoutes() string {
	d.t.Helper()
	var out []string
	var table routev3.RouteConfiguration
	if err := d.last["R"].GetResources()[0].GetResource().UnmarshalTo(&table); err != nil {
		d.t.Fatal(err)
	}
	for _, r := range routesOf(res(d.t, xds.TypeRoute, table.GetName(), &table)) {
		name := "rest"
		if h := r.GetMatch().GetHeaders(); len(h) > 0 {
			name = h[0].GetName()
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func (d *driver) expectRoutes(want string) {
	d.t.Helper()
	if got := d.sentRoutes(); got != want {
		d.t.Fatalf("the table has routes %q, want %q", got, want)
	}
}

// What leads to a route comes after it.
func TestRoutesBehindOthersComeFirst(t *testing.T) {
	d, rs := startedWithBehind(t)
	next := alike(rs)
	next.Routes = []*xds.Resource{tableBehind(t, "deep", "b", "a"), routeTo(t, "r", "b")}
	d.set(next)
	d.expect("R+deep")
	d.acked(1)
	d.ack("R")
	d.expect("R+r")
	d.ack("R")
	d.acked(2)
	d.s.Release()
	d.expect() // nothing was lost
	// One that is refused holds up no other.
	next = alike(rs)
	next.Routes = []*xds.Resource{tableBehind(t, "deep", "a", "b"), routeTo(t, "r", "a")}
	d.set(next)
	d.expect("R+deep")
	d.nack("R", "deep: no")
	d.expect("R+r")
}

// A request may have chosen its way before the routes to it changed, so what is behind them goes later, and its cluster with it.
func TestRoutesBehindOthersGoLater(t *testing.T) {
	d, rs := startedWithBehind(t)
	without := &xds.Resources{Clusters: rs.Clusters[:1], Listeners: rs.Listeners, Routes: []*xds.Resource{tableBehind(t, "deep", "a"), rs.Routes[1]}}
	d.set(without)
	d.expect("R+deep")
	d.expectRoutes("to-b to-a rest")
	d.ack("R")
	d.expect() // its cluster stays with it
	d.acked(2)
	d.endpoints["b"] = load(t, "b", 1)
	d.s.EndpointsChanged(1, []string{"b"})
	d.expect("E+b")
	d.ack("E")
	// Another change leaves what was lost before.
	d.endpoints["c"] = load(t, "c", 0)
	further := &xds.Resources{Clusters: []*xds.Resource{rs.Clusters[0], edsCluster(t, "c", "")}, Listeners: rs.Listeners,
		Routes: []*xds.Resource{tableBehind(t, "deep", "c"), rs.Routes[1]}}
	d.s.Release()
	d.expect()
	d.set(further)
	d.expect("C+c")
	d.ack("C")
	d.ask("E", "c")
	d.expect("E+c")
	d.ack("E")
	d.expect("R+deep")
	d.expectRoutes("to-b to-a to-c rest")
	d.ack("R")
	d.acked(3)
	d.s.Release()
	d.expect("R+deep")
	d.expectRoutes("to-a to-c rest")
	d.acked(3)
	d.ack("R")
	d.expect("C-b")
	d.ack("C")
	d.expect("E-b")
	d.ack("E")
	d.s.Release()
	d.expect("R+deep")
	d.expectRoutes("to-c rest")
	d.ack("R")
	d.expect()
	d.acked(3)
	if len(d.s.tails) != 0 {
		t.Error(fmt.Sprint("still kept: ", d.s.tails))
	}
}

// A route that comes back is the new one.
func TestRouteBehindOthersComesBack(t *testing.T) {
	d, rs := startedWithBehind(t)
	d.set(&xds.Resources{Clusters: rs.Clusters, Listeners: rs.Listeners, Routes: []*xds.Resource{tableBehind(t, "deep", "a"), rs.Routes[1]}})
	d.expect("R+deep")
	d.ack("R")
	d.set(rs)
	d.expect("R+deep")
	d.expectRoutes("to-a to-b rest")
	d.ack("R")
	d.acked(3)
	if len(d.s.tails) != 0 {
		t.Error(fmt.Sprint("still kept: ", d.s.tails))
	}
}
