package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDirectoryOfAnother(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		zone    string
		foreign bool
	}{{"east", false}, {"west", true}, {"east", false}} {
		if err := s.Claim(c.zone); errors.Is(err, ErrForeign) != c.foreign || !c.foreign && err != nil {
			t.Errorf("claimed for %s: %v", c.zone, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "zoneforge.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrForeign) {
		t.Errorf("the directory of a global opens: %v", err)
	}
}
