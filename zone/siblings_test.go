package zone

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zoneforge/zoneforge/gossip"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/xds/server"
	"github.com/zoneforge/zoneforge/zone/admission"
	"github.com/zoneforge/zoneforge/zone/disk"
	"github.com/zoneforge/zoneforge/zone/identity"
	"github.com/zoneforge/zoneforge/zone/replicas"
)

// among is a replica that has others; nothing of it runs.
func among(t *testing.T) *core {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	z, err := New(Config{Name: "east", Replica: "a", DataDir: t.TempDir(), GlobalAddresses: []string{"g:1"}, GlobalCAFile: "c", TokenFile: "t",
		Gossip: Gossip{Address: "127.0.0.1:0", KeyFile: keys}})
	if err != nil {
		t.Fatal(err)
	}
	store, err := disk.Open(z.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	c, err := z.open(store)
	if err == nil {
		c.siblings, err = z.join(store, kds.Position{}, func() bool { return false })
	}
	if err != nil {
		t.Fatal(err)
	}
	c.siblings.pulse.last.Store(0) // nothing beats here, however long a test takes
	c.identity, err = identity.New(identity.Config{Zone: "east", Store: store, Request: func(context.Context, string, []byte) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A proxy that goes from one replica to another is an endpoint all the while, at both; and it is gone when the last of them that has it
// says so.
func TestProxyGoesBetweenReplicas(t *testing.T) {
	c := among(t)
	const id = "Dataplane/default/echo"
	spec := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "10.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
		{Port: 80, Tags: map[string]string{resource.TagService: "echo"}}}}}
	who := &admission.Proxy{ID: id, Kind: "Dataplane", Mesh: "default", Name: "echo", Dataplane: spec,
		Resource: &resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: "default", Name: "echo"}, Spec: spec}, Hash: resource.Hash{1}}
	registration := c.files.put(who)
	ahead := uint64(time.Now().Add(time.Hour).UnixNano()) // the other one's clock is ahead
	says := func(owner string, stamp uint64) {
		ch := gossip.Change{Record: gossip.Record{Owner: owner, Key: proxyPart + id}, Deleted: stamp == 0}
		if stamp > 0 {
			var err error
			if ch.Value, err = json.Marshal(replicas.Claim{Stamp: stamp, Registration: registration}); err != nil {
				t.Fatal(err)
			}
		}
		c.heard([]gossip.Change{ch})
	}
	// claimed is the stamp of this replica's own claim, 0 for none.
	claimed := func() uint64 {
		snap, _ := c.siblings.gossip.Watch()
		for _, r := range snap.Records {
			var claim replicas.Claim
			if r.Key == proxyPart+id && json.Unmarshal(r.Value, &claim) == nil {
				return claim.Stamp
			}
		}
		return 0
	}
	for _, step := range []struct {
		name    string
		do      func()
		offered bool
		claims  bool
	}{
		{"another replica has it", func() { says("b~1", ahead) }, true, false},
		{"it comes here", func() { c.connect(who, "") }, true, true},
		{"the other one notices", func() { says("b~1", 0) }, true, true},
		{"it goes back there", func() { says("b~2", ahead+9) }, true, true},
		{"this one notices", func() { c.disconnect(id) }, true, false},
		{"a third one has it too, by an old stream", func() { says("d~1", 7) }, true, false},
		{"the second one says that it ended", func() { says("b~2", 0) }, true, false},
		{"the third one too", func() { says("d~1", 0) }, false, false},
		{"it comes here as a new one", func() { c.connect(who, "") }, false, false},
		{"it listens", func() { c.progressed(id, server.Progress{Acked: 1}) }, true, true},
		{"it ends", func() { c.disconnect(id) }, false, false},
		{"it comes here anew", func() { c.connect(who, "") }, false, false},
		{"another one heard of it before, so that it listens", func() { says("b~2", 3) }, true, true},
	} {
		step.do()
		c.flush()
		if offered := c.state.Offer().Len() == 1; offered != step.offered || (claimed() > 0) != step.claims {
			t.Errorf("%s: offered %v, claimed %d, want %v and %v", step.name, offered, claimed(), step.offered, step.claims)
		}
		if stamp := claimed(); step.name == "it comes here" && stamp != ahead+1 {
			t.Errorf("its claim has the stamp %d, that of the other one was %d", stamp, ahead)
		}
	}
}

