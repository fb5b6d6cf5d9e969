package server

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/xds"
)

func res(t testing.TB, typeURL, name string, m proto.Message) *xds.Resource {
	t.Helper()
	r, err := xds.NewResource(typeURL, name, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func edsCluster(t testing.TB, name, alt string) *xds.Resource {
	return res(t, xds.TypeCluster, name, &clusterv3.Cluster{
		Name: name, AltStatName: alt, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
	})
}

// alike has the same resources, of which some may be replaced.
func alike(rs *xds.Resources) *xds.Resources {
	return &xds.Resources{Listeners: rs.Listeners, Routes: rs.Routes, Clusters: rs.Clusters, Extensions: rs.Extensions}
}

func plainListener(t testing.TB, name, prefix string) *xds.Resource {
	return res(t, xds.TypeListener, name, &listenerv3.Listener{Name: name, StatPrefix: prefix})
}

func routeTo(t testing.TB, name, cluster string) *xds.Resource {
	return res(t, xds.TypeRoute, name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
		}},
	}}})
}

func load(t testing.TB, name string, priority uint32) *xds.Resource {
	return res(t, xds.TypeEndpoint, name, &endpointv3.ClusterLoadAssignment{
		ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{Priority: priority}},
	})
}

// driver plays Envoy's side of a session; types are named by their letter: C, E, S, L, X, R.
type driver struct {
	t         *testing.T
	s         *session
	endpoints map[string]*xds.Resource
	last      map[string]*discoveryv3.DeltaDiscoveryResponse
	rev       uint64
}

var letters = map[string]string{
	"C": xds.TypeCluster, "E": xds.TypeEndpoint, "S": xds.TypeSecret,
	"L": xds.TypeListener, "X": xds.TypeExtension, "R": xds.TypeRoute,
}

func newDriver(t *testing.T) *driver {
	d := &driver{t: t, endpoints: map[string]*xds.Resource{}, last: map[string]*discoveryv3.DeltaDiscoveryResponse{}}
	d.restart()
	return d
}

func (d *driver) restart() {
	d.s = newSession(func(name string) *xds.Resource { return d.endpoints[name] })
}

func (d *driver) set(rs *xds.Resources) {
	d.rev++
	d.s.SetSnapshot(newSnapshot(d.rev, rs, nil, d.s.want))
}

func (d *driver) ask(letter string, names ...string) {
	d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: letters[letter], ResourceNamesSubscribe: names})
}

func (d *driver) ack(letter string) {
	d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: letters[letter], ResponseNonce: d.last[letter].GetNonce()})
}

func (d *driver) nack(letter, message string) {
	d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: letters[letter], ResponseNonce: d.last[letter].GetNonce(),
		ErrorDetail: &statuspb.Status{Message: message}})
}

// expect compares what is sent with e.g. "C+a+b-c": letter, upserts, removals.
func (d *driver) expect(want ...string) {
	d.t.Helper()
	var got []string
	for _, out := range d.s.Ready() {
		resp := out.delta()
		for letter, typeURL := range letters {
			if typeURL != resp.GetTypeUrl() {
				continue
			}
			d.last[letter] = resp
			line := letter
			for _, r := range resp.GetResources() {
				line += "+" + r.GetName()
			}
			removed := append([]string(nil), resp.GetRemovedResources()...)
			sort.Strings(removed)
			for _, name := range removed {
				line += "-" + name
			}
			got = append(got, line)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		d.t.Fatalf("sent %v, want %v", got, want)
	}
}

func (d *driver) acked(want uint64) {
	d.t.Helper()
	if got := d.s.Progress().Acked; got != want {
		d.t.Fatalf("acknowledged revision %d, want %d: %+v", got, want, d.s.Progress())
	}
}

// started brings a proxy up with clusters a, a listener in and a route r to a.
func started(t *testing.T) (*driver, *xds.Resources) {
	d := newDriver(t)
	d.endpoints["a"] = load(t, "a", 0)
	rs := &xds.Resources{
		Clusters:  []*xds.Resource{edsCluster(t, "a", "")},
		Listeners: []*xds.Resource{plainListener(t, "in", "")},
		Routes:    []*xds.Resource{routeTo(t, "r", "a")},
	}
	d.ask("C")
	d.expect() // nothing is known of the proxy yet
	d.set(rs)
	d.expect("C+a")
	d.ack("C")
	d.ask("E", "a")
	d.expect("E+a")
	d.ack("E")
	d.ask("L")
	d.expect("L+in")
	d.ack("L")
	d.acked(0)
	d.ask("R", "r")
	d.expect("R+r")
	d.ack("R")
	d.expect()
	d.acked(1)
	return d, rs
}

func TestStartInEnvoysOrder(t *testing.T) { started(t) }

func TestMakeBeforeBreak(t *testing.T) {
	d, rs := started(t)
	d.endpoints["b"] = load(t, "b", 0)
	d.set(&xds.Resources{
		Clusters: []*xds.Resource{edsCluster(t, "b", "")}, Listeners: rs.Listeners,
		Routes: []*xds.Resource{routeTo(t, "r", "b")},
	})
	d.expect("C+b")
	d.ack("C")
	d.expect() // the route waits for the new cluster's endpoints
	d.ask("E", "b")
	d.expect("E+b")
	d.ack("E")
	d.expect("R+r")
	d.acked(1)
	d.ack("R")
	d.expect("C-a")
	d.ack("C")
	d.expect("E-a")
	d.acked(2)
	d.ack("E")
	d.expect()
}

// A listener that drains still takes requests by its route, until the proxy unsubscribes from it.
func TestClusterOutlivesTheRouteOfADrainingListener(t *testing.T) {
	d, _ := started(t)
	d.set(&xds.Resources{})
	d.expect("L-in")
	d.acked(1)
	d.ack("L")
	d.expect()
	d.acked(2)
	d.endpoints["a"] = load(t, "a", 1)
	d.s.EndpointsChanged(1, []string{"a"})
	d.expect("E+a")
	d.ack("E")
	d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeRoute, ResourceNamesUnsubscribe: []string{"r"}})
	d.expect("C-a")
	d.ack("C")
	d.expect("E-a")
	d.ack("E")
	d.acked(2)
}

