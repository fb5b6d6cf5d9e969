package xds

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/zoneforge/zoneforge/ir"
)

// replicaAt is what takes requests in for a replica at an address.
func replicaAt(name, address string, own ...string) *ir.Proxy {
	in := "inbound:" + address + ":80"
	return &ir.Proxy{
		Name: name, Own: own,
		Listeners: []ir.Listener{{Name: in, Address: address, Port: 80, Direction: ir.Inbound, Chains: []ir.FilterChain{{Name: "http",
			HTTP: &ir.HTTPConnection{StatPrefix: in, RouteConfig: in + ":mtls"}}}}},
		Routes:   []ir.RouteConfig{{Name: in + ":mtls", VirtualHosts: []ir.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []ir.Route{{Name: name, Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}}, Forward: &ir.Forward{Clusters: []ir.WeightedCluster{{Cluster: "workload:" + in, Weight: 1}}}}}}}}},
		Clusters: []ir.Cluster{{Name: "workload:" + in, Protocol: ir.HTTP1, Static: &ir.Endpoint{Address: "127.0.0.1", Port: 81}, ConnectTimeout: time.Second}},
	}
}

func all(t *testing.T, m *Memo, p *ir.Proxy, personal bool) []*Resource {
	t.Helper()
	built, err := m.Build(p, personal)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(built.Listeners, built.Routes, built.Clusters, built.Extensions)
}

// TestReplicasShareAllButTheirTexts: what each of two replicas has for itself is no more than names, versions and a few numbers.
func TestReplicasShareAllButTheirTexts(t *testing.T) {
	a, b := all(t, nil, replicaAt("web-v1-1", "10.0.0.1", "web-v1-1", "10.0.0.1"), false), all(t, nil, replicaAt("web-v1-2", "10.0.0.2", "web-v1-2", "10.0.0.2"), false)
	whole := all(t, nil, replicaAt("web-v1-1", "10.0.0.1"), false)
	for i := range a {
		if a[i].TypeURL == TypeExtension {
			continue // of nobody's own
		}
		if a[i].any != nil || a[i].own == nil || a[i].body != b[i].body {
			t.Errorf("%s and %s have nothing in common", a[i], b[i])
		}
		if a[i].Version == b[i].Version || a[i].Version != whole[i].Version {
			t.Errorf("versions are %s and %s, without texts of its own %s", a[i], b[i], whole[i])
		}
		if !bytes.Equal(a[i].Any().GetValue(), whole[i].Any().GetValue()) || a[i].Size() != whole[i].Size() || a[i].Size() != len(a[i].Any().GetValue()) {
			t.Errorf("%s: %q, want %q", a[i], a[i].Any().GetValue(), whole[i].Any().GetValue())
		}
		if !bytes.Contains(b[i].Any().GetValue(), []byte("10.0.0.2")) || bytes.Contains(b[i].Any().GetValue(), []byte("10.0.0.1")) {
			t.Errorf("%s: %q", b[i], b[i].Any().GetValue())
		}
	}
}

// TestListenersShareTheirFilters: those that have no text of a proxy's own, too.
func TestListenersShareTheirFilters(t *testing.T) {
	var m Memo
	for _, build := range []func() *Resource{
		func() *Resource { return all(t, nil, replicaAt("web", "127.0.0.1"), false)[0] },
		func() *Resource { return all(t, &m, replicaAt("web", "127.0.0.1", "127.0.0.1"), false)[0] },
		func() *Resource { return all(t, &m, replicaAt("web", "127.0.0.1", "127.0.0.1"), true)[0] },
	} {
		l := build()
		if kept := len(l.body.Value()); l.any != nil || kept*4 > l.Size() {
			t.Errorf("%d of %d bytes are its own", kept, l.Size())
		}
		value := l.Any().GetValue()
		if sum := sha256.Sum256(value); l.Version != hex.EncodeToString(sum[:16]) {
			t.Error("the version is not that of what is sent")
		}
		var decoded listenerv3.Listener
		if err := l.Any().UnmarshalTo(&decoded); err != nil || decoded.GetAddress().GetSocketAddress().GetAddress() != "127.0.0.1" {
			t.Errorf("%v, %v", err, &decoded)
		}
		for _, name := range []string{"inbound:127.0.0.1:80", "envoy.filters.http.router", "http"} {
			if !l.Contains(append([]byte{byte(len(name))}, name...)) {
				t.Errorf("%q is not found in it", name)
			}
		}
		if l.Contains([]byte("127.0.0.2")) {
			t.Error("it holds the address of another")
		}
	}
	// What others have as well keeps the texts of the one that it was built for.
	if l := all(t, &m, replicaAt("web", "127.0.0.1", "127.0.0.1"), false)[0]; l.own != nil {
		t.Error("what all share is one proxy's own")
	}
}

