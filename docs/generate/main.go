// Command generate writes docs/resources, one page for each kind of resource that users or proxies write, from the comments of
// proto/, the registry of kinds and deploy/examples; docs/settings.md from package config; and docs/metrics.md from the metrics
// in the code of both control planes. It owns nothing but these pages, and never says what no source says.
//
// Run it by `make docs`, from the root of the checkout.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintf(os.Stderr, "docs: %v\n", err)
		os.Exit(1)
	}
}

// run rewrites the pages of a checkout, and removes those whose kind is gone.
func run(root string) error {
	pages, err := generate(root)
	if err != nil {
		return err
	}
	folder := filepath.Join(root, "docs")
	if err := os.MkdirAll(filepath.Join(folder, "resources"), 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(folder, "resources", "*.md"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if pages["resources/"+filepath.Base(path)] == nil {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		if err := os.WriteFile(filepath.Join(folder, filepath.FromSlash(name)), pages[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate renders the pages of a checkout, by their path below docs.
func generate(root string) (map[string][]byte, error) {
	descriptors, err := describe(root)
	if err != nil {
		return nil, err
	}
	schema, err := readSchema(descriptors)
	if err != nil {
		return nil, err
	}
	pages, err := render(schema, func(plural string) ([]byte, error) { return example(root, plural) })
	if err != nil {
		return nil, err
	}
	pages["settings.md"] = settings()
	if pages["metrics.md"], err = metrics(root); err != nil {
		return nil, err
	}
	return pages, nil
}

// describe has buf read proto/ with its comments, which the generated Go code doesn't hold.
func describe(root string) ([]byte, error) {
	buf, err := filepath.Abs(filepath.Join(root, ".tools", "bin", "buf"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(buf); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing; run make tools", buf)
	}
	cmd := exec.Command(buf, "build", "-o", "-", "--as-file-descriptor-set")
	cmd.Dir = filepath.Join(root, "proto")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("buf build: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return out, nil
}
