package zone

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/zoneforge/zoneforge/pki"
	federationv1 "github.com/zoneforge/zoneforge/proto/federation/v1"
	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/identity"
)

// TestTrustFollowsAcknowledgements has a proxy acknowledge each step of a rotation, and reads what the zone says of it before and after.
func TestTrustFollowsAcknowledgements(t *testing.T) {
	c, store := openCore(t)
	var err error
	root := func() pki.Authority {
		a, err := pki.NewRoot(rand.Reader, time.Now(), "m", pki.Validity{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	old, next := root(), root()
	signs, asked := old, make(chan []byte, 1)
	c.identity, err = identity.New(identity.Config{Zone: "east", Store: store, Request: func(_ context.Context, _ string, csr []byte) error {
		asked <- csr
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.identity.Run(ctx) }()
	defer func() { cancel(); <-done }()

	revision := uint64(0)
	trust := func(roots ...pki.Authority) {
		t.Helper()
		revision++
		bundle := &federationv1.TrustBundle{Domain: "zoneforge"}
		for _, r := range roots {
			bundle.Roots = append(bundle.Roots, string(pki.EncodeCertificates(r.Certificate)))
		}
		mesh := &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{EnabledBackend: "ca", Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "ca", Type: "builtin"}}}}
		apply := &kds.Apply{Position: kds.Position{Epoch: "e", Revision: revision}}
		for _, r := range []*resource.Resource{{Key: resource.Key{Kind: "Mesh", Name: "m"}, Spec: mesh}, {Key: resource.Key{Kind: "TrustBundle", Mesh: "m", Name: "m"}, Spec: bundle}} {
			payload, err := resource.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			apply.Upserts = append(apply.Upserts, kds.NewRecord(r.Key, payload))
		}
		if rejected := c.apply(apply); len(rejected) > 0 {
			t.Fatal(rejected)
		}
		c.flush()
	}
	// issued answers the zone's request for an intermediate, and waits until the zone signs by it.
	issued := func() {
		t.Helper()
		td := pki.TrustDomain{Zone: "east", Mesh: "m", Domain: "zoneforge"}
		chain, err := pki.SignIntermediate(rand.Reader, time.Now(), signs, td, <-asked, pki.Validity{})
		if err != nil {
			t.Fatal(err)
		}
		c.identity.Answer(&kdsv1.Certificate{Mesh: "m", Chain: string(pki.EncodeCertificates(chain...))})
		for changed := false; !changed; {
			<-c.identity.Changed()
			for _, change := range c.identity.Take() {
				c.secretChanged(change)
				changed = changed || change.Service == "web"
			}
		}
		c.flush()
	}
	name := func(print []byte) string {
		for name, r := range map[string]pki.Authority{"old": old, "next": next} {
			if sum := sha256.Sum256(r.Certificate.Raw); string(sum[:]) == string(print) {
				return name
			}
		}
		return "?"
	}
	says := func(when, want string) {
		t.Helper()
		got := ""
		for _, one := range c.status().GetTrust() {
			got += one.GetMesh() + " trusts"
			for _, p := range one.GetTrusted() {
				got += " " + name(p)
			}
			got += fmt.Sprintf(", %d of %d behind%q, ", one.GetBehind(), one.GetProxies(), one.GetWaiting())
			used := map[string]bool{}
			for _, p := range one.GetUsed() {
				used[name(p)] = true
			}
			got += fmt.Sprint(used)
		}
		if got != want {
			t.Fatalf("%s: %q, want %q; %s", when, got, want, protojson.Format(c.status()))
		}
	}
	id := "Dataplane/m/web-1"
	acks := func() { c.progressed(id, server.Progress{Acked: c.revision}); c.flush() }

	trust(old)
	spec := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "10.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
		{Port: 80, Tags: map[string]string{resource.TagService: "web"}}}}}
	c.connect(&admission.Proxy{ID: id, Kind: "Dataplane", Mesh: "m", Name: "web-1", Dataplane: spec,
		Resource: &resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: "m", Name: "web-1"}, Spec: spec}, Hash: resource.Hash{1}}, "")
	c.flush()
	issued()
	acks()
	says("with one root", "")
	trust(old, next)
	says("before the proxy has both", `m trusts old next, 1 of 1 behind["web-1"], map[old:true]`)
	acks()
	says("when it has both", `m trusts old next, 0 of 1 behind[], map[old:true]`)
	signs = next
	trust(next, old)
	acks()
	says("before there are new certificates", `m trusts next old, 0 of 1 behind[], map[old:true]`)
	issued()
	says("before the proxy has its own", `m trusts next old, 1 of 1 behind["web-1"], map[next:true]`)
	acks()
	says("when it has", `m trusts next old, 0 of 1 behind[], map[next:true]`)
	trust(next)
	says("at the end", "")

	// A proxy that was there before the zone started, and is not back, may have anything.
	trust(next, old)
	acks()
	c.restored["Dataplane/m/web-1"] = &proxy{id: id}
	says("while a proxy is not back", `m trusts next old, 1 of 2 behind["web-1"], map[next:true]`)
	c.endGrace()
	says("when it will not come back", `m trusts next old, 0 of 1 behind[], map[next:true]`)
}
