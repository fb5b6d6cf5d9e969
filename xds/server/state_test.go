package server

import (
	"fmt"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/zoneforge/zoneforge/xds"
)

// stateDriver plays Envoy's side of a state-of-the-world session.
type stateDriver struct {
	t         *testing.T
	s         *session
	endpoints map[string]*xds.Resource
	nonce     map[string]string
	version   map[string]string
	last      map[string]*discoveryv3.DiscoveryResponse
	names     map[string][]string
	rev       uint64
}

func newStateDriver(t *testing.T) *stateDriver {
	d := &stateDriver{t: t, endpoints: map[string]*xds.Resource{}, version: map[string]string{}, names: map[string][]string{}}
	d.restart(nil)
	return d
}

func (d *stateDriver) restart(worlds map[string][]*world) {
	d.s = newStateSession(func(name string) *xds.Resource { return d.endpoints[name] }, worlds)
	d.nonce, d.last = map[string]string{}, map[string]*discoveryv3.DiscoveryResponse{}
}

func (d *stateDriver) set(rs *xds.Resources) {
	d.rev++
	d.s.SetSnapshot(newSnapshot(d.rev, rs, nil, d.s.want))
}

func (d *stateDriver) request(letter string, refusal *statuspb.Status) {
	d.s.HandleState(&discoveryv3.DiscoveryRequest{TypeUrl: letters[letter], VersionInfo: d.version[letter],
		ResponseNonce: d.nonce[letter], ResourceNames: d.names[letter], ErrorDetail: refusal})
}

// ask subscribes to exactly the names.
func (d *stateDriver) ask(letter string, names ...string) {
	d.names[letter] = names
	d.request(letter, nil)
}

func (d *stateDriver) ack(letter string) {
	d.nonce[letter], d.version[letter] = d.last[letter].GetNonce(), d.last[letter].GetVersionInfo()
	d.request(letter, nil)
}

func (d *stateDriver) nack(letter, message string) {
	d.nonce[letter] = d.last[letter].GetNonce()
	d.request(letter, &statuspb.Status{Message: message})
}