func TestChangesCoalesceToTheNewest(t *testing.T) {
	d, rs := started(t)
	with := func(prefix string) *xds.Resources {
		return &xds.Resources{Clusters: rs.Clusters, Routes: rs.Routes,
			Listeners: []*xds.Resource{plainListener(t, "in", prefix)}}
	}
	d.set(with("two"))
	d.expect("L+in")
	d.set(with("three"))
	d.set(with("four"))
	d.expect()
	d.ack("L")
	d.expect("L+in")
	if got, want := d.last["L"].GetResources()[0].GetVersion(), plainListener(t, "in", "four").Version; got != want {
		t.Fatalf("version %s, want the newest %s", got, want)
	}
	d.acked(1)
	d.ack("L")
	d.acked(4)
}

func TestOnlyTheNonceInFlightCounts(t *testing.T) {
	d, rs := started(t)
	stale := d.last["L"].GetNonce()
	d.set(&xds.Resources{Clusters: rs.Clusters, Routes: rs.Routes, Listeners: []*xds.Resource{plainListener(t, "in", "two")}})
	d.expect("L+in")
	d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeListener, ResponseNonce: stale})
	d.acked(1)
	d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeListener, ResponseNonce: stale,
		ErrorDetail: &statuspb.Status{Message: "in"}})
	if n := d.s.Progress().Nacks; len(n) != 0 {
		t.Fatalf("a stale refusal was counted: %v", n)
	}
	d.ack("L")
	d.acked(2)
}

func TestRejectedIsNotResentUntilItChanges(t *testing.T) {
	d, rs := started(t)
	bad := []*xds.Resource{plainListener(t, "in", "bad")}
	d.set(&xds.Resources{Clusters: rs.Clusters, Routes: rs.Routes, Listeners: bad})
	d.expect("L+in")
	d.nack("L", "Error adding/updating listener(s) in: no good")
	d.expect()
	n := d.s.Progress().Nacks
	if len(n) != 1 || n[0].TypeURL != xds.TypeListener || fmt.Sprint(n[0].Names) != "[in]" ||
		n[0].Versions[0] != bad[0].Version || !strings.Contains(n[0].Message, "no good") {
		t.Fatalf("nacks: %+v", n)
	}
	// An unrelated update goes on, and brings no resending with it.
	d.set(&xds.Resources{Clusters: rs.Clusters, Routes: []*xds.Resource{routeTo(t, "r", "a2")}, Listeners: bad})
	d.expect("R+r")
	d.ack("R")
	d.expect()
	d.acked(1)
	d.set(&xds.Resources{Clusters: rs.Clusters, Routes: rs.Routes, Listeners: []*xds.Resource{plainListener(t, "in", "good")}})
	d.expect("L+in", "R+r")
	d.ack("L")
	d.ack("R")
	d.acked(4)
	if n := d.s.Progress().Nacks; len(n) != 0 {
		t.Fatalf("the mended refusal still stands: %v", n)
	}
}

