package server

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/zoneforge/zoneforge/xds"
)

// moreRoutes brings a started proxy to two clusters with a route each: r to a, q to b.
func moreRoutes(t *testing.T) (*driver, *xds.Resources) {
	d, rs := started(t)
	d.endpoints["b"] = load(t, "b", 0)
	rs = &xds.Resources{Listeners: rs.Listeners, Clusters: []*xds.Resource{rs.Clusters[0], edsCluster(t, "b", "")},
		Routes: []*xds.Resource{routeTo(t, "q", "b"), rs.Routes[0]}}
	d.set(rs)
	d.expect("C+b")
	d.ack("C")
	d.ask("E", "b")
	d.expect("E+b")
	d.ack("E")
	d.ask("R", "q")
	d.expect("R+q")
	d.ack("R")
	d.acked(2)
	return d, rs
}

func TestRejectedRouteKeepsOnlyTheClustersThatItNames(t *testing.T) {
	d, rs := moreRoutes(t)
	d.endpoints["c"] = load(t, "c", 0)
	d.set(&xds.Resources{Listeners: rs.Listeners, Clusters: []*xds.Resource{edsCluster(t, "c", "")},
		Routes: []*xds.Resource{routeTo(t, "q", "c"), routeTo(t, "r", "c")}})
	d.expect("C+c")
	d.ack("C")
	d.ask("E", "c")
	d.expect("E+c")
	d.ack("E")
	d.expect("R+q+r")
	d.nack("R", "r: no good")
	d.expect("R+q")
	d.ack("R")
	// b goes, while a stays for the route that the proxy kept, and its endpoints stay current.
	d.expect("C-b")
	d.ack("C")
	d.expect("E-b")
	d.ack("E")
	d.endpoints["a"] = load(t, "a", 7)
	d.s.EndpointsChanged(9, []string{"a"})
	d.expect("E+a")
	d.ack("E")
	d.acked(2)
	d.set(&xds.Resources{Listeners: rs.Listeners, Clusters: []*xds.Resource{edsCluster(t, "c", "")},
		Routes: []*xds.Resource{routeTo(t, "q", "c"), routeTo(t, "r", "c2")}})
	d.expect("R+r")
	d.ack("R")
	d.expect("C-a")
	d.ack("C")
	d.acked(4)
}

func TestClusterOfARouteInFlightStays(t *testing.T) {
	d, rs := moreRoutes(t)
	both := rs.Clusters
	d.set(&xds.Resources{Listeners: rs.Listeners, Clusters: both, Routes: []*xds.Resource{routeTo(t, "q", "a"), rs.Routes[1]}})
	d.expect("R+q")
	// While the proxy has not said which route it has, either cluster may be needed.
	d.set(&xds.Resources{Listeners: rs.Listeners, Clusters: both[:1], Routes: []*xds.Resource{routeTo(t, "q", "a"), rs.Routes[1]}})
	d.expect()
	d.ack("R")
	d.expect("C-b")
	d.ack("C")
	d.acked(4)
}

func TestRejectedListenerKeepsItsRouteAndCluster(t *testing.T) {
	d, _ := started(t)
	d.endpoints["b"] = load(t, "b", 0)
	d.set(&xds.Resources{Listeners: []*xds.Resource{plainListener(t, "in", "bad")},
		Clusters: []*xds.Resource{edsCluster(t, "b", "")}, Routes: []*xds.Resource{routeTo(t, "r2", "b")}})
	d.expect("C+b")
	d.ack("C")
	d.ask("E", "b")
	d.expect("E+b")
	d.ack("E")
	d.expect("L+in")
	d.nack("L", "in: no good")
	d.expect()
	d.acked(1)
	d.endpoints["a"] = load(t, "a", 1)
	d.s.EndpointsChanged(1, []string{"a"})
	d.expect("E+a")
	d.ack("E")
	d.set(&xds.Resources{Listeners: []*xds.Resource{plainListener(t, "in", "good")},
		Clusters: []*xds.Resource{edsCluster(t, "b", "")}, Routes: []*xds.Resource{routeTo(t, "r2", "b")}})
	d.expect("L+in")
	d.ack("L")
	d.ask("R", "r2")
	d.expect("R+r2")
	d.ack("R")
	d.acked(3)
	d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeRoute, ResourceNamesUnsubscribe: []string{"r"}})
	d.expect("C-a")
}

