package zone

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/identity"
)

// outboundsEach is how many services each proxy of an outage is a client of.
const outboundsEach = 10

// outage is a zone with mutual TLS that has stopped, as its disk tells: workloads of so many replicas that serve two services each.
type outage struct {
	testing.TB
	zone    *Zone
	store   *disk.Store
	proxies []*admission.Proxy
	// random counts what was asked of it: each certificate and each key asks.
	random counting
}

type counting struct{ reads atomic.Int64 }

func (c *counting) Read(p []byte) (int, error) {
	c.reads.Add(1)
	return rand.Read(p)
}

func newOutage(tb testing.TB, workloads, replicas int) *outage {
	tb.Helper()
	o := &outage{TB: tb}
	var err error
	o.zone, err = New(Config{Name: "east", DataDir: tb.TempDir(), GlobalAddresses: []string{"g:1"}, GlobalCAFile: "c", TokenFile: "t"})
	o.must(err)
	o.store, err = disk.Open(o.zone.cfg.DataDir)
	o.must(err)
	tb.Cleanup(func() { o.must(o.store.Close()) })

	root, err := pki.NewRoot(rand.Reader, time.Now(), "default", pki.Validity{})
	o.must(err)
	domain, err := pki.NewTrustDomain("east", "default", "zoneforge")
	o.must(err)
	key, err := pki.NewKey(rand.Reader)
	o.must(err)
	csr, err := pki.NewRequest(rand.Reader, key, domain)
	o.must(err)
	chain, err := pki.SignIntermediate(rand.Reader, time.Now(), root, domain, csr, pki.Validity{})
	o.must(err)
	held := disk.Intermediate{Mesh: "default"}
	held.Key, err = key.PEM()
	o.must(err)
	for _, c := range chain {
		held.Chain = append(held.Chain, c.Raw)
	}
	o.must(o.store.SaveIntermediate(held))

	set := kds.NewSet()
	put := func(kind, mesh, name string, spec proto.Message) {
		key := resource.Key{Kind: kind, Mesh: mesh, Name: name}
		payload, err := resource.Marshal(&resource.Resource{Key: key, Spec: spec})
		o.must(err)
		o.must(set.Put(kds.NewRecord(key, payload)))
	}
	put("Mesh", "", "default", strictMesh())
	put("TrustBundle", "default", "default", &federationv1.TrustBundle{Domain: "zoneforge", Roots: []string{string(pki.EncodeCertificates(root.Certificate))}})
	var all []*kdsv1.Record
	set.Each("", func(_ resource.Key, r *kdsv1.Record) bool { all = append(all, r); return true })
	o.must(o.store.Apply(all, nil, true, set.Position("e", 1)))

	files := newRegistrar(o.store, "", o.zone.log)
	for w := range workloads {
		for r := range replicas {
			n := &meshv1.Dataplane_Networking{Address: fmt.Sprintf("10.%d.%d.%d", w>>8, w&255, r+1)}
			for i := range 2 {
				n.Inbound = append(n.Inbound, &meshv1.Dataplane_Inbound{Port: uint32(80 + i),
					Tags: map[string]string{resource.TagService: fmt.Sprintf("s%d-%d", w, i), resource.TagProtocol: "http"}})
			}
			for i := range outboundsEach {
				n.Outbound = append(n.Outbound, &meshv1.Dataplane_Outbound{Port: uint32(9000 + i), Tags: map[string]string{resource.TagService: fmt.Sprintf("s%d-0", (w+i)%workloads)}})
			}
			key := resource.Key{Kind: "Dataplane", Mesh: "default", Name: fmt.Sprintf("w%d-%d", w, r)}
			spec := &meshv1.Dataplane{Networking: n}
			p := &admission.Proxy{ID: "Dataplane/default/" + key.Name, Kind: "Dataplane", Mesh: "default", Name: key.Name, Dataplane: spec,
				Resource: &resource.Resource{Key: key, Spec: spec}, Document: sha256.Sum256([]byte(key.Name)), Known: true, Hash: resource.HashOf(key, []byte(key.Name))}
			o.proxies = append(o.proxies, p)
			files.put(p)
		}
	}
	files.write()
	return o
}

func (o *outage) must(err error) {
	if err != nil {
		o.Helper()
		o.Fatal(err)
	}
}

