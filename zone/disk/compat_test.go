package disk

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	kdsv1 "github.com/zoneforge/zoneforge/proto/kds/v1"
	meshv1 "github.com/zoneforge/zoneforge/proto/mesh/v1alpha1"
	"github.com/zoneforge/zoneforge/resource"
	"github.com/zoneforge/zoneforge/sync/kds"
)

var samples = flag.Bool("samples", false, "write a sample of the newest format where there is none; one that is there is never changed")

// sample is the state that a zone of the first format left on its disk.
const sample = "testdata/state-1.db"

func meshKey() resource.Key { return resource.Key{Kind: "Mesh", Name: "default"} }

// future is a record that only a newer zone can use.
func future() resource.Key { return resource.Key{Kind: "Hologram", Mesh: "default", Name: "h"} }

func writeSample(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir)
	must(t, err)
	payload, err := resource.Marshal(&resource.Resource{Key: meshKey(), Labels: map[string]string{"team": "edge"}, Spec: &meshv1.Mesh{Mtls: &meshv1.Mesh_Mtls{
		EnabledBackend: "ca", Backends: []*meshv1.Mesh_CertificateAuthority{{Name: "ca", Type: "builtin", Mode: meshv1.Mesh_MODE_STRICT}}}}})
	must(t, err)
	set := kds.NewSet()
	must(t, set.Put(kds.NewRecord(meshKey(), payload)))
	must(t, set.Put(kds.NewRecord(future(), []byte("of the future"))))
	mesh, _ := set.Get(meshKey())
	hologram, _ := set.Get(future())
	must(t, s.Apply([]*kdsv1.Record{mesh, hologram}, nil, true, set.Position("epoch-1", 42)))
	must(t, s.SaveIntermediate(Intermediate{Mesh: "default", Key: []byte("a key"), Chain: [][]byte{{1, 2}, {3}}}))
	document, err := resource.Marshal(&resource.Resource{Key: resource.Key{Kind: "Dataplane", Mesh: "default", Name: "web-1"}, Spec: &meshv1.Dataplane{
		Networking: &meshv1.Dataplane_Networking{Address: "10.0.0.1", Inbound: []*meshv1.Dataplane_Inbound{{Port: 8080, Tags: map[string]string{resource.TagService: "web"}}}}}})
	must(t, err)
	// As package zone writes them.
	value, err := json.Marshal(map[string]any{"kind": "Dataplane", "mesh": "default", "name": "web-1", "payload": document})
	must(t, err)
	must(t, s.SetRegistrations(map[string]*Registration{"Dataplane/default/web-1": {Key: "Dataplane/default/web-1", Value: value, Seen: time.Unix(1_700_000_000, 5).UTC()}}))
	must(t, s.Close())
	text, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	must(t, os.WriteFile(sample, text, 0o644))
}

// The state that an earlier version left is read whole, with what only a newer one can use.
func TestStoredStateIsUnderstood(t *testing.T) {
	if _, err := os.Stat(sample); os.IsNotExist(err) && *samples {
		writeSample(t)
	}
	text, err := os.ReadFile(sample)
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, fileName), text, 0o600))
	for range 2 { // the second time as this version wrote it
		s, err := Open(dir)
		must(t, err)
		if s.Recovered != "" {
			t.Fatalf("it is taken for damaged: %s", s.Recovered)
		}
		set, at, err := s.Load()
		must(t, err)
		if at.Epoch != "epoch-1" || at.Revision != 42 || set.Len() != 2 || at.Digest != set.Digest() {
			t.Errorf("position %v, %d records", at, set.Len())
		}
		r, ok := set.Get(meshKey())
		if !ok {
			t.Fatal("the mesh is gone")
		}
		mesh, err := resource.Unmarshal(meshKey(), r.GetPayload())
		must(t, err)
		if spec := mesh.Spec.(*meshv1.Mesh); mesh.Labels["team"] != "edge" || spec.GetMtls().GetBackends()[0].GetMode() != meshv1.Mesh_MODE_STRICT || len(resource.Unknown(spec)) > 0 {
			t.Errorf("the mesh is %v %v", mesh.Labels, spec)
		}
		if h, ok := set.Get(future()); !ok || !bytes.Equal(h.GetPayload(), []byte("of the future")) {
			t.Errorf("what only a newer version can use is %v", h)
		}
		all, err := s.LoadIntermediates()
		must(t, err)
		if len(all) != 1 || all[0].Mesh != "default" || string(all[0].Key) != "a key" || len(all[0].Chain) != 2 {
			t.Errorf("intermediates %v", all)
		}
		known, err := s.Registrations()
		must(t, err)
		if len(known) != 1 || known[0].Key != "Dataplane/default/web-1" || !known[0].Seen.Equal(time.Unix(1_700_000_000, 5)) {
			t.Errorf("registrations %v", known)
		}
		must(t, s.SaveIntermediate(all[0]))
		must(t, s.Close())
	}
}