// expect compares what is sent with e.g. "C a b": letter and all resources of the response.
func (d *stateDriver) expect(want ...string) {
	d.t.Helper()
	var got []string
	for _, out := range d.s.Ready() {
		resp := out.state()
		contents := out.upserts
		if out.world != nil {
			contents = out.world.contents
		}
		for letter, typeURL := range letters {
			if typeURL != out.typeURL {
				continue
			}
			d.last[letter] = resp
			line := letter
			for i, r := range contents {
				line += " " + r.Name
				if resp.GetResources()[i] != r.Any() {
					d.t.Fatalf("%s is not sent as it is", r)
				}
			}
			got = append(got, line)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		d.t.Fatalf("sent %q, want %q", got, want)
	}
}

func (d *stateDriver) acked(want uint64) {
	d.t.Helper()
	if got := d.s.Progress().Acked; got != want {
		d.t.Fatalf("acknowledged revision %d, want %d: %+v", got, want, d.s.Progress())
	}
}

func stateStarted(t *testing.T) (*stateDriver, *xds.Resources) {
	d := newStateDriver(t)
	d.endpoints["a"] = load(t, "a", 0)
	rs := &xds.Resources{
		Clusters:  []*xds.Resource{edsCluster(t, "a", "")},
		Listeners: []*xds.Resource{plainListener(t, "in", "")},
		Routes:    []*xds.Resource{routeTo(t, "r", "a")},
	}
	d.ask("C")
	d.expect() // nothing is known of the proxy yet
	d.set(rs)
	d.expect("C a")
	d.ack("C")
	d.ask("E", "a")
	d.expect("E a")
	d.ack("E")
	d.ask("L")
	d.expect("L in")
	d.ack("L")
	d.acked(0)
	d.ask("R", "r")
	d.expect("R r")
	d.ack("R")
	d.expect()
	d.acked(1)
	return d, rs
}

func TestStateMakeBeforeBreak(t *testing.T) {
	d, rs := stateStarted(t)
	d.endpoints["b"] = load(t, "b", 0)
	d.set(&xds.Resources{Clusters: []*xds.Resource{edsCluster(t, "b", "")}, Listeners: rs.Listeners,
		Routes: []*xds.Resource{routeTo(t, "r", "b")}})
	d.expect("C a b") // leaving a out would remove it
	d.ack("C")
	d.ask("E", "a", "b")
	d.expect("E b")
	d.ack("E")
	d.expect("R r")
	d.acked(1)
	d.ack("R")
	d.expect("C b")
	d.acked(1)
	d.ack("C")
	d.ask("E", "b")
	d.expect()
	d.acked(2)
}

func TestStateAnswersThatAllIsGone(t *testing.T) {
	d, _ := stateStarted(t)
	d.set(&xds.Resources{})
	d.expect("L")
	d.ack("L")
	d.acked(2)
	d.ask("R")
	d.expect("C")
	d.ack("C")
	d.expect()
	d.acked(2)
}

func TestStateAnEmptyWorldIsAnswered(t *testing.T) {
	d := newStateDriver(t)
	d.set(&xds.Resources{})
	d.ask("C")
	d.expect("C")
	d.ack("C")
	d.ask("L")
	d.expect("L")
	d.ack("L")
	d.acked(1)
}

func TestStateRefusedKeepsTheLastGoodOne(t *testing.T) {
	d, rs := stateStarted(t)
	d.set(&xds.Resources{Clusters: rs.Clusters, Routes: rs.Routes,
		Listeners: []*xds.Resource{plainListener(t, "in", "bad"), plainListener(t, "more", "")}})
	d.expect("L in more")
	d.nack("L", "in: no good")
	d.expect("L in more")
	if got, want := d.last["L"].GetResources()[0], rs.Listeners[0].Any(); got != want {
		t.Fatal("the world after the refusal does not hold the last good listener")
	}
	d.ack("L")
	d.expect()
	d.acked(1)
	if n := d.s.Progress().Nacks; len(n) != 1 || fmt.Sprint(n[0].Names) != "[in]" {
		t.Fatalf("nacks %+v", n)
	}
	d.set(&xds.Resources{Clusters: rs.Clusters, Routes: rs.Routes, Listeners: []*xds.Resource{plainListener(t, "in", "good")}})
	d.expect("L in more")
	d.ack("L")
	d.expect("L in")
	d.ack("L")
	d.acked(3)
}

func TestStateStaleRequestsAreIgnored(t *testing.T) {
	d, rs := stateStarted(t)
	d.set(&xds.Resources{Clusters: rs.Clusters, Routes: rs.Routes, Listeners: []*xds.Resource{plainListener(t, "in", "two")}})
	d.expect("L in")
	d.request("L", &statuspb.Status{Message: "in"}) // of the response before
	d.acked(1)
	if n := d.s.Progress().Nacks; len(n) != 0 {
		t.Fatalf("nacks %+v", n)
	}
	d.ack("L")
	d.acked(2)
}

func TestStateEndpointsThatDoNotExistAreEmpty(t *testing.T) {
	d, rs := stateStarted(t)
	d.set(&xds.Resources{Clusters: []*xds.Resource{rs.Clusters[0], edsCluster(t, "b", "")}, Listeners: rs.Listeners, Routes: rs.Routes})
	d.expect("C a b")
	d.ack("C")
	d.ask("E", "a", "b")
	d.expect("E b")
	var empty endpointv3.ClusterLoadAssignment
	if err := d.last["E"].GetResources()[0].UnmarshalTo(&empty); err != nil || empty.GetClusterName() != "b" || len(empty.GetEndpoints()) != 0 {
		t.Fatalf("%v: %v", &empty, err)
	}
	d.ack("E")
	d.acked(2)
	d.endpoints["b"] = load(t, "b", 1)
	d.s.EndpointsChanged(1, []string{"b"})
	d.expect("E b")
	d.ack("E")
	if got := d.s.Progress().EndpointsAcked; got != 1 {
		t.Fatalf("endpoints acknowledged %d", got)
	}
}

// A proxy that connects again says by the version what it has, so its clusters outlive its routes all the same.
func TestStateReconnectMakesBeforeItBreaks(t *testing.T) {
	d, rs := stateStarted(t)
	d.restart(d.s.Worlds())
	d.endpoints["b"] = load(t, "b", 0)
	d.rev = 1
	d.set(&xds.Resources{Clusters: []*xds.Resource{edsCluster(t, "b", "")}, Listeners: rs.Listeners,
		Routes: []*xds.Resource{routeTo(t, "r", "b")}})
	d.ask("C")
	d.expect("C a b")
	d.ask("L")
	d.ask("E", "a")
	d.ask("R", "r")
	d.expect("E a")
	d.ack("E")
	d.ack("C")
	d.ask("E", "a", "b")
	d.expect("E b")
	d.ack("E")
	d.expect("L in", "R r")
	d.ack("L")
	d.expect()
	d.ack("R")
	d.expect("C b")
	d.ack("C")
	d.acked(2)
}

// An ACK that is lost with its stream leaves the proxy with more than it acknowledged.
func TestStateReconnectAfterALostAck(t *testing.T) {
	d, rs := stateStarted(t)
	d.endpoints["b"] = load(t, "b", 0)
	next := &xds.Resources{Clusters: []*xds.Resource{edsCluster(t, "b", "")}, Listeners: rs.Listeners, Routes: []*xds.Resource{routeTo(t, "r", "b")}}
	d.set(next)
	d.expect("C a b")
	d.version["C"] = d.last["C"].GetVersionInfo()
	d.restart(d.s.Worlds())
	d.set(next)
	d.ask("C")
	d.expect("C a b")
}
