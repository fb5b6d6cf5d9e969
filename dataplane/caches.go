package dataplane

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/zoneforge/zoneforge/resource"
)

// makeCaches makes the folders of caches in a working directory, all empty: what an earlier process kept may be what policies
// of today would never have kept.
func makeCaches(dir string) error {
	if err := os.RemoveAll(filepath.Join(dir, filepath.Dir(resource.CacheFolder(resource.DefaultCacheSize)))); err != nil {
		return fmt.Errorf("empty the caches: %w", err)
	}
	for _, size := range resource.CacheSizes {
		if err := os.MkdirAll(filepath.Join(dir, resource.CacheFolder(size)), 0o700); err != nil {
			return fmt.Errorf("make a cache's folder: %w", err)
		}
	}
	return nil
}
