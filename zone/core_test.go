package zone

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/identity"
)

// openCore is the core of a zone that has not begun, on a disk of its own.
func openCore(t *testing.T) (*core, *disk.Store) {
	t.Helper()
	z, err := New(Config{Name: "east", DataDir: t.TempDir(), GlobalAddresses: []string{"g:1"}, GlobalCAFile: "c", TokenFile: "t"})
	if err != nil {
		t.Fatal(err)
	}
	store, err := disk.Open(z.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	c, err := z.open(store)
	if err != nil {
		t.Fatal(err)
	}
	return c, store
}

// A proxy whose stream breaks and comes back at once never loses its endpoints; they go with the last stream.
func TestEndpointsGoWithTheLastStream(t *testing.T) {
	c, store := openCore(t)
	var err error
	c.identity, err = identity.New(identity.Config{Zone: "east", Store: store, Request: func(context.Context, string, []byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { c.run(ctx, DefaultEndpointGrace) })

	id := "Dataplane/default/echo"
	spec := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "10.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
		{Port: 80, Tags: map[string]string{resource.TagService: "echo"}}}}}
	who := &admission.Proxy{ID: id, Kind: "Dataplane", Mesh: "default", Name: "echo", Dataplane: spec,
		Resource: &resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: "default", Name: "echo"}, Spec: spec}, Hash: resource.Hash{1}}
	d := &door{core: c}
	connect := event{connects: id, run: func() { c.connect(who, "") }}
	// look sees the state after everything that was posted before.
	look := func() (offered, streams int) {
		passed := make(chan struct{})
		c.inbox.post(event{run: func() { close(passed) }})
		<-passed // progress is taken after the events that came with it
		done := make(chan struct{})
		c.inbox.post(event{run: func() {
			c.state.Take()
			offered = c.state.Offer().Len()
			if p := c.proxies[id]; p != nil {
				streams = p.streams
			}
			close(done)
		}})
		<-done
		return offered, streams
	}
	for _, step := range []struct {
		name             string
		do               func()
		offered, streams int
	}{
		{"it connects, and does not listen yet", func() { c.inbox.post(connect) }, 0, 1},
		{"it acknowledged what it listens by", func() { d.OnProgress("Dataplane/default/echo", server.Progress{Acked: 1}) }, 1, 1},
		{"it connects again before the old stream ended", func() { c.inbox.post(connect); d.Disconnect("Dataplane/default/echo") }, 1, 1},
		{"it connects again after the old stream ended", func() {
			c.inbox.mu.Lock() // both at once, so that they are taken together
			c.inbox.events = append(c.inbox.events, event{run: func() { c.disconnect(id) }}, connect)
			c.inbox.mu.Unlock()
			c.inbox.signal()
		}, 1, 1},
		{"it goes", func() { d.Disconnect("Dataplane/default/echo") }, 0, 0},
		{"a late word of it harms nothing", func() { d.OnProgress("Dataplane/default/echo", server.Progress{Acked: 9}) }, 0, 0},
	} {
		step.do()
		look() // progress is taken after the events of the same round
		if offered, streams := look(); offered != step.offered || streams != step.streams {
			t.Errorf("%s: %d offered, %d streams, want %d and %d", step.name, offered, streams, step.offered, step.streams)
		}
	}
}

// A proxy that connects again with the document that it had is not kept a second one of.
func TestProxyThatConnectsAgainKeepsItsDocument(t *testing.T) {
	c, _ := openCore(t)
	connect := func(hash byte, token string) *admission.Proxy {
		spec := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "10.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
			{Port: 80, Tags: map[string]string{resource.TagService: "echo"}}}}}
		who := &admission.Proxy{ID: "Dataplane/default/echo", Kind: "Dataplane", Mesh: "default", Name: "echo", Dataplane: spec, TokenID: token,
			Resource: &resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: "default", Name: "echo"}, Spec: spec}, Hash: resource.Hash{hash}}
		c.connect(who, "")
		known, _ := c.state.Proxy(who.ID)
		if now := c.proxies[who.ID].who; now.TokenID != token || now.Dataplane != known.Dataplane || now.Resource.Spec != now.Dataplane {
			t.Errorf("document %d with token %s: got token %s, of the state's document %v, of one document %v", hash, token, now.TokenID, now.Dataplane == known.Dataplane, now.Resource.Spec == now.Dataplane)
		}
		return c.proxies[who.ID].who
	}
	first, again, other := connect(1, "a"), connect(1, "b"), connect(2, "c")
	if again.Dataplane != first.Dataplane || first.TokenID != "a" {
		t.Error("the same document is kept twice")
	}
	if other.Dataplane == first.Dataplane {
		t.Error("another document is not taken")
	}
}

// TestGraceLastsWhileProxiesComeBack holds that the endpoints of proxies that are known from disk stay while such proxies come back one after
// another, though not for ever, and no longer when none does.
func TestGraceLastsWhileProxiesComeBack(t *testing.T) {
	began := time.Now()
	longest := began.Add(mostGraces * DefaultEndpointGrace)
	for _, c := range []struct {
		name           string
		restored       int
		back, at, want time.Duration
		nobody         bool
	}{
		{"one has just come back", 3, 59 * time.Second, time.Minute, 4 * time.Second, false},
		{"the last came some time ago", 3, 50 * time.Second, time.Minute, 0, false},
		{"all are back", 0, 59 * time.Second, time.Minute, 0, false},
		{"none has come", 3, 0, time.Minute, 0, true},
		{"they come for ever", 3, 301 * time.Second, 302 * time.Second, 0, false},
	} {
		one := &core{restored: map[string]*proxy{}}
		for i := range c.restored {
			one.restored[fmt.Sprint(i)] = &proxy{}
		}
		if !c.nobody {
			one.back = began.Add(c.back)
		}
		if got := max(one.returning(began.Add(c.at), longest), 0); got != c.want {
			t.Errorf("%s: %s longer, want %s", c.name, got, c.want)
		}
	}
}
