package ingress

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/zoneforge/zoneforge/ir"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
)

func available(zone, service string, sets ...*federationv1.TagSet) *federationv1.ServiceAvailability {
	return &federationv1.ServiceAvailability{Zone: zone, Service: service, TagSets: sets}
}

func tagSet(count uint32, tags ...string) *federationv1.TagSet {
	s := &federationv1.TagSet{Count: count, Tags: map[string]string{}}
	for i := 0; i < len(tags); i += 2 {
		s.Tags[tags[i]] = tags[i+1]
	}
	return s
}

func federation(subset map[string]string) Endpoints {
	return Endpoints{
		Destination: Destination{Mesh: "default", Service: "web", Subset: subset},
		Zone:        "east",
		MTLS:        true,
		Local: []Local{
			{Address: "10.0.0.2", Port: 80, Tags: map[string]string{"version": "v2", resource.TagZone: "liar"}},
			{Address: "10.0.0.1", Port: 80, Tags: map[string]string{"version": "v1"}},
			{Address: "10.0.0.1", Port: 80, Tags: map[string]string{"version": "v1"}},
		},
		Available: []*federationv1.ServiceAvailability{
			available("west", "web", tagSet(1, "version", "v2"), tagSet(4, "version", "v1")),
			available("north", "web", tagSet(2, "version", "v1")),
			available("nowhere", "web", tagSet(9, "version", "v1")),
			available("east", "web", tagSet(9, "version", "v1")),
			available("west", "other", tagSet(9, "version", "v1")),
		},
		Ingresses: []Remote{
			{"west", "2.0.0.2", 10001}, {"west", "2.0.0.1", 10001}, {"north", "3.0.0.1", 10001},
			{"east", "1.0.0.1", 10001}, {"west", "", 10001}, {"west", "2.0.0.9", 70000}, {"west", "2.0.0.1", 10001},
		},
	}
}

func TestBuild(t *testing.T) {
	own := func(addresses ...string) ir.Locality {
		l := ir.Locality{Zone: "east", Weight: uint32(len(addresses))}
		for _, a := range addresses {
			l.Endpoints = append(l.Endpoints, ir.Endpoint{Address: a, Port: 80, Weight: 1})
		}
		return l
	}
	west := func(weight, each uint32) ir.Locality {
		return ir.Locality{Zone: "west", Priority: 1, Weight: weight, Endpoints: []ir.Endpoint{
			{Address: "2.0.0.1", Port: 10001, Weight: each}, {Address: "2.0.0.2", Port: 10001, Weight: each}}}
	}
	north := func(weight, each uint32) ir.Locality {
		return ir.Locality{Zone: "north", Priority: 1, Weight: weight, Endpoints: []ir.Endpoint{
			{Address: "3.0.0.1", Port: 10001, Weight: each}}}
	}
	for _, c := range []struct {
		name   string
		subset map[string]string
		view   View
		plain  bool
		want   []ir.Locality
	}{
		{name: "all, weights in proportion to 5 and 2", view: ClientView,
			want: []ir.Locality{own("10.0.0.1", "10.0.0.2"), north(2, 4), west(5, 5)}},
		{name: "ingress hands on to its own zone only", view: IngressView, want: []ir.Locality{own("10.0.0.1", "10.0.0.2")}},
		{name: "without mTLS no other zone", view: ClientView, plain: true, want: []ir.Locality{own("10.0.0.1", "10.0.0.2")}},
		{name: "one endpoint behind two ingresses", subset: map[string]string{"version": "v2"}, view: ClientView,
			want: []ir.Locality{own("10.0.0.2"), west(1, 1)}},
		{name: "any value", subset: map[string]string{"version": "*"}, view: IngressView, want: []ir.Locality{own("10.0.0.1", "10.0.0.2")}},
		{name: "absent tag", subset: map[string]string{"color": "*"}, view: ClientView},
		{name: "zone of the endpoint, not of its tag", subset: map[string]string{resource.TagZone: "liar"}, view: ClientView},
		{name: "another zone", subset: map[string]string{resource.TagZone: "north"}, view: ClientView, want: []ir.Locality{north(2, 2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := federation(c.subset)
			e.MTLS = !c.plain
			got, err := e.Build(c.view)
			if err != nil {
				t.Fatal(err)
			}
			if want := (ir.Endpoints{Name: EndpointsName(mustSNI(t, e.Destination), c.view), Localities: c.want}); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestBuildIgnoresOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	e := federation(nil)
	want, err := e.Build(ClientView)
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		r.Shuffle(len(e.Local), func(i, j int) { e.Local[i], e.Local[j] = e.Local[j], e.Local[i] })
		r.Shuffle(len(e.Available), func(i, j int) { e.Available[i], e.Available[j] = e.Available[j], e.Available[i] })
		r.Shuffle(len(e.Ingresses), func(i, j int) { e.Ingresses[i], e.Ingresses[j] = e.Ingresses[j], e.Ingresses[i] })
		if got, _ := e.Build(ClientView); !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

// Envoy rejects endpoints whose weights are 0 or sum to more than 2^32-1 in one priority, so no report of a zone may do it.
func TestWeightsStayInRange(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		e := Endpoints{Destination: Destination{Mesh: "m", Service: "s"}, Zone: "own", MTLS: true}
		for z := range 1 + r.IntN(8) {
			zone := string(rune('a' + z))
			count := r.Uint32() >> r.IntN(32)
			e.Available = append(e.Available, available(zone, "s", tagSet(max(count, 1)), tagSet(count, "x", "y")))
			for i := range 1 + r.IntN(13) {
				e.Ingresses = append(e.Ingresses, Remote{zone, "10.0.0.1", uint32(i + 1)})
			}
		}
		got, err := e.Build(ClientView)
		if err != nil {
			t.Fatal(err)
		}
		var zones, endpoints uint64
		for _, l := range got.Localities {
			if l.Weight == 0 || slices.ContainsFunc(l.Endpoints, func(e ir.Endpoint) bool { return e.Weight == 0 }) {
				t.Fatalf("a weight of 0 in %+v", l)
			}
			zones += uint64(l.Weight)
			for _, ep := range l.Endpoints {
				endpoints += uint64(ep.Weight)
			}
		}
		if zones > math.MaxUint32 || endpoints > math.MaxUint32 {
			t.Fatalf("weights sum to %d and %d: %+v", zones, endpoints, got)
		}
	}
}

func TestRemoteOf(t *testing.T) {
	n := &meshv1.ZoneIngress_Networking{Address: "10.0.0.1", Port: 10001}
	zi := &meshv1.ZoneIngress{Zone: "west", Networking: n}
	if got, ok := RemoteOf(zi); !ok || got != (Remote{"west", "10.0.0.1", 10001}) {
		t.Errorf("got %+v %v", got, ok)
	}
	n.AdvertisedAddress, n.AdvertisedPort = "1.2.3.4", 443
	if got, ok := RemoteOf(zi); !ok || got != (Remote{"west", "1.2.3.4", 443}) {
		t.Errorf("got %+v %v", got, ok)
	}
	if got, ok := RemoteOf(nil); ok {
		t.Errorf("got %+v", got)
	}
}