func TestRejectedClusterHoldsBackOnlyWhatNamesIt(t *testing.T) {
	d, rs := started(t)
	d.endpoints["good"] = load(t, "good", 0)
	d.set(&xds.Resources{
		Clusters:  []*xds.Resource{rs.Clusters[0], edsCluster(t, "bad", ""), edsCluster(t, "good", "")},
		Listeners: []*xds.Resource{plainListener(t, "in", "two")},
		Routes:    []*xds.Resource{routeTo(t, "r", "bad")},
	})
	d.expect("C+bad+good")
	d.nack("C", "Error adding/updating cluster(s) bad: broken")
	d.expect("C+good") // the good one again, without the bad
	d.ack("C")
	d.ask("E", "good")
	d.expect("E+good")
	d.ack("E")
	d.expect("L+in")
	d.ack("L")
	d.expect() // the route to the bad cluster stays back
	d.acked(1)
}

func TestUnnamedRefusalIsFoundByHalving(t *testing.T) {
	d := newDriver(t)
	rs := &xds.Resources{}
	for _, name := range []string{"a", "bad", "c", "d"} {
		rs.Clusters = append(rs.Clusters, res(t, xds.TypeCluster, name, &clusterv3.Cluster{Name: name}))
	}
	d.set(rs)
	d.ask("C")
	d.expect("C+a+bad+c+d")
	d.nack("C", "no")
	d.expect("C+a+bad")
	d.nack("C", "no")
	d.expect("C+a")
	d.ack("C")
	d.expect("C+bad+c")
	d.nack("C", "no")
	d.expect("C+bad")
	d.nack("C", "no")
	d.expect("C+c")
	d.ack("C")
	d.expect("C+d")
	d.ack("C")
	d.expect()
	if n := d.s.Progress().Nacks; len(n) != 1 || fmt.Sprint(n[0].Names) != "[bad]" {
		t.Fatalf("nacks %+v", n)
	}
}

func TestReconnectResendsNothingThatTheProxyHas(t *testing.T) {
	d, rs := started(t)
	d.restart()
	d.endpoints["a"] = load(t, "a", 1)
	d.s.SetSnapshot(newSnapshot(2, rs, nil, nil))
	again := func(letter string, held map[string]string, names ...string) {
		d.s.Handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: letters[letter], ResourceNamesSubscribe: names,
			InitialResourceVersions: held})
	}
	again("C", map[string]string{"a": rs.Clusters[0].Version, "gone": "1"})
	d.expect("C")
	d.ack("C")
	again("L", map[string]string{"in": rs.Listeners[0].Version})
	again("E", map[string]string{"a": "older"}, "a")
	d.expect("E+a", "L")
	d.ack("E")
	d.ack("L")
	again("R", map[string]string{"r": rs.Routes[0].Version}, "r")
	d.expect("C-gone")
	d.ack("C")
	d.expect()
	d.acked(2)
}

func TestNamesOutsideTheSnapshotDoNotExist(t *testing.T) {
	d, _ := started(t)
	d.endpoints["foreign"] = load(t, "foreign", 0)
	d.ask("E", "foreign")
	d.expect("E-foreign")
	d.ack("E")
	d.ask("S", "foreign-key")
	d.expect("S-foreign-key")
	d.endpoints["foreign"] = load(t, "foreign", 1)
	d.s.EndpointsChanged(2, []string{"foreign"})
	d.expect()
}

func TestEndpointsGoOnlyToSubscribers(t *testing.T) {
	d, _ := started(t)
	d.endpoints["other"] = load(t, "other", 0)
	d.s.EndpointsChanged(1, []string{"other"})
	d.expect()
	d.endpoints["a"] = load(t, "a", 1)
	d.s.EndpointsChanged(2, []string{"a"})
	d.expect("E+a")
	if got := d.s.Progress().EndpointsAcked; got != 1 {
		t.Fatalf("endpoints acknowledged %d, want 1", got)
	}
	d.ack("E")
	if got := d.s.Progress().EndpointsAcked; got != 2 {
		t.Fatalf("endpoints acknowledged %d, want 2", got)
	}
	d.acked(1)
}

func TestChangedClusterGetsItsEndpointsAgain(t *testing.T) {
	d, rs := started(t)
	d.set(&xds.Resources{Clusters: []*xds.Resource{edsCluster(t, "a", "changed")}, Listeners: rs.Listeners, Routes: rs.Routes})
	d.expect("C+a", "E+a")
}

func TestMentionsWholeNames(t *testing.T) {
	for _, c := range []struct {
		message, name string
		want          bool
	}{
		{"cluster(s) web: x", "web", true}, {"cluster(s) web-2: x", "web", false},
		{"web-2, web", "web", true}, {"", "web", false}, {"x", "", false},
	} {
		if got := mentions(c.message, c.name); got != c.want {
			t.Errorf("mentions(%q, %q) = %v", c.message, c.name, got)
		}
	}
}