// TestWorkloadsShareWhatTheyKnowOfAService: two clients have a cluster each that differs in the certificate alone.
func TestWorkloadsShareWhatTheyKnowOfAService(t *testing.T) {
	client := func(certificate string) *ir.Proxy {
		return &ir.Proxy{Clusters: []ir.Cluster{{Name: "echo", EndpointsName: "echo", Protocol: ir.HTTP2, ConnectTimeout: time.Second, TLS: &ir.UpstreamTLS{
			Certificate: certificate, Validation: "bundle", SNI: "echo", SANs: []ir.TextMatch{{Kind: ir.TextExact, Value: "spiffe://default/echo"}}}}}}
	}
	var m Memo
	var in Interner
	one, two, whole := all(t, &m, client("svid:web"), false)[0], all(t, &m, client("svid:app"), false)[0], all(t, nil, client("svid:web"), false)[0]
	if one.any != nil || one.body != two.body || one.Version == two.Version {
		t.Errorf("%s and %s have nothing in common", one, two)
	}
	if !bytes.Equal(one.Any().GetValue(), whole.Any().GetValue()) || one.Version != whole.Version || bytes.Equal(one.Any().GetValue(), two.Any().GetValue()) {
		t.Errorf("%s: %q", one, one.Any().GetValue())
	}
	if one.EndpointsName() != "echo" || in.Intern(one) != in.Intern(whole) {
		t.Error("it is not what others have")
	}
	rs := &Resources{Clusters: []*Resource{whole}}
	if in.InternAll(rs, nil); rs.Clusters[0] != one {
		t.Error("it is taken for one proxy's own")
	}
}

// TestWhatIsItsOwnStaysTheSame: a resource that was built again, to the same bytes, is the one that there was.
func TestWhatIsItsOwnStaysTheSame(t *testing.T) {
	var in Interner
	build := func(name string, former *Resources) *Resources {
		built, err := Build(replicaAt(name, "10.0.0.1", "10.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		in.InternAll(built, former)
		return built
	}
	one := build("web", nil)
	same, other := build("web", one), build("other", one)
	if same.Listeners[0] != one.Listeners[0] || same.Routes[0] != one.Routes[0] || same.Clusters[0] != one.Clusters[0] {
		t.Error("equal resources of one proxy are not one")
	}
	if other.Routes[0] == one.Routes[0] || other.Listeners[0] != one.Listeners[0] {
		t.Error("another route is the one before, or an equal listener is not")
	}
	if kept := in.Keep(func(r *Resource) bool { return r == one.Listeners[0] }); kept != 0 {
		t.Error("what is of one proxy alone is looked for by all")
	}
}

// FuzzCut: whatever stands in a message and is its own, its bytes stay, and what is said of them.
func FuzzCut(f *testing.F) {
	f.Add("inbound:10.0.0.12:80", "10.0.0.1", "10.0.0.12")
	f.Add(mark+mark[:2]+"10.0.0.1"+mark, "10.0.0.1", mark+"\x00")
	f.Add(mark[:1]+"10.0.0.1"+mark[1:], "10.0.0.1", mark[:2])
	f.Add("aaaaaaaaaaaaaaaa", "aaaaaa", "aaaaaaa")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, text, one, two string) {
		message := &clusterv3.Cluster{Name: "c", TypedExtensionProtocolOptions: map[string]*anypb.Any{"x": {Value: []byte(text + one + two + one)}}}
		want, err := NewResource(TypeCluster, "c", message)
		if err != nil {
			t.Fatal(err)
		}
		got, err := NewResource(TypeCluster, "c", message)
		if err != nil {
			t.Fatal(err)
		}
		got.cut(&[]string{one, two})
		if !bytes.Equal(got.Any().GetValue(), want.Any().GetValue()) || got.Size() != want.Size() || got.Version != want.Version {
			t.Errorf("got %q, want %q", got.Any().GetValue(), want.Any().GetValue())
		}
		if got.any == nil && got.own == nil {
			t.Error("a text of its own was left out of what is said to have none")
		}
	})
}
