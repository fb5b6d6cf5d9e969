package dataplane

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func fakeEnvoy(t *testing.T, dir, answer string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "envoy")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+answer+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLocate(t *testing.T) {
	const good = "envoy  version: 9e55/1.40.7/Clean/RELEASE/BoringSSL"
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", filepath.Join(dir, "path")+":/usr/bin:/bin")
	try := func(explicit, path, problem string) {
		t.Helper()
		got, err := Locate(t.Context(), explicit)
		if problem != "" {
			if !errors.Is(err, ErrEnvoy) || !strings.Contains(err.Error(), problem) || !strings.Contains(err.Error(), "make tools") {
				t.Errorf("got %v, want ErrEnvoy with %q", err, problem)
			}
			return
		}
		if err != nil || got != (Envoy{Path: path, Version: "1.40.7"}) {
			t.Errorf("got %+v, %v, want %s", got, err, path)
		}
	}
	onPath := fakeEnvoy(t, "path", good)
	try("", filepath.Join(dir, onPath), "")
	tools := fakeEnvoy(t, ".tools/bin", good)
	try("", filepath.Join(dir, tools), "")
	try(onPath, filepath.Join(dir, onPath), "")
	try("missing", "", "missing --version")
	try(fakeEnvoy(t, "old", "envoy  version: 9e55/1.39.0/Clean/RELEASE/BoringSSL"), "", "1.39.0")
	try(fakeEnvoy(t, "odd", "hello"), "", "like Envoy")
}
