package zone

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/zoneforge/zoneforge/zone/disk"
)

// Endpoints that an earlier version left on the disk are known at a start.
func TestStoredRegistrationsAreUnderstood(t *testing.T) {
	text, err := os.ReadFile("disk/testdata/state-1.db")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state.db"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all, err := s.Registrations()
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	p, err := new(registrar).read(all[0])
	if err != nil || p.ID != "Dataplane/default/web-1" || p.Mesh != "default" || p.Name != "web-1" || p.Dataplane.GetNetworking().GetInbound()[0].GetPort() != 8080 || p.document != nil {
		t.Errorf("%+v, %v", p, err)
	}
}