// A replica that was paused finds all of its streams ended when it goes on, before it hears from others: it takes no endpoint away for
// that until the grace ends.
func TestPausedReplicaTakesNothingAway(t *testing.T) {
	c := among(t)
	c.grace = time.Millisecond
	who := map[string]*admission.Proxy{}
	for i, name := range []string{"moved", "dead"} {
		spec := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "10.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
			{Port: 80, Tags: map[string]string{resource.TagService: name}}}}}
		id := "Dataplane/default/" + name
		who[id] = &admission.Proxy{ID: id, Kind: "Dataplane", Mesh: "default", Name: name, Dataplane: spec,
			Resource: &resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: "default", Name: name}, Spec: spec}, Hash: resource.Hash{byte(i)}}
		c.connect(who[id], "")
		c.progressed(id, server.Progress{Acked: 1})
	}
	c.flush()
	now := time.Now()
	c.siblings.pulse.last.Store(now.Add(-time.Minute).UnixNano())
	c.siblings.pulse.beat(now)
	for id := range who {
		c.disconnect(id)
	}
	c.flush()
	if n := c.state.Offer().Len(); n != 2 {
		t.Fatalf("%d services are offered after the pause", n)
	}
	const moved = "Dataplane/default/moved"
	b, err := json.Marshal(replicas.Claim{Stamp: uint64(now.Add(time.Second).UnixNano()), Registration: c.files.put(who[moved])})
	if err != nil {
		t.Fatal(err)
	}
	c.heard([]gossip.Change{{Record: gossip.Record{Owner: "b~1", Key: proxyPart + moved, Value: b}}})
	<-c.graceEnds
	c.endGrace()
	c.flush()
	if left := c.state.Proxies(false); len(left) != 1 || left[0] != moved {
		t.Errorf("left are %v", left)
	}
	if snap, _ := c.siblings.gossip.Watch(); len(snap.Records) != 1 {
		t.Errorf("it still claims %v", snap.Records)
	}
	// One that did not stand still takes the end of a stream for the end of the proxy.
	c.siblings.pulse.until.Store(0)
	c.siblings.pulse.last.Store(0)
	c.connect(who["Dataplane/default/dead"], "")
	c.progressed("Dataplane/default/dead", server.Progress{Acked: 1})
	c.disconnect("Dataplane/default/dead")
	if left := c.state.Proxies(false); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

// What a dead replica said before, and what the disk holds, ends for a proxy that no replica has, and for no other.
func TestGraceEndsForProxiesThatNobodyHas(t *testing.T) {
	c := among(t)
	for _, name := range []string{"gone", "elsewhere"} {
		spec := &meshv1.Dataplane{Networking: &meshv1.Dataplane_Networking{Address: "10.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{
			{Port: 80, Tags: map[string]string{resource.TagService: name}}}}}
		id := "Dataplane/default/" + name
		value := c.files.put(&admission.Proxy{ID: id, Kind: "Dataplane", Mesh: "default", Name: name, Dataplane: spec,
			Resource: &resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: "default", Name: name}, Spec: spec}})
		in, err := c.files.read(disk.Registration{Key: id, Value: value})
		if err != nil {
			t.Fatal(err)
		}
		c.state.Register(in.Proxy, false)
		c.restored[id] = &proxy{id: id}
		if name == "elsewhere" {
			b, err := json.Marshal(replicas.Claim{Stamp: 1, Registration: value})
			if err != nil {
				t.Fatal(err)
			}
			c.heard([]gossip.Change{{Record: gossip.Record{Owner: "b~1", Key: proxyPart + id, Value: b}}})
		}
	}
	c.endGrace()
	if left := c.state.Proxies(false); len(left) != 1 || left[0] != "Dataplane/default/elsewhere" {
		t.Errorf("left are %v", left)
	}
}

// Replicas that begin apart agree on one identity, whatever they hear first; one that global has accepted is everybody's.
func TestReplicasAgreeOnTheIdentity(t *testing.T) {
	said := map[string]introduction{"b": {Identity: "4"}, "d": {Identity: "6"}, "e": {Identity: "9", Welcomed: true}, "dead": {Identity: "1", Welcomed: true}}
	for _, c := range []struct {
		self    introduction
		members []string
		want    string
	}{
		{introduction{Identity: "5"}, nil, ""},
		{introduction{Identity: "5"}, []string{"b", "d"}, "4"},
		{introduction{Identity: "3"}, []string{"b", "d"}, ""},
		{introduction{Identity: "3"}, []string{"b", "d", "e"}, "9"},
		{introduction{Identity: "5", Welcomed: true}, []string{"b", "d", "e"}, ""},
		{introduction{Identity: "9"}, []string{"b", "e"}, ""},
	} {
		s := &siblings{self: c.self, log: among(t).log}
		var members []gossip.Member
		for _, name := range c.members {
			members = append(members, gossip.Member{Name: name})
		}
		if got := s.agree(members, said); got != c.want {
			t.Errorf("%+v among %v takes over %q, want %q", c.self, c.members, got, c.want)
		}
	}
}