func strictMesh() *meshv1.Mesh {
	return &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{EnabledBackend: "ca", Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "ca", Type: "builtin"}}}}
}

// start reads the disk, as a zone does that starts.
func (o *outage) start() *town {
	o.Helper()
	held, at, err := o.store.Load()
	o.must(err)
	registrations, err := o.store.Registrations()
	o.must(err)
	c, err := o.zone.open(o.store)
	o.must(err)
	c.identity, err = identity.New(identity.Config{Zone: "east", Store: o.store, Random: &o.random, Request: func(context.Context, string, []byte) error { return nil }})
	o.must(err)
	c.load(held, nil, at, registrations)
	return &town{core: c}
}

// comesBack connects a proxy that acknowledges what it is given.
func (w *town) comesBack(p *admission.Proxy) {
	who := *p
	who.Dataplane = proto.Clone(p.Dataplane).(*meshv1.Dataplane) // it is taken over
	w.connect(&who, "")
	w.flush()
	w.progressed(p.ID, server.Progress{Acked: w.core.revision, EndpointsAcked: w.endpointRevision})
	w.flush()
}

// What proxies take that come back after a restart is what each of them has of its own: what replicas share is built and signed with the
// first of them, no endpoint comes or goes, and nothing is written to the disk.
func TestReturnTakesWhatIsOnesOwn(t *testing.T) {
	const workloads, each = 12, 6
	o := newOutage(t, workloads, each)
	w := o.start()
	w.t = t
	told := 0
	w.returned = func() { told++ }
	if n := o.random.reads.Load(); n > 0 {
		t.Errorf("%d certificates or keys before a proxy was there", n)
	}
	for i := range workloads {
		w.comesBack(o.proxies[i*each])
	}
	first, signed := w.work(), o.random.reads.Load()
	endpoints := first["endpoint_builds_total"]
	if signed == 0 || endpoints == 0 || w.offers() != 2*workloads {
		t.Fatalf("%d certificates, %g endpoints, %d services offered", signed, endpoints, w.offers())
	}
	// The rest are replicas of those.
	rest := 0
	for i, p := range o.proxies {
		if i%each == 0 {
			continue
		}
		rest++
		w.comesBack(p)
	}
	all := w.work()
	if n := o.random.reads.Load() - signed; n > 0 {
		t.Errorf("%d certificates or keys were made for replicas of what had some", n)
	}
	for name, want := range map[string]float64{"proxy_builds_total": float64(rest), "endpoint_builds_total": 0} {
		if got := all[name] - first[name]; got != want {
			t.Errorf("%s: %g more for %d replicas, want %g", name, got, rest, want)
		}
	}
	// Each has a listener, routes and a cluster for each of its inbounds, and filters of these listeners.
	own := 3*2 + len(w.proxies[o.proxies[0].ID].built.Resources.Extensions)
	if got := all["resources_built_total"] - first["resources_built_total"]; got > float64(rest*own) {
		t.Errorf("%g resources were built for %d replicas, want %d for each", got, rest, own)
	}
	if len(w.files.wanted) > 0 {
		t.Errorf("%d proxies are written to the disk again", len(w.files.wanted))
	}
	if w.settled != len(o.proxies) || len(w.restored) > 0 || w.offers() != 2*workloads {
		t.Errorf("%d of %d are settled, %d are missing, %d services offered", w.settled, len(o.proxies), len(w.restored), w.offers())
	}
	w.endGrace()
	w.endGrace()
	if told != 1 {
		t.Errorf("that all are back was told %d times", told)
	}
}

// offers counts the services that the zone offers.
func (w *town) offers() int { return w.state.Offer().Len() }

// BenchmarkStartKnowing reads the disk of a zone that knows two thousand proxies.
func BenchmarkStartKnowing(b *testing.B) {
	o := newOutage(b, 100, 20)
	b.ReportAllocs()
	for b.Loop() {
		o.start()
	}
}

// BenchmarkReturn is what the owner of the state does for a proxy that comes back, without streams.
func BenchmarkReturn(b *testing.B) {
	o := newOutage(b, 100, 20)
	b.ReportAllocs()
	var w *town
	for i := 0; b.Loop(); i++ {
		if i %= len(o.proxies); i == 0 {
			b.StopTimer()
			w = o.start()
			b.StartTimer()
		}
		w.comesBack(o.proxies[i])
	}
}
