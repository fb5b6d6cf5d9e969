package dataplane

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write puts the bootstrap into dir, which it makes for its owner alone if need be, and returns its path. The
// file is replaced in one step, so that an Envoy that restarts never reads half of it.
func (b Bootstrap) Write(dir string) (string, error) {
	content, err := b.JSON()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("write bootstrap: %w", err)
	}
	// CreateTemp opens the file for its owner only.
	f, err := os.CreateTemp(dir, ".bootstrap-*.json")
	if err != nil {
		return "", fmt.Errorf("write bootstrap: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	path := filepath.Join(dir, "bootstrap.json")
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("write bootstrap: %w", err)
	}
	return path, nil
}