// Of a proxy that connects again only versions are known, so nothing goes while it holds an older one of what may refer to it.
func TestUnknownRouteKeepsAllClusters(t *testing.T) {
	d, rs := started(t)
	d.restart()
	d.endpoints["b"] = load(t, "b", 0)
	d.set(&xds.Resources{Listeners: rs.Listeners, Clusters: []*xds.Resource{edsCluster(t, "b", "")},
		Routes: []*xds.Resource{routeTo(t, "r", "b")}})
	again := func(letter, name, version string) {
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: letters[letter], InitialResourceVersions: map[string]string{name: version}}
		if letter == "E" || letter == "R" {
			req.ResourceNamesSubscribe = []string{name}
		}
		d.s.Handle(req)
	}
	again("C", "a", rs.Clusters[0].Version)
	again("E", "a", d.endpoints["a"].Version)
	again("L", "in", rs.Listeners[0].Version)
	d.expect("C+b")
	d.ack("C")
	d.ask("E", "b")
	d.expect("E+b")
	d.ack("E")
	d.expect("L") // all is as it was; the routes are yet to be heard of
	d.ack("L")
	d.expect()
	again("R", "r", "older")
	d.expect("R+r")
	d.nack("R", "r: no good")
	d.expect()
	d.set(&xds.Resources{Listeners: rs.Listeners, Clusters: []*xds.Resource{edsCluster(t, "b", "")},
		Routes: []*xds.Resource{routeTo(t, "r", "b2")}})
	d.expect("R+r")
	d.ack("R")
	d.expect("C-a")
}

// listenerAt is a listener that binds a port.
func listenerAt(t *testing.T, name string, port uint32) *xds.Resource {
	return res(t, xds.TypeListener, name, &listenerv3.Listener{Name: name, Address: address(port),
		AdditionalAddresses: []*listenerv3.AdditionalAddress{{Address: &corev3.Address{
			Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/" + name}}}}}})
}

func TestListenersMove(t *testing.T) {
	d, rs := started(t)
	set := func(listeners ...*xds.Resource) {
		d.set(&xds.Resources{Clusters: rs.Clusters, Routes: rs.Routes, Listeners: listeners})
	}
	set(listenerAt(t, "in", 80), listenerAt(t, "out", 81))
	d.expect("L+in+out")
	d.ack("L")
	d.acked(2)
	// One moves to a free port: in place.
	set(listenerAt(t, "in", 90), listenerAt(t, "out", 81))
	d.expect("L+in")
	d.ack("L")
	// Another name at the port of one that goes: in one response, of which Envoy takes the removal first.
	set(listenerAt(t, "in2", 90), listenerAt(t, "out", 81))
	d.expect("L+in2-in")
	d.ack("L")
	d.acked(4)
	// Two change places: neither may be in the other's.
	set(listenerAt(t, "in2", 81), listenerAt(t, "out", 90))
	d.expect("L-in2-out")
	d.ack("L")
	d.expect("L+in2+out")
	d.acked(4)
	d.ack("L")
	d.acked(5)
}

func TestReferencesAreWholeStrings(t *testing.T) {
	route := routeTo(t, "r", "web")
	for name, want := range map[string]bool{"web": true, "we": false, "web-2": false, "r": true, "all": true} {
		if got := refersTo(route, name); got != want {
			t.Errorf("refers to %q: %v", name, got)
		}
	}
	// In a message packed within another too.
	if listener := httpListener(t, "in", "table", 80); !refersTo(listener, "table") || refersTo(listener, "tabl") {
		t.Error("the name of the route is not found in the connection manager")
	}
}
