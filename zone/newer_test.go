package zone_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
	"github.com/zoneforge/zoneforge/zone"
	"github.com/zoneforge/zoneforge/zone/disk"
)

// newer adds a field that no version knows.
func newer[M proto.Message](m M) M {
	m.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 4000, protowire.BytesType), "of the future"))
	return m
}

// A global that is newer sends a kind and fields that this zone doesn't know. It keeps them as they came, in its digest and through a
// start, and says so; all else works.
func TestWhatANewerGlobalSendsIsKeptAndSaid(t *testing.T) {
	g := newGlobal(t)
	cfg := zone.Config{Name: "east", DataDir: t.TempDir(), GlobalAddresses: []string{g.address}, GlobalCAFile: g.caFile, TokenFile: write(t, "token", []byte(zoneToken)),
		XDSAddress: "127.0.0.1:0", RESTAddress: "127.0.0.1:0", Version: "1.0"}
	z := startZone(t, cfg)
	any := sel(tags{resource.TagService: "*"})
	g.put(2,
		kds.NewRecord(resource.Key{Kind: "Hologram", Mesh: "default", Name: "h"}, []byte("of the future")),
		rec(t, "Mesh", "default", strict()),
		rec(t, "Timeout", "partly", newer(&meshv1.Timeout{Sources: any, Destinations: any, Conf: newer(&meshv1.Timeout_Conf{ConnectTimeout: durationpb.New(time.Second)})})),
		rec(t, "TrafficPermission", "open", newer(&meshv1.TrafficPermission{Sources: any, Destinations: any})),
		rec(t, "TrafficPermission", "closed", newer(&meshv1.TrafficPermission{Sources: any, Destinations: any, Conf: &meshv1.TrafficPermission_Conf{Action: meshv1.TrafficPermission_ACTION_DENY}})),
	)
	want := map[string]string{
		"Hologram/h":               "not known to this version",
		"Timeout/partly":           "in force without what this version doesn't know: (field 4000), conf.(field 4000); upgrade the zone",
		"TrafficPermission/open":   "permits nothing new",
		"TrafficPermission/closed": "in force without",
	}
	said := func(s *kdsv1.Status, _ *kds.Set) bool {
		found := 0
		for _, r := range s.GetRejected() {
			if words, ok := want[r.GetKey().GetKind()+"/"+r.GetKey().GetName()]; ok && strings.Contains(r.GetReason(), words) {
				found++
			}
		}
		return found == len(want) && len(s.GetRejected()) == found && s.GetRevision() == 2
	}
	g.await("what the zone can't use", said)
	z.stop()
	d := must(disk.Open(cfg.DataDir))(t)
	held, at, err := d.Load()
	if closeErr := d.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
	g.mu.Lock()
	wanted := g.set.Position("epoch", 2)
	g.status = nil
	g.mu.Unlock()
	if at != wanted {
		t.Errorf("the disk holds %v, not %v", at, wanted)
	}
	if r, ok := held.Get(resource.Key{Kind: "Hologram", Mesh: "default", Name: "h"}); !ok || string(r.GetPayload()) != "of the future" {
		t.Errorf("it holds %v", r)
	}
	startZone(t, cfg)
	g.await("the same after a start", said)
}
