package dataplane

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/zoneforge/zoneforge/resource"
)

func TestCachesBeginEmpty(t *testing.T) {
	dir := t.TempDir()
	if err := makeCaches(dir); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, resource.CacheFolder(1), "cache-1")
	if err := os.WriteFile(left, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeCaches(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what was kept is still there: %v", err)
	}
	for _, size := range resource.CacheSizes {
		info, err := os.Stat(filepath.Join(dir, resource.CacheFolder(size)))
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
			t.Errorf("%d MiB: %v %v", size, info, err)
		}
	}
}
