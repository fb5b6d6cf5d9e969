package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	benchmark = "package p\n\nimport \"testing\"\n\nfunc BenchmarkOne(b *testing.B) {\n\tfor b.Loop() {\n\t}\n}\n"
	broken    = "package p\n\nimport \"testing\"\n\nfunc BenchmarkOne(b *testing.B) { gone() }\n"
)

func files(t *testing.T, root string, content map[string]string) {
	t.Helper()
	for name, text := range content {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBenchmarkedFolders(t *testing.T) {
	root := t.TempDir()
	files(t, root, map[string]string{"a/a_test.go": benchmark, "b/b_test.go": "package b\n", "c/d/x_test.go": benchmark, ".git/e/e_test.go": benchmark})
	got, err := benchmarked(root)
	if err != nil || !slices.Equal(got, []string{"a", "c/d"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// What one version lacks, or can't build, keeps the other's from nothing.
func TestCompareWithAVersionThatLacksPackages(t *testing.T) {
	repo := t.TempDir()
	t.Chdir(repo)
	files(t, repo, map[string]string{"go.mod": "module example.com/m\n\ngo 1.24\n", "old/old_test.go": benchmark, "bad/bad_test.go": broken, "both/both_test.go": benchmark})
	git := func(args ...string) {
		if err := command(t.Context(), repo, "git", append([]string{"-c", "user.name=n", "-c", "user.email=n@example.com"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "-m", "base")
	if err := os.RemoveAll(filepath.Join(repo, "old")); err != nil {
		t.Fatal(err)
	}
	files(t, repo, map[string]string{"new/new_test.go": benchmark, "bad/bad_test.go": benchmark})
	// It stands in for benchstat and shows what that is given.
	stat := filepath.Join(t.TempDir(), "benchstat")
	if err := os.WriteFile(stat, []byte("#!/bin/sh\nfor f in \"$@\"; do echo \"$f\"; grep -c BenchmarkOne \"${f#*=}\"; done\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-base", "HEAD", "-rounds", "2", "-benchtime", "1x", "-out", "out", "-benchstat", stat}, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	// Of the base old and both, of the files as they are bad, both and new, each twice.
	for _, want := range []string{"base has no package new", "head has no package old", "base can't build the benchmarks of bad", "base=out/base.txt\n4\n", "head=out/head.txt\n6\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if err := run(t.Context(), []string{"-base", "nowhere"}, &out); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("an unknown revision gives %v", err)
	}
	if err := run(t.Context(), nil, &out); err == nil {
		t.Error("no revision was taken")
	}
}
